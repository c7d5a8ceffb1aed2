"""Header codes that the standard lists are kept; any other text in such a field becomes `other`."""

from pathlib import Path

import pytest

from tests.pipeline.archive.synthetic import index_folder, noise, write_dicom


@pytest.mark.parametrize(
    ("field", "column", "value", "kept"),
    [
        ("PhotometricInterpretation", "photometric", "MONOCHROME2", "MONOCHROME2"),
        ("PhotometricInterpretation", "photometric", "![x](/graphql)", "other"),
        ("PhotometricInterpretation", "photometric", "MUELLER", "other"),
        ("Modality", "modality", "US", "US"),
        ("Modality", "modality", "<img src=x>", "other"),
        ("Modality", "modality", "MUELLER", "other"),
        ("SOPClassUID", "sop_class", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.6.1"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_code_is_one_of_the_standard_s(tmp_path: Path, field: str, column: str, value: str, kept: str) -> None:
    write_dicom(tmp_path / "archive" / "1.dcm", noise(32, 32), **{field: value})
    (row,) = index_folder(tmp_path / "archive", tmp_path / "private").records.to_pylist()
    assert row[column] == kept


def test_an_unknown_transfer_syntax_becomes_other(tmp_path: Path) -> None:
    known, unknown = "1.2.840.10008.1.2.1", "1.2.840.99999.9.2.1"
    for name in ("1", "2"):
        path = write_dicom(tmp_path / "archive" / name, noise(32, 32), PatientID=name)
    path.write_bytes(path.read_bytes().replace(known.encode(), unknown.encode()))
    rows = index_folder(tmp_path / "archive", tmp_path / "private").records.to_pylist()
    assert sorted(row["transfer_syntax"] for row in rows) == [known, "other"]
