import csv
import hashlib
import shutil
import subprocess
import sys
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from pydicom import dcmread

from pipeline.errors import UserError
from pipeline.phantom import clinic as clinic_module
from pipeline.phantom.clinic import DEMO, make_phantom, write_phantom
from pipeline.phantom.defects import DEFECTS
from pipeline.phantom.studies import PROTOCOLS, UNMAPPED, clinic
from tests.pipeline.phantom.conftest import SMALL

CODES = {
    "not_dicom",
    "unreadable_header",
    "not_an_image",
    "not_ultrasound",
    "duplicate",
    "conflicting_duplicate",
    "undecodable",
    "incomplete",
    "not_b_mode",
}


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ground_truth(folder):
    with open(folder / "ground_truth.csv", newline="") as file:
        return list(csv.DictReader(file))


def good_files(folder):
    rejected = {row["path"] for row in ground_truth(folder)}
    archive = folder / "archive"
    files = [path for path in archive.rglob("*") if path.is_file() and path.suffix != ".ZIP"]
    return [path for path in files if str(path.relative_to(archive)) not in rejected]


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_cores(small_phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(clinic_module.os, "cpu_count", lambda: 1)
    write_phantom(tmp_path / "again", 0, SMALL)
    assert bytes_of(tmp_path / "again") == bytes_of(small_phantom)


def test_another_seed_gives_another_clinic():
    one, other = clinic(7, 0), clinic(7, 1)
    assert not {plan.header.instance_uid for plan in one} & {plan.header.instance_uid for plan in other}
    assert [plan.view for plan in one] != [plan.view for plan in other]


def test_a_complete_phantom_is_left_as_it_is(small_phantom):
    before = {path: path.stat().st_mtime_ns for path in small_phantom.rglob("*")}
    said = []
    write_phantom(small_phantom, 0, SMALL, said.append)
    assert {path: path.stat().st_mtime_ns for path in small_phantom.rglob("*")} == before
    assert len(said) == 1
    assert "already" in said[0]


def test_a_phantom_of_another_version_is_replaced(small_phantom, tmp_path, monkeypatch):
    folder = tmp_path / "old"
    shutil.copytree(small_phantom, folder)
    (folder / "archive" / "stale").write_text("x")
    monkeypatch.setattr(clinic_module, "VERSION", 999)
    write_phantom(folder, 0, SMALL)
    assert not (folder / "archive" / "stale").exists()
    assert bytes_of(folder / "archive") == bytes_of(small_phantom / "archive")


def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds something that is no phantom"):
        make_phantom(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"seed -1 is negative"):
        make_phantom(tmp_path / "clinic", seed=-1)
    assert not (tmp_path / "clinic").exists()


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(clinic_module, "write_image", fail)
    with pytest.raises(RuntimeError):
        write_phantom(tmp_path / "clinic", 0, SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_a_folder_of_something_else_in_one_sentence(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    command = [sys.executable, "-m", "pipeline.phantom", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr


def test_every_protocol_is_a_row_of_table_a1_and_the_unmapped_are_not():
    from importlib.resources import files

    with (files("pipeline.labels") / "study_groups.csv").open(newline="") as file:
        mapped = {row["study_description"] for row in csv.DictReader(file)}
    assert {protocol.description for protocol in PROTOCOLS} == mapped
    assert not {protocol.description for protocol in UNMAPPED} & mapped


def test_the_demo_clinic_has_the_size_it_announces():
    plans = clinic(DEMO.patients, 0)
    described = {plan.header.study.description for plan in plans}
    assert len({plan.header.person.patient for plan in plans}) == 42
    assert 350 <= len(plans) <= 450
    assert {protocol.description or None for protocol in UNMAPPED} <= described
    assert len(described) >= 20
    assert {plan.encoding for plan in plans} == set(type(plans[0].encoding))
    assert sum(plan.frames > 1 for plan in plans) >= 3
    assert len({plan.path for plan in plans}) == len(plans)


def test_the_demo_clinic_shows_every_group_in_several_patients_and_both_probes():
    plans = clinic(DEMO.patients, 0)
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


def test_good_files_are_ultrasound_with_pixels_and_fictional_patients(small_phantom):
    files = good_files(small_phantom)
    assert len(files) == len(clinic(SMALL.patients, 0))
    for path in files:
        dataset = dcmread(path)
        assert dataset.Modality == "US"
        assert str(dataset.PatientName).startswith("PHANTOM^P")
        assert dataset.pixel_array.max() > 150
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    uids = [dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files]
    assert len(set(uids)) == len(uids)


def test_the_region_of_an_image_holds_its_tissue(small_phantom):
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


def test_the_ground_truth_names_every_defect_with_a_known_reason(small_phantom):
    rows = ground_truth(small_phantom)
    assert {row["reason"] for row in rows} == CODES
    assert len(rows) == len(DEFECTS) + 1  # a conflict is two files
    for row in rows:
        assert (small_phantom / "archive" / row["path"].replace("/NOTE.TXT", "")).is_file()
        assert (row["level"], bool(row["frame"])) in {("file", False), ("frame", True)}
    assert "ground_truth" not in " ".join(bytes_of(small_phantom / "archive"))


def test_defects_are_what_they_are_called(small_phantom):
    rows = ground_truth(small_phantom)

    def files(reason):
        return [small_phantom / "archive" / row["path"] for row in rows if row["reason"] == reason]

    good = {path.read_bytes() for path in good_files(small_phantom)}
    assert all(path.read_bytes() in good for path in files("duplicate"))
    pair = [dcmread(path) for path in files("conflicting_duplicate")]
    assert pair[0].SOPInstanceUID == pair[1].SOPInstanceUID
    assert not np.array_equal(pair[0].pixel_array, pair[1].pixel_array)
    for path in files("incomplete") + files("undecodable"):
        with pytest.raises((ValueError, RuntimeError)):
            _ = dcmread(path).pixel_array
    assert dcmread(files("not_ultrasound")[0]).Modality == "CT"
    assert all("PixelData" not in dcmread(path) for path in files("not_an_image"))
    notes = [path for path in files("not_dicom") if path.name == "README.TXT"]
    assert b"DICM" not in notes[0].read_bytes()
    for path in files("not_b_mode"):
        red, _, blue = np.moveaxis(dcmread(path).pixel_array.astype(int), -1, 0)
        assert (red - blue > 150).sum() > 200 < (blue - red > 150).sum()
    assert all("SOPInstanceUID" not in dcmread(path) for path in files("unreadable_header"))


def test_the_zip_holds_two_good_images_under_uids_of_their_own(small_phantom):
    (path,) = (small_phantom / "archive").rglob("*.ZIP")
    with ZipFile(path) as zipped:
        images = [dcmread(BytesIO(zipped.read(name))) for name in zipped.namelist() if name != "NOTE.TXT"]
    assert len({image.SOPInstanceUID for image in images}) == 2
    assert all(image.pixel_array.any() for image in images)
