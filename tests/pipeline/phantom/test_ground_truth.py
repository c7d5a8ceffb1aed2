"""Every row of an ingest's tables of the phantom's archive equals the ground truth."""

import csv
import hashlib
import hmac
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.scan import index_archive
from pipeline.labels.study_groups import read_study_groups, shipped_study_groups
from pipeline.labels.weak_labels import weak_labels
from pipeline.phantom.clinic import make_phantom
from pipeline.phantom.settings import Defects, TagNoise
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.recipe.labels import Labels
from tests.clinics import small_clinic
from tests.pipeline.archive.synthetic import KEY
from tests.pipeline.phantom.conftest import SMALL

GROUPS = ("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage")
PROBES = ("linear", "curvilinear")
NOWHERE = dict.fromkeys(Defects.model_fields, 0.0)
QUIET = dict.fromkeys(TagNoise.model_fields, 0.0)


@dataclass
class Ingested:
    """The phantom's ground truth and an ingest's tables."""

    truth: dict[str, list[dict[str, str]]]
    index: pa.Table
    rejected: list[pa.Table]
    images: pa.Table
    scan: pa.Table

    @property
    def ids(self) -> dict[str, str]:
        """File ids by path as the ground truth writes it, from the private table."""
        rows = self.scan.filter(pa.compute.invert(self.scan["is_zip"])).select(["path", "file_id"]).to_pylist()
        return {row["path"].decode().replace("\0", "/"): row["file_id"] for row in rows}


def ingested(folder: Path, store: Path) -> Ingested:
    settings = Archive(description_patients=1, frames_per_cine=1)
    archive = str(folder / "archive")
    index = index_archive(archive, store / "private", KEY, settings)
    cache = build_cache(
        index.records, archive, store / "private", KEY, store / "images", Images(height=32, width=32), settings
    )
    truth = {}
    for name in ("records", "rejections"):
        with open(folder / "ground_truth" / f"{name}.csv", newline="", encoding="utf-8") as file:
            truth[name] = list(csv.DictReader(file))
    scan = pq.read_table(store / "private" / "scan.parquet")
    return Ingested(truth, index.records, [index.rejected, cache.rejected], cache.images, scan)


@pytest.fixture(scope="module", params=["default rates", "no defect, no noise", "every rate at one"])
def clinic(request, small_phantom, tmp_path_factory) -> Ingested:
    folder = tmp_path_factory.mktemp("clinic") / "phantom"
    if request.param == "default rates":
        folder = small_phantom
    elif request.param == "no defect, no noise":
        quiet = small_clinic(20, 3, defects=Defects(**NOWHERE), tag_noise=TagNoise(**QUIET))
        make_phantom(folder, 1, quiet)
    else:
        noise = TagNoise(**QUIET | {"wrong_protocol": 1.0, "missing_probe": 1.0})
        defects = Defects(**dict.fromkeys(Defects.model_fields, 1.0))
        make_phantom(folder, 2, small_clinic(12, 2, defects=defects, tag_noise=noise))
    return ingested(folder, tmp_path_factory.mktemp("store"))


def keyed(kind: str, value: str) -> str:
    return hmac.new(KEY, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:32]


@pytest.mark.integration
def test_the_index_is_the_ground_truths_records_and_no_other(clinic):
    of_row = {row["file_id"]: row for row in clinic.index.to_pylist()}
    assert len(of_row) == clinic.index.num_rows
    expected = {}
    for row in clinic.truth["records"]:
        identity = {
            "file_id": clinic.ids[row["path"]],
            "sop_instance": keyed("sop_instance", row["sop_instance_uid"]),
            "series": keyed("series", row["series_uid"]),
            "study": keyed("study", row["study_uid"]),
            "patient": of_row[clinic.ids[row["path"]]]["patient"],  # compared below
            "patient_from": "patient_id",
        }
        copied = ("sop_class", "transfer_syntax", "photometric", "manufacturer", "model")
        optional = ("transducer_type", "transducer_data", "study_description")
        expected[identity["file_id"]] = {
            **dict.fromkeys(clinic.index.column_names),
            **identity,
            **{name: row[name] for name in copied},
            **{name: int(row[name]) for name in ("rows", "columns", "frames")},
            **{name: row[name] or None for name in optional},
            "described_by": "StudyDescription" if row["study_description"] else None,
            "modality": "US",
            "burned_in": False,
            "unreadable_fields": "",
        }
    assert of_row == expected


