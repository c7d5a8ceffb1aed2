"""The archive's folder that an image comes from."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.pretraining.top_folders import top_folders


def known(folder: Path, *rows: tuple[bytes, str | None, str | None, bytes | None, bool]) -> Path:
    """The private list: path, instance, reason, zip, deleted."""
    names = ("path", "sop_instance", "reason", "container", "deleted")
    types = (pa.binary(), pa.string(), pa.string(), pa.binary(), pa.bool_())
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    write_table(folder / "scan.parquet", pa.table(columns, names=names))
    return folder


def test_a_file_is_from_the_first_folder_below_the_root(tmp_path: Path) -> None:
    private = known(
        tmp_path,
        (b"A/anna/1.dcm", "one", None, None, False),
        (b"B\xff/2.dcm", "two", None, None, False),
        (b"C/in.zip\x00deep/3.dcm", "three", None, b"C/in.zip", False),
        (b"root.dcm", "four", None, None, False),
        (b"root.zip\x00D/5.dcm", "five", None, b"root.zip", False),
    )
    assert top_folders(private, ["four", "two", "one", "three", "five", "one"]) == [
        *(b"", b"B\xff", b"A", b"C", b"", b"A"),
    ]


def test_deleted_and_rejected_files_are_ignored_and_the_first_of_duplicates_counts(tmp_path: Path) -> None:
    private = known(
        tmp_path,
        (b"A/old.dcm", "one", None, None, True),
        (b"B/bad.dcm", "one", "unreadable_pixels", None, False),
        (b"C/first.dcm", "one", None, None, False),
        (b"D/repeat.dcm", "one", None, None, False),
        (b"D/note.txt", None, "not_dicom", None, False),
    )
    assert top_folders(private, ["one"]) == [b"C"]


def test_an_image_missing_from_the_list_raises_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scan\.parquet does not exist: only a store that has read the archive"):
        top_folders(tmp_path, ["one"])
    private = known(tmp_path, (b"A/1.dcm", "one", None, None, False))
    with pytest.raises(UserError, match=r"scan\.parquet.* 2 images"):
        top_folders(private, ["one", "two", "three"])
