import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from pydicom import dcmread

from pipeline.errors import UserError
from pipeline.phantom import clinic as clinic_module
from pipeline.phantom.clinic import make_phantom
from pipeline.phantom.defects import DEFECTS
from pipeline.phantom.settings import Defects, Phantom, TagNoise, load_phantom
from pipeline.phantom.studies import OTHER_PROBE, SHALLOW, clinic
from pipeline.phantom.views import VIEWS
from tests.clinics import small_clinic
from tests.pipeline.phantom.conftest import SMALL

QUIET = dict.fromkeys(TagNoise.model_fields, 0)
CODES = {
    "not_dicom",
    "unreadable_header",
    "not_an_image",
    "not_ultrasound",
    "duplicate",
    "conflicting_duplicate",
    "undecodable",
    "unsupported_pixels",
    "incomplete",
    "not_b_mode",
}


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ground_truth(folder, table="rejections"):
    with open(folder / "ground_truth" / f"{table}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def good_files(folder):
    """The good images that are files of their own."""
    rejected = {row["path"] for row in ground_truth(folder)}
    archive = folder / "archive"
    files = [path for path in archive.rglob("*") if path.is_file() and path.suffix != ".ZIP"]
    return [path for path in files if str(path.relative_to(archive)) not in rejected]


@pytest.mark.integration
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_cores(small_phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(clinic_module.os, "cpu_count", lambda: 1)
    make_phantom(tmp_path / "again", 0, SMALL)
    assert bytes_of(tmp_path / "again") == bytes_of(small_phantom)


def test_another_seed_gives_another_clinic():
    one, other = clinic(SMALL, 0), clinic(SMALL, 1)
    assert not {plan.header.instance_uid for plan in one} & {plan.header.instance_uid for plan in other}
    assert [plan.view for plan in one] != [plan.view for plan in other]


@pytest.mark.integration
def test_a_complete_phantom_is_left_as_it_is(small_phantom):
    before = {path: path.stat().st_mtime_ns for path in small_phantom.rglob("*")}
    said = []
    make_phantom(small_phantom, 0, SMALL, said.append)
    assert {path: path.stat().st_mtime_ns for path in small_phantom.rglob("*")} == before
    assert len(said) == 1
    assert "already" in said[0]


@pytest.mark.integration
def test_a_phantom_of_another_version_is_replaced(small_phantom, tmp_path, monkeypatch):
    folder = tmp_path / "old"
    shutil.copytree(small_phantom, folder)
    monkeypatch.setattr(clinic_module, "VERSION", 999)
    make_phantom(folder, 0, SMALL)
    assert json.loads((folder / "phantom.json").read_text())["version"] == 999
    assert bytes_of(folder / "archive") == bytes_of(small_phantom / "archive")


def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        make_phantom(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"seed -1 "):
        make_phantom(tmp_path / "clinic", seed=-1)
    assert not (tmp_path / "clinic").exists()


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(clinic_module, "write_image", fail)
    with pytest.raises(RuntimeError):
        make_phantom(tmp_path / "clinic", 0, SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_the_command_refuses_a_folder_with_other_contents(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    command = [sys.executable, "-m", "pipeline.phantom", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr


def test_the_demo_clinic_has_the_size_it_announces():
    plans = clinic(Phantom(), 0)
    described = {plan.header.study.description for plan in plans}
    assert len({plan.header.person.patient for plan in plans}) == 42
    assert len(plans) == 434
    assert {None, "US SHOULDER"} <= described
    assert len(described) >= 20
    assert {plan.encoding for plan in plans} == set(type(plans[0].encoding))
    assert sum(plan.frames > 1 for plan in plans) >= 3
    assert len({plan.path for plan in plans}) == len(plans)


def test_the_papers_clinic_has_the_counts_of_table_1_and_its_proportion():
    plans = clinic(load_phantom("paper", {}), 0)
    assert len(plans) == 12267
    studies = {}
    for plan in plans:
        studies.setdefault(plan.header.person.patient, []).append(plan.header.study.uid)
    assert len(studies) == 1188
    per_patient = Counter(len(set(uids)) for uids in studies.values())
    assert sum(number * count for number, count in per_patient.items()) == 1188 + round(0.2 * 1188)
    assert per_patient[1] > 0.75 * 1188
    assert per_patient[2] > per_patient[3] > 0
    images = Counter(uid for uids in studies.values() for uid in uids)
    assert np.median(list(images.values())) == pytest.approx(12267 / 1426, abs=1.5)
    assert max(images.values()) > 2 * np.median(list(images.values()))


def test_an_archive_of_an_image_a_patient_has_a_study_for_each():
    plans = clinic(small_clinic(images=9, patients=9), 0)
    assert len({plan.header.study.uid for plan in plans}) == len(plans) == 9


def test_the_demo_clinic_shows_every_group_in_several_patients_and_both_probes():
    plans = clinic(Phantom(), 0)
    for views in (
        {"liver", "liver_lesion"},
        {"kidney_view", "transplant"},
        {"thyroid", "thyroid_nodule"},
        {"ascites", "collection"},
        {"effusion", "aerated_lung"},
        {"lymph_node", "soft_tissue_mass", "abscess"},
    ):
        assert len({plan.header.person.patient for plan in plans if plan.view in views}) >= 4, views
    assert {plan.probe.kind for plan in plans} == {"LINEAR", "CURVED LINEAR"}


def test_a_view_is_now_and_then_taken_with_the_other_probe():
    taken = Counter((plan.view, plan.probe.kind) for plan in clinic(load_phantom("paper", {}), 0))
    for view, share in OTHER_PROBE.items():
        other = "CURVED LINEAR" if view in SHALLOW else "LINEAR"
        images = taken[view, "LINEAR"] + taken[view, "CURVED LINEAR"]
        chance = (share * (1 - share) / images) ** 0.5
        assert abs(taken[view, other] / images - share) < 3.5 * chance, view
    assert {view for view, _ in taken} == set(VIEWS)


def test_good_files_are_ultrasound_with_pixels_and_fictional_patients(small_phantom):
    files = good_files(small_phantom)
    assert len(files) == SMALL.archive.images - 2  # two are in a zip
    for path in files:
        dataset = dcmread(path)
        assert dataset.Modality == "US"
        assert str(dataset.PatientName).startswith("PHANTOM^P")
        assert dataset.pixel_array.max() > 150
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    uids = [dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files]
    assert len(set(uids)) == len(uids)


def test_the_region_of_an_image_holds_its_tissue(small_phantom):
    compared = 0
    for path in good_files(small_phantom):
        dataset = dcmread(path)
        if "SequenceOfUltrasoundRegions" not in dataset or dataset.file_meta.TransferSyntaxUID.is_compressed:
            continue
        region, pixels = dataset.SequenceOfUltrasoundRegions[0], dataset.pixel_array
        while pixels.ndim > 2:
            pixels = pixels[0] if pixels.shape[-1] != 3 else pixels[..., 0]
        rows = slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1)
        columns = slice(region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1)
        assert pixels[rows, columns].sum() > 0.8 * pixels.sum(dtype=np.int64)
        compared += 1
    assert compared >= 10


@pytest.mark.integration
def test_the_command_makes_the_clinic_of_the_recipe(tmp_path):
    recipe = tmp_path / "mine.yaml"
    one = "{images: 1, patients: 1}"
    sets = "".join(
        f"  {name}: {{train: {one}, val: {one}, test: {one}}}\n" for name in ("quality", "liver_kidney", "thyroid")
    )
    rest = "  archive: {images: 12, patients: 2}\n  tag_noise: {misspelt: 0.8}\n"
    recipe.write_text(f"name: mine\nphantom:\n{sets}{rest}", encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.phantom", str(tmp_path / "clinic"), "--recipe", str(recipe)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    marker = json.loads((tmp_path / "clinic" / "phantom.json").read_text())
    assert marker["archive"] == {"images": 12, "patients": 2}
    assert marker["tag_noise"]["misspelt"] == 0.8
    assert marker["defects"] == Defects().model_dump()


def test_the_command_refuses_an_unknown_recipe_and_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "pipeline.phantom", str(tmp_path / "clinic"), "--recipe", "nobodys"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("No recipe 'nobodys'")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_another_rate_is_another_phantom_and_replaces_the_old_one(tmp_path):
    clinics = [small_clinic(12, 2), small_clinic(12, 2, tag_noise=TagNoise(**QUIET | {"misspelt": 0.6}))]
    for settings in clinics:
        make_phantom(tmp_path / "clinic", 0, settings)
    noises = [row["noise"] for row in ground_truth(tmp_path / "clinic", "records")]
    assert any("misspelt" in noise for noise in noises)
    assert json.loads((tmp_path / "clinic" / "phantom.json").read_text())["tag_noise"]["misspelt"] == 0.6


def test_every_kind_of_defect_has_a_rate_and_zips_are_made_of_good_images():
    assert set(Defects.model_fields) == {*DEFECTS, "zipped"}


def test_the_ground_truth_names_every_defect_with_a_known_reason(small_phantom):
    rows = ground_truth(small_phantom)
    assert {row["reason"] for row in rows} == CODES
    assert len(rows) == len(DEFECTS) + 2  # a conflict is two files, a zip holds a note
    for row in rows:
        assert (small_phantom / "archive" / row["path"].replace("/NOTE.TXT", "")).is_file()
        assert (row["level"], bool(row["frame"])) in {("file", False), ("frame", True)}
    assert "ground_truth" not in " ".join(bytes_of(small_phantom / "archive"))


def test_as_many_files_are_defective_as_the_rates_state(tmp_path):
    rates = Defects().model_copy(update={"truncated_header": 0.5, "report": 0.0, "duplicate": 1.0, "zipped": 0.2})
    make_phantom(tmp_path / "clinic", 0, small_clinic(20, 3, defects=rates))
    rows = ground_truth(tmp_path / "clinic")
    assert Counter(row["reason"] for row in rows) == {
        "unreadable_header": 10,
        "duplicate": 20,
        "incomplete": 2,
        "undecodable": 2,
        "unsupported_pixels": 1,
        "not_b_mode": 1,
        "not_dicom": 1 + 2,  # 0.2 of 20 images are two zips, a note in each
        "not_ultrasound": 1,
        "not_an_image": 1,
        "conflicting_duplicate": 2,
    }


def test_without_any_rate_all_files_are_good_and_all_tags_right(tmp_path):
    nothing = small_clinic(
        20, 3, defects=Defects(**dict.fromkeys(Defects.model_fields, 0)), tag_noise=TagNoise(**QUIET)
    )
    make_phantom(tmp_path / "clinic", 0, nothing)
    assert ground_truth(tmp_path / "clinic") == []
    records = ground_truth(tmp_path / "clinic", "records")
    files = {path.relative_to(tmp_path / "clinic" / "archive").as_posix() for path in good_files(tmp_path / "clinic")}
    assert {row["path"] for row in records} == files
    assert len(files) == 20
    for row in records:
        assert row["noise"] in {"", "mapping"}
        assert row["study_description"] == row["true_description"]
        assert (row["tag_probe"], row["tag_side"]) == (row["true_probe"], row["true_side"])


def test_an_archive_too_small_for_its_defects_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"phantom.s 1 images "):
        for seed in range(20):  # of some, the one image is stored in a way that no defect starts from
            make_phantom(tmp_path / "clinic", seed, small_clinic(1, 1))


def test_defects_match_their_names(small_phantom):
    rows = ground_truth(small_phantom)

    def files(reason):
        return [small_phantom / "archive" / row["path"] for row in rows if row["reason"] == reason]

    good = {path.read_bytes() for path in good_files(small_phantom)}
    assert all(path.read_bytes() in good for path in files("duplicate"))
    pair = [dcmread(path) for path in files("conflicting_duplicate")]
    assert pair[0].SOPInstanceUID == pair[1].SOPInstanceUID
    assert not np.array_equal(pair[0].pixel_array, pair[1].pixel_array)
    enormous = dcmread(files("unsupported_pixels")[0])
    assert enormous.Rows * enormous.Columns > 2**29 > 1000 * len(enormous.PixelData)
    for path in files("incomplete") + files("undecodable"):
        with pytest.raises((ValueError, RuntimeError)):
            _ = dcmread(path).pixel_array
    assert dcmread(files("not_ultrasound")[0]).Modality == "CT"
    assert all("PixelData" not in dcmread(path) for path in files("not_an_image"))
    notes = [path for path in files("not_dicom") if path.name != "NOTE.TXT"]
    assert b"DICM" not in notes[0].read_bytes()
    for path in files("not_b_mode"):
        red, _, blue = np.moveaxis(dcmread(path).pixel_array.astype(int), -1, 0)
        assert (red - blue > 150).sum() > 200 < (blue - red > 150).sum()
    assert all("SOPInstanceUID" not in dcmread(path) for path in files("unreadable_header"))


def test_the_zip_holds_two_good_images_that_are_nowhere_else(small_phantom):
    (path,) = (small_phantom / "archive").rglob("*.ZIP")
    with ZipFile(path) as zipped:
        images = [dcmread(BytesIO(zipped.read(name))) for name in zipped.namelist() if name != "NOTE.TXT"]
    assert len({image.SOPInstanceUID for image in images}) == 2
    assert all(image.pixel_array.any() for image in images)
    assert not {image.SOPInstanceUID for image in images} & {
        dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in good_files(small_phantom)
    }