def test_a_patient_is_one_pseudonym_and_none_is_two(clinic):
    patients = {row["file_id"]: row["patient"] for row in clinic.index.to_pylist()}
    pairs = {(row["patient_id"], patients[clinic.ids[row["path"]]]) for row in clinic.truth["records"]}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def test_quarantine_is_the_ground_truths_rejections_and_no_other(clinic):
    found = {(row["level"], row["id"], row["reason"]) for table in clinic.rejected for row in table.to_pylist()}
    expected = {
        (row["level"], clinic.ids[row["path"]] + (f":{row['frame']}" if row["frame"] else ""), row["reason"])
        for row in clinic.truth["rejections"]
    }
    assert found == expected
    assert sum(table.num_rows for table in clinic.rejected) == len(clinic.truth["rejections"])
    assert all(row["detail"] for table in clinic.rejected for row in table.to_pylist())


def test_every_file_is_listed_once(clinic):
    told = [row["path"] for row in clinic.truth["records"]]
    told += [row["path"] for row in clinic.truth["rejections"] if row["level"] == "file"]
    assert sorted(told) == sorted(clinic.ids)


def test_one_image_of_every_record_but_of_rejected_frames(clinic):
    left_out = {row["path"] for row in clinic.truth["rejections"] if row["level"] == "frame"}
    expected = {
        keyed("sop_instance", r["sop_instance_uid"]) for r in clinic.truth["records"] if r["path"] not in left_out
    }
    assert sorted(clinic.images["sop_instance"].to_pylist()) == sorted(expected)


def test_weak_labels_are_the_ground_truths_tags_row_by_row(clinic):
    labels = Labels()
    assert labels.names == (*GROUPS, *PROBES)
    found = weak_labels(clinic.index, read_study_groups(shipped_study_groups(), labels.groups), labels)
    rows = {row["sop_instance"]: row for row in found.to_pylist()}
    assert len(rows) == len(clinic.truth["records"])
    for truth in clinic.truth["records"]:
        groups, probe = truth["tag_groups"], truth["tag_probe"]
        expected = {name: int(name in groups.split(",")) if groups else None for name in GROUPS}
        expected |= {name: int(name == probe) if probe else None for name in PROBES}
        status = "labelled" if groups and probe else "unknown_probe" if groups else "unmapped_description"
        instance = keyed("sop_instance", truth["sop_instance_uid"])
        assert rows[instance] == {"sop_instance": instance, "status": status, **expected}, truth["path"]


def test_tag_groups_are_table_a1s_and_true_ones_differ_only_with_noise(clinic):
    with (files("pipeline.labels") / "study_groups.csv").open(newline="", encoding="utf-8") as file:
        table_a1 = {row["study_description"]: set(row["groups"].split(",")) for row in csv.DictReader(file)}
    blind = {"other_organ", "misspelt", "abbreviated", "no_description"}
    for row in clinic.truth["records"]:
        noise = set(row["noise"].split(",")) - {""}
        assert set(row["tag_groups"].split(",")) - {""} == table_a1.get(row["study_description"], set())
        assert (row["tag_groups"] == "") == bool(noise & blind)
        if row["true_groups"] != row["tag_groups"]:
            assert noise & {*blind, "wrong_protocol", "swapped_side", "mapping"}
        assert (row["tag_probe"] == "") == bool(noise & {"missing_probe", "foreign_probe"})
        assert row["tag_probe"] in {"", row["true_probe"]}


def test_default_noise_hits_this_small_clinic_in_every_way(small_phantom):
    with open(small_phantom / "ground_truth" / "records.csv", newline="", encoding="utf-8") as file:
        seen = {noise for row in csv.DictReader(file) for noise in row["noise"].split(",")}
    assert seen >= set(TagNoise.model_fields) - {"swapped_side"}  # of so few studies none need name a side
    assert SMALL.tag_noise == TagNoise()
