"""Files that others replace after they were indexed: no pixels ever stand under another patient's pseudonym."""

import os
import shutil
import zipfile
from pathlib import Path

import fsspec
import pytest
from s3fs import S3FileSystem

from pipeline.archive import frame_reader
from pipeline.archive.cache_builder import build_cache
from pipeline.archive.listing import known_files
from pipeline.archive.scan import index_archive
from pipeline.archive.source import ArchiveFile, walk
from pipeline.images.cache import load_pixels
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.synthetic import KEY, noise, write_dicom
from tests.s3 import empty_s3

SIZE = Images(height=32, width=64)
SETTINGS = Archive(frames_per_cine=2)


def index(archive: Path | str, folder: Path):
    return index_archive(str(archive), folder / "private", KEY, SETTINGS)


def cache(indexed, archive: Path | str, folder: Path):
    return build_cache(indexed.records, str(archive), folder / "private", KEY, folder / "images", SIZE, SETTINGS)


def image(path: Path, patient: int, **fields):
    """An image of as many bytes as another patient's."""
    stated = {"PatientID": f"P{patient}", "SOPInstanceUID": f"1.2.3.{patient}"}
    stated |= {"StudyInstanceUID": f"1.2.{patient}", "SeriesInstanceUID": f"1.2.{patient}.1"}
    return write_dicom(path, noise(32, 64, seed=patient), **(stated | fields))


def two_patients(folder: Path) -> Path:
    for patient in (1, 2):
        image(folder / "archive" / f"{patient}.dcm", patient)
    image(folder / "other.dcm", 2, SOPInstanceUID="1.2.3.9")
    return folder / "archive"


def reasons(made):
    return made.rejected["reason"].to_pylist()


def pixels(made, seed: int) -> int:
    """How many cached images show the noise of `seed`."""
    return sum((found == noise(32, 64, seed=seed)).all() for found in load_pixels(made.folder, made.images))


def keep_size_and_time(old: Path, new: Path) -> None:
    """Put `new` in the place of `old`, as `cp -p` after a change of clocks would: `stat` returns the same for both."""
    state = old.stat()
    assert state.st_size == new.stat().st_size
    shutil.copy(new, old)
    os.utime(old, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("replace", [shutil.copy, os.replace, keep_size_and_time])
def test_a_file_replaced_by_another_patient_s_before_the_cache_is_rejected_and_indexed_again(tmp_path, replace):
    archive = two_patients(tmp_path)
    indexed = index(archive, tmp_path)
    if replace is keep_size_and_time:
        replace(archive / "1.dcm", tmp_path / "other.dcm")
    else:
        replace(tmp_path / "other.dcm", archive / "1.dcm")
    made = cache(indexed, archive, tmp_path)
    assert reasons(made) == ["changed"] and made.images.num_rows == made.frames - 1 == 1
    (kept,) = made.images.to_pylist()
    whose = dict(zip(indexed.records["sop_instance"].to_pylist(), indexed.records["patient"].to_pylist(), strict=True))
    assert kept["patient"] == whose[kept["sop_instance"]]
    again = index(archive, tmp_path)
    assert again.read == 1
    made = cache(again, archive, tmp_path)
    assert reasons(made) == [] and pixels(made, 2) == 2
    assert len(set(made.images["patient"].to_pylist())) == 1  # both files are patient 2's now


def test_a_new_image_of_the_same_patient_in_a_file_s_place_is_rejected(tmp_path):
    archive = two_patients(tmp_path)
    indexed = index(archive, tmp_path)
    image(tmp_path / "later.dcm", 1, SOPInstanceUID="1.2.3.8")
    keep_size_and_time(archive / "1.dcm", tmp_path / "later.dcm")
    assert reasons(cache(indexed, archive, tmp_path)) == ["changed"]


def test_a_file_replaced_while_it_is_decoded_is_rejected(tmp_path, monkeypatch):
    archive = two_patients(tmp_path)
    indexed = index(archive, tmp_path)
    seen = {row["path"]: row for row in known_files(tmp_path / "private").to_pylist()}[b"1.dcm"]
    reader = frame_reader.FrameReader(str(archive), ("US",), 32, 64, True)
    job = frame_reader.FrameRequest(ArchiveFile("1.dcm", seen["size"], seen["version"]), (0,))
    assert indexed.records.num_rows == 2 and isinstance(reader(job).outcomes[0], frame_reader.CroppedImage)
    decode = frame_reader.Cine.frame

    def replaced_first(self, number):
        shutil.copy(tmp_path / "other.dcm", archive / "1.dcm")
        return decode(self, number)

    monkeypatch.setattr(frame_reader.Cine, "frame", replaced_first)
    assert reader(job).reason == "changed"


def test_a_rejected_frame_is_tried_again_when_the_file_is_back(tmp_path):
    archive = two_patients(tmp_path)
    indexed = index(archive, tmp_path)
    shutil.copy2(archive / "1.dcm", tmp_path / "kept.dcm")
    for change in (lambda: shutil.copy(tmp_path / "other.dcm", archive / "1.dcm"), (archive / "1.dcm").unlink):
        change()
        assert len(reasons(cache(indexed, archive, tmp_path))) == 1
        shutil.copy2(tmp_path / "kept.dcm", archive / "1.dcm")
        made = cache(indexed, archive, tmp_path)
        assert reasons(made) == [] and pixels(made, 1) == 1
        shutil.rmtree(tmp_path / "images")


@pytest.mark.parametrize("same_time", [False, True])
def test_a_zip_replaced_by_one_with_another_patient_s_member_is_rejected_and_read_again(tmp_path, same_time):
    archive = tmp_path / "archive"
    image(archive / "plain.dcm", 3)
    for name, patient in (("a", 1), ("b", 2)):
        image(tmp_path / "member.dcm", patient)
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as made:
            made.write(tmp_path / "member.dcm", "member.dcm")
    shutil.copy(tmp_path / "a.zip", archive / "z.zip")
    indexed, state = index(archive, tmp_path), (archive / "z.zip").stat()
    shutil.copy(tmp_path / "b.zip", archive / "z.zip")
    if same_time:
        os.utime(archive / "z.zip", ns=(state.st_atime_ns, state.st_mtime_ns))
    made = cache(indexed, archive, tmp_path)
    assert reasons(made) == ["changed"] and pixels(made, 2) == 0
    again = index(archive, tmp_path)
    made = cache(again, archive, tmp_path)
    assert reasons(made) == [] and pixels(made, 2) == 1


def test_an_object_replaced_in_a_bucket_is_rejected(tmp_path, monkeypatch):
    with empty_s3() as url:
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        for name, value in zip(names, (url, "an id", "a secret", "us-east-1"), strict=True):
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        system = fsspec.filesystem("s3")
        system.mkdir("clinic")
        for patient in (1, 2):
            system.put(str(image(tmp_path / f"{patient}.dcm", patient)), f"clinic/archive/{patient}.dcm")
        (first,) = (listed for listed in walk("s3://clinic/archive") if listed.path == "1.dcm")
        read = frame_reader.FrameReader("s3://clinic/archive", ("US",), 32, 64, True)
        job = frame_reader.FrameRequest(first, (0,))
        (good,) = read(job).outcomes
        assert isinstance(good, frame_reader.CroppedImage)
        system.put(str(image(tmp_path / "1.dcm", 1, PatientBirthDate="19800101")), "clinic/archive/1.dcm")
        same_patient = read(job)
        system.put(str(tmp_path / "2.dcm"), "clinic/archive/1.dcm")
        another = read(job)
        S3FileSystem.clear_instance_cache()
    assert same_patient.reason == another.reason == "changed"
