"""Only the phantom gets the public key, regardless of the files beside a real archive."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from pipeline.archive.scan import index_archive
from pipeline.errors import UserError
from pipeline.phantom.clinic import make_phantom
from pipeline.privacy.identity import PUBLIC_DEMO_KEY, archive_key, load_key
from pipeline.privacy.phantom_marker import NO_PHANTOM, PHANTOM, contents_digest, is_phantom
from pipeline.recipe.archive import Archive
from tests.pipeline.archive.synthetic import write_dicom
from tests.pipeline.phantom.conftest import SMALL, small_phantom

__all__ = ["small_phantom"]


@pytest.fixture
def phantom(small_phantom: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_phantom, tmp_path / "phantom"))


def test_the_phantom_is_recognised_wherever_it_is_copied_to(phantom: Path, tmp_path: Path) -> None:
    assert is_phantom(str(phantom / "archive"))
    assert archive_key(str(phantom / "archive"), tmp_path / "private", {}) == PUBLIC_DEMO_KEY


def _another_patient(archive: Path) -> None:
    first = sorted(archive.rglob("*.dcm"))[0]
    size = first.stat().st_size
    dataset = pydicom.dcmread(first)
    dataset.PatientID = "R" * len(dataset.PatientID)
    dataset.save_as(first)
    assert first.stat().st_size == size  # nothing that a listing shows


def _added(archive: Path) -> None:
    write_dicom(archive / "real.dcm")


def _removed(archive: Path) -> None:
    sorted(archive.rglob("*.dcm"))[0].unlink()


def _moved(archive: Path) -> None:
    first = sorted(archive.rglob("*.dcm"))[0]
    first.rename(first.with_name("moved.dcm"))


def _linked(archive: Path) -> None:
    (archive.parent.parent / "elsewhere").mkdir()
    (archive / "site").symlink_to(archive.parent.parent / "elsewhere")


@pytest.mark.parametrize("change", [_another_patient, _added, _removed, _moved, _linked])
def test_an_archive_that_is_not_only_the_phantom_gets_a_secret_key(
    phantom: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(phantom / "archive")
    assert not is_phantom(str(phantom / "archive"))
    key = archive_key(str(phantom / "archive"), tmp_path / "private", {})
    assert key == (tmp_path / "private" / "pseudonym.key").read_bytes().strip() != PUBLIC_DEMO_KEY


@pytest.mark.parametrize("marker", ["{}", "[]", "", "null", '{"contents": 1}', "[" * 100_000, "the phantom's"])
def test_no_marker_makes_a_phantom_of_a_real_archive(small_phantom: Path, tmp_path: Path, marker: str) -> None:
    write_dicom(tmp_path / "archive" / "real.dcm")
    text = (small_phantom / "phantom.json").read_text() if marker == "the phantom's" else marker
    (tmp_path / "phantom.json").write_text(text)
    assert archive_key(str(tmp_path / "archive"), tmp_path / "private", {}) != PUBLIC_DEMO_KEY


def test_the_public_key_is_refused_as_a_secret_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="SONOTAG_PSEUDONYM_KEY"):
        load_key(tmp_path, {"SONOTAG_PSEUDONYM_KEY": PUBLIC_DEMO_KEY.decode()})
    (tmp_path / "pseudonym.key").write_bytes(PUBLIC_DEMO_KEY)
    with pytest.raises(UserError, match=r"pseudonym\.key"):
        load_key(tmp_path, {})


def _published(archive: Path, private: Path) -> tuple[set[str | None], list[str]]:
    said: list[str] = []
    key = archive_key(str(archive), private, os.environ)
    index = index_archive(str(archive), private, key, Archive(), said.append)
    return set(index.records["study_description"].to_pylist()), said


def test_rare_descriptions_are_published_for_the_phantom_only_and_it_is_logged(phantom: Path, tmp_path: Path) -> None:
    shown, said = _published(phantom / "archive", tmp_path / "private")
    assert len(shown - {None}) >= 2
    assert said[0] == PHANTOM
    _added(phantom / "archive")
    shown, said = _published(phantom / "archive", tmp_path / "others" / "private")
    assert shown <= {None}  # no description is shared by five patients
    assert said[0] == NO_PHANTOM


def test_a_description_of_a_single_patient_of_the_phantom_is_published(tmp_path: Path) -> None:
    described = {"US LIVER": "1.2.1", "US THYROID": "1.2.2"}
    for number, (description, study) in enumerate(described.items()):
        ids = {"PatientID": f"P{number}", "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
        write_dicom(tmp_path / "archive" / str(number), StudyDescription=description, **ids)
    (tmp_path / "phantom.json").write_text(json.dumps({"contents": contents_digest(tmp_path / "archive")}))
    shown, said = _published(tmp_path / "archive", tmp_path / "private")
    assert shown == {*described} and said[0] == PHANTOM


@pytest.mark.parametrize("change", [_another_patient, _added, _removed])
def test_making_a_phantom_anew_deletes_only_its_own_files(phantom: Path, change: Callable[[Path], None]) -> None:
    change(phantom / "archive")
    before = sorted(path.name for path in phantom.rglob("*"))
    with pytest.raises(UserError, match=str(phantom)):
        make_phantom(phantom, 1, SMALL)
    assert sorted(path.name for path in phantom.rglob("*")) == before


def test_a_marker_of_an_earlier_version_is_replaced(phantom: Path) -> None:
    stated = json.loads((phantom / "phantom.json").read_text())
    del stated["contents"]
    (phantom / "phantom.json").write_text(json.dumps(stated))
    assert not is_phantom(str(phantom / "archive"))
    make_phantom(phantom, 0, SMALL)
    assert is_phantom(str(phantom / "archive"))
