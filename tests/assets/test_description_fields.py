"""An archive without StudyDescription: the recipe gains fallback fields between two runs of the job `ingest`."""

import csv
from collections import Counter
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from tests.assets.test_staleness import stale
from tests.conftest import TINY_RECIPE, run_in_process, table_path
from tests.pipeline.archive.synthetic import noise, write_dicom

pytestmark = pytest.mark.integration

PATIENTS, RARE = 12, "SECOND LOOK FOR MRS MILLER"
FALLBACK = "archive: {descriptions: [StudyDescription, SeriesDescription, BodyPartExamined]}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive, a mapping of a SeriesDescription, and a store after an ingest by the default."""
    made = tmp_path_factory.mktemp("fallback")
    for number in range(PATIENTS):
        fields = {"PatientID": f"P{number}", "TransducerType": "LINEAR", "BodyPartExamined": "THYROID"}
        if number:
            fields |= {"SeriesDescription": RARE if number == 1 else "Thyroid"}
        write_dicom(made / "archive" / str(number), noise(64, 96, seed=number), **fields)
    (made / "groups.csv").write_text("study_description,groups\nTHYROID,thyroid\n", encoding="utf-8")
    (made / "recipe.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    run_in_process("ingest", made / "store", **changes(made))
    return made


def changes(folder: Path) -> dict[str, str]:
    named = {"ARCHIVE": "archive", "RECIPE": "recipe.yaml", "STUDY_GROUPS": "groups.csv"}
    return {f"SONOTAG_{name}": str(folder / file) for name, file in named.items()}


def table(folder: Path, name: str) -> list[dict]:
    return pq.read_table(table_path(folder / "store", name)).to_pylist()


def metadata(folder: Path, name: str) -> dict[str, object]:
    """Metadata of the newest materialization of an asset."""
    with dg.DagsterInstance.from_config(str(folder / "store" / "dagster")) as instance:
        keys = [key for key in instance.get_asset_keys() if key.path[-1] == name]
        event = instance.get_latest_materialization_event(keys[0])
    assert len(keys) == 1 and event is not None and event.asset_materialization is not None
    return {key: value.value for key, value in event.asset_materialization.metadata.items()}


def test_fallback_fields_label_an_archive_without_a_study_description(folder: Path) -> None:
    assert [(row["study_description"], row["images"]) for row in table(folder, "unmapped_descriptions")] == [
        ("", PATIENTS)
    ]
    assert table(folder, "pretraining_pool") == []
    assert (metadata(folder, "dicom_index")["files read"], metadata(folder, "image_cache")["files decoded"]) == (12, 12)

    (folder / "recipe.yaml").write_text(TINY_RECIPE + FALLBACK, encoding="utf-8")
    home = folder / "store" / "dagster"
    found = stale(folder / "store", home, changes(folder))
    assert found == {"dicom_index": ["has a new code version"]}

    run_in_process("ingest", folder / "store", **changes(folder))
    assert (metadata(folder, "dicom_index")["files read"], metadata(folder, "image_cache")["files decoded"]) == (0, 0)
    described = ((row["study_description"], row["described_by"]) for row in table(folder, "dicom_index"))
    by_series, by_body_part = ("Thyroid", "SeriesDescription"), ("THYROID", "BodyPartExamined")
    assert Counter(described) == {by_series: PATIENTS - 2, by_body_part: 1, (None, None): 1}
    assert len(table(folder, "pretraining_pool")) == PATIENTS - 1
    assert {row["thyroid"] for row in table(folder, "pretraining_pool")} == {1}
    (unmapped,) = table(folder, "unmapped_descriptions")
    assert (unmapped["study_description"], unmapped["described_by"]) == ("(too rare to publish)", None)
    private = folder / "store" / "private" / "experiments" / "tiny" / "unmapped_descriptions.csv"
    with private.open(encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert row["study_description"] == RARE and row["notes"].endswith("from SeriesDescription")
    assert not stale(folder / "store", home, changes(folder)).keys() & {"dicom_index", "weak_labels", "image_cache"}
