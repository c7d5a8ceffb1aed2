"""The search for identifiers finds a planted one, and finds nothing in what the index writes."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.archive.identifiers import exposed
from pipeline.archive.scan import index_archive
from tests.pipeline.archive.synthetic import KEY, noise, write_dicom


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    write_dicom(folder / "a", noise(), PatientName="Mueller^Anna", PatientID="MRN-778899", StudyID="1")
    write_dicom(folder / "b", noise(seed=1), PatientName="Mueller^Anna", PatientID="MRN-778899")
    (folder / "letter.txt").write_text("no DICOM")
    return folder


def test_the_index_exposes_nobody(archive: Path, tmp_path: Path) -> None:
    index = index_archive(archive, tmp_path / "private", KEY)
    assert exposed(archive, tmp_path / "private", [index.records, index.rejected]) == 0


@pytest.mark.parametrize("cell", ["MRN-778899", "US LIVER mueller^anna", "patient mrn-778899, second visit"])
def test_a_planted_identifier_is_found(archive: Path, tmp_path: Path, cell: str) -> None:
    index_archive(archive, tmp_path / "private", KEY)
    assert exposed(archive, tmp_path / "private", [pa.table({"n": [1], "study_description": [cell]})]) == 1


def test_a_short_value_is_no_alarm(archive: Path, tmp_path: Path) -> None:
    index_archive(archive, tmp_path / "private", KEY)
    assert exposed(archive, tmp_path / "private", [pa.table({"study_description": ["US 1 LIVER"]})]) == 0
