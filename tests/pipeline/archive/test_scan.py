"""The index: records, rejections, the ledger of files, patients, repeats, bad input."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, RLELossless

from pipeline.archive import scan
from pipeline.archive.listing import locate
from pipeline.archive.scan import index_archive
from pipeline.archive.workers import Failed
from pipeline.dicom.rejections import Reason, Rejection, UnreadableFile
from pipeline.errors import UserError
from pipeline.privacy.identity import pseudonym
from pipeline.recipe.archive import Archive
from pipeline.tables import DICOM_INDEX, REJECTED_FILES
from tests.pipeline.archive.synthetic import KEY, dataset, index_folder, noise, write_dicom


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """An archive with something of every kind, and its index."""
    folder = tmp_path_factory.mktemp("mixed")
    archive, private = folder / "archive", folder / "private"
    fields = {"TransducerType": "CURVED LINEAR", "TransducerData": ["C5-1", "UNUSED", "UNUSED"]}
    write_dicom(archive / "a" / "one.dcm", PatientID="P1", StudyDescription="US THYROID BIOPSY", **fields)
    write_dicom(archive / "a" / ".hidden", PatientID=" P1 ")
    write_dicom(archive / "b" / "other patient", PatientID="P2")
    write_dicom(archive / "b" / "cine", np.stack([noise(seed=n) for n in range(4)]), PatientID="P2")
    write_dicom(archive / "by class.dcm", Modality=None)
    write_dicom(archive / "by modality.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    write_dicom(archive / "ct.dcm", Modality="CT", SOPClassUID=CTImageStorage)
    write_dicom(archive / "report.dcm", PixelData=None)
    write_dicom(archive / "no rows.dcm", Rows=None)
    (archive / "notes.txt").write_text("not DICOM at all " * 50)
    (archive / "empty").write_bytes(b"")
    whole = write_dicom(archive / "broken.dcm").read_bytes()
    (archive / "broken.dcm").write_bytes(whole[:200])
    (archive / "barely begun.dcm").write_bytes(whole[:150])
    return archive, private, index_folder(archive, private)


def reasons(index, private, archive):
    """Reason by relative path."""
    return {
        str(Path(locate(private, row["id"])).relative_to(archive)): row["reason"] for row in index.rejected.to_pylist()
    }


def records(index, private, archive):
    """Record by relative path."""
    return {str(Path(locate(private, row["file_id"])).relative_to(archive)): row for row in index.records.to_pylist()}


def test_every_file_is_a_record_or_a_rejection(mixed):
    archive, _, index = mixed
    files = [path for path in archive.rglob("*") if path.is_file()]
    assert index.files == len(files) == index.records.num_rows + index.rejected.num_rows
    assert index.records.schema.equals(DICOM_INDEX.schema) and index.rejected.schema.equals(REJECTED_FILES.schema)


def test_each_kind_of_file_has_its_reason(mixed):
    archive, private, index = mixed
    assert reasons(index, private, archive) == {
        "ct.dcm": "not_ultrasound",
        "report.dcm": "not_an_image",
        "no rows.dcm": "unreadable_header",
        "notes.txt": "not_dicom",
        "empty": "not_dicom",
        "broken.dcm": "unreadable_header",
        "barely begun.dcm": "unreadable_header",
    }


def test_a_record_s_fields_are_those_of_the_header(mixed):
    archive, private, index = mixed
    found = records(index, private, archive)
    row = found["a/one.dcm"]
    assert row["transducer_data"] == "C5-1\\UNUSED\\UNUSED"
    assert row["study_description"] == "US THYROID BIOPSY"
    assert (row["rows"], row["columns"], row["frames"]) == (12, 16, 1)
    assert row["patient"] == pseudonym(KEY, "patient", "P1") and row["patient_from"] == "patient_id"
    assert row["study"] == pseudonym(KEY, "study", "1.2.3.4") and row["series"] == pseudonym(KEY, "series", "1.2.3.4.5")
    assert found["b/cine"]["frames"] == 4


def test_records_are_sorted_by_file_id_and_one_patient_has_one_pseudonym(mixed):
    archive, private, index = mixed
    found = records(index, private, archive)
    assert index.records["file_id"].to_pylist() == sorted(index.records["file_id"].to_pylist())
    assert found["a/one.dcm"]["patient"] == found["a/.hidden"]["patient"] != found["b/cine"]["patient"]


def test_ultrasound_is_recognised_by_modality_or_by_class(mixed):
    archive, private, index = mixed
    assert {"by class.dcm", "by modality.dcm"} <= set(records(index, private, archive))


def test_details_quote_nothing_of_the_file(mixed):
    _, _, index = mixed
    assert not any(word in detail for detail in index.rejected["detail"].to_pylist() for word in ("CT", "P1", "dcm"))


def test_the_same_archive_twice_gives_the_same_tables(mixed, tmp_path):
    archive, private, index = mixed
    again = index_folder(archive, tmp_path / "private")
    for name, table, other in (("i", index.records, again.records), ("r", index.rejected, again.rejected)):
        pq.write_table(table, tmp_path / f"{name}1")
        pq.write_table(other, tmp_path / f"{name}2")
        assert (tmp_path / f"{name}1").read_bytes() == (tmp_path / f"{name}2").read_bytes()
    assert (private / "patients.parquet").read_bytes() == (tmp_path / "private" / "patients.parquet").read_bytes()


def test_patients_without_an_id_are_grouped_by_study_then_series_then_together(tmp_path):
    archive = tmp_path / "archive"
    for name, fields in {
        "s1a": {"StudyInstanceUID": "1.1"},
        "s1b": {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "9.9"},
        "s2": {"StudyInstanceUID": "1.2"},
        "series": {"StudyInstanceUID": None, "SeriesInstanceUID": "1.1"},
        "series2": {"StudyInstanceUID": None, "SeriesInstanceUID": "1.2"},
        "none1": {"StudyInstanceUID": None, "SeriesInstanceUID": None},
        "none2": {"StudyInstanceUID": None, "SeriesInstanceUID": None, "PatientID": "  "},
    }.items():
        write_dicom(archive / name, **{"PatientID": None, **fields})
    found = records(index_folder(archive, tmp_path / "private"), tmp_path / "private", archive)
    kinds = {name: row["patient_from"] for name, row in found.items()}
    assert [kinds[name] for name in ("s1a", "s1b", "s2", "series", "series2")] == ["study"] * 3 + ["series"] * 2
    assert kinds["none1"] == kinds["none2"] == "nothing"
    assert found["s1a"]["patient"] == found["s1b"]["patient"]
    assert found["none1"]["patient"] == found["none2"]["patient"]
    assert len({row["patient"] for row in found.values()}) == 5


def test_one_number_of_two_issuers_is_two_patients(tmp_path):
    for issuer in ("HOSPITAL A", "HOSPITAL B"):
        write_dicom(tmp_path / "archive" / issuer, PatientID="7", IssuerOfPatientID=issuer)
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert len(set(index.records["patient"].to_pylist())) == 2


def test_one_bad_field_costs_that_field_and_not_the_file(tmp_path):
    path = write_dicom(tmp_path / "archive" / "x", StudyDescription="US ABDOMEN", NumberOfFrames="7")
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x007 ", b"IS\x02\x00!?"))
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert index.records["frames"].to_pylist() == [1]
    assert index.records["study_description"].to_pylist() == ["US ABDOMEN"]


@pytest.mark.parametrize("preamble", [True, False])
def test_files_without_meta_header_are_read(tmp_path, preamble):
    made = Dataset()
    made.update(dataset(noise()))
    path = tmp_path / "archive" / "x"
    path.parent.mkdir()
    made.save_as(path, implicit_vr=True, little_endian=True)
    if preamble:
        path.write_bytes(bytes(128) + b"DICM" + path.read_bytes())
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert index.records["transfer_syntax"].to_pylist() == ["1.2.840.10008.1.2"]


def test_a_repeat_with_the_same_pixels_is_a_duplicate_even_in_another_encoding(tmp_path):
    made = dataset(noise(), SOPInstanceUID="1.2.3")
    (tmp_path / "archive").mkdir()
    made.save_as(tmp_path / "archive" / "first", enforce_file_format=True)
    shutil.copy(tmp_path / "archive" / "first", tmp_path / "archive" / "second")
    made.compress(RLELossless)
    made.SOPInstanceUID = "1.2.3"
    made.save_as(tmp_path / "archive" / "third", enforce_file_format=True)
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert reasons(index, tmp_path / "private", tmp_path / "archive") == {"second": "duplicate", "third": "duplicate"}
    assert index.files == 3 and index.records.num_rows == 1


def test_repeats_with_other_pixels_are_all_rejected(tmp_path):
    write_dicom(tmp_path / "archive" / "good", SOPInstanceUID="1.2.4")
    for seed in range(3):
        write_dicom(tmp_path / "archive" / f"{seed}", noise(seed=min(seed, 1)), SOPInstanceUID="1.2.3")
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert set(reasons(index, tmp_path / "private", tmp_path / "archive").values()) == {"conflicting_duplicate"}
    assert index.records.num_rows == 1


def test_instances_without_a_uid_are_distinguished_by_content(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("a again", 0)):
        write_dicom(tmp_path / "archive" / name, noise(seed=seed), SOPInstanceUID=None, StudyDate="20200101")
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert index.records.num_rows == 2
    assert reasons(index, tmp_path / "private", tmp_path / "archive") == {"a again": "duplicate"}


def test_symbolic_links_are_not_followed(tmp_path):
    write_dicom(tmp_path / "archive" / "x")
    write_dicom(tmp_path / "elsewhere" / "y")
    (tmp_path / "archive" / "link").symlink_to(tmp_path / "elsewhere" / "y")
    (tmp_path / "archive" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive" / "loop").symlink_to(tmp_path / "archive")
    os.mkfifo(tmp_path / "archive" / "pipe")
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert (index.files, index.records.num_rows) == (5, 1)
    assert reasons(index, tmp_path / "private", tmp_path / "archive") == {
        **dict.fromkeys(("link", "folder", "loop"), "symbolic_link"),
        "pipe": "special_file",
    }


def test_a_site_that_is_a_link_is_named_once_and_read_when_it_is_a_folder(tmp_path):
    said: list[str] = []
    write_dicom(tmp_path / "archive" / "x", PatientID="X")
    write_dicom(tmp_path / "elsewhere" / "y", PatientID="Y")
    site = tmp_path / "archive" / "site"
    site.symlink_to(tmp_path / "elsewhere")
    for read in (2, 0):
        index = index_archive(str(tmp_path / "archive"), tmp_path / "private", KEY, Archive(), said.append)
        assert (index.files, index.read, index.rejected["reason"].to_pylist()) == (2, read, ["symbolic_link"])
    assert sum("1 symbolic link" in line for line in said) == 2
    site.unlink()
    shutil.copytree(tmp_path / "elsewhere", site)
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert (index.files, index.records.num_rows, index.rejected.num_rows) == (2, 2, 0)


def test_names_that_are_not_utf_8_are_found_again(tmp_path):
    name = os.fsdecode(b"M\xfcller.dcm")
    write_dicom(tmp_path / "archive" / name)
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert Path(locate(tmp_path / "private", index.records["file_id"][0].as_py())).name == name


def test_a_missing_an_empty_and_a_wrong_archive_raise_a_user_error_of_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text("x" * 200)
    for name, cause in {"missing": "exist", "file": "folder", "empty": "files", "texts": "3 not_dicom"}.items():
        with pytest.raises(UserError, match=f"SONOTAG_ARCHIVE .*/{name} .*{cause}") as error:
            index_folder(tmp_path / name, tmp_path / "private")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "private" / "patients.parquet").exists()


def test_a_store_inside_the_archive_is_refused(tmp_path):
    write_dicom(tmp_path / "x")
    with pytest.raises(UserError, match=r"SONOTAG_STORE.*SONOTAG_ARCHIVE"):
        index_folder(tmp_path, tmp_path / "store" / "private")
    assert not (tmp_path / "store").exists()


def test_a_file_that_vanishes_is_skipped_and_one_that_kills_the_reader_is_rejected(tmp_path, monkeypatch):
    for name in ("1", "2", "3"):
        write_dicom(tmp_path / "archive" / name)
    results = iter([UnreadableFile(True, "gone"), Failed(Rejection(Reason.CRASHED, "the reading process died"))])
    real = scan.each_in_worker
    monkeypatch.setattr(
        scan, "each_in_worker", lambda *work, **reads: [next(results, None) or r for r in real(*work, **reads)]
    )
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    assert (index.files, index.records.num_rows) == (2, 1)
    assert reasons(index, tmp_path / "private", tmp_path / "archive") == {"2": "crashed"}


@pytest.mark.integration
def test_locate_prints_a_path_or_fails_for_an_unknown_id(mixed):
    archive, private, index = mixed
    environment = os.environ | {"SONOTAG_STORE": str(private.parent)}

    def run(identifier):
        command = [sys.executable, "-m", "pipeline.archive", "locate", identifier]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    known = run(index.records["file_id"][0].as_py() + ":3")
    assert known.returncode == 0 and Path(known.stdout.strip()).is_file() and str(archive) in known.stdout
    unknown = run("f_0000000000000000")
    assert unknown.returncode == 1 and unknown.stderr.count("\n") == 1 and "Traceback" not in unknown.stderr


def test_a_number_that_no_table_can_hold_is_its_file_s_rejection(tmp_path):
    archive, private = tmp_path / "archive", tmp_path / "private"
    write_dicom(archive / "good")
    content = write_dicom(archive / "hostile", SamplesPerPixel=None).read_bytes()
    rows = b"\x28\x00\x10\x00US\x02\x00\x0c\x00"
    assert content.count(rows) == 1
    (archive / "hostile").write_bytes(content.replace(rows, b"\x28\x00\x10\x00IS\x14\x00" + b"9" * 20))
    index = index_folder(archive, private)
    assert (index.files, index.records.num_rows) == (2, 1)
    assert reasons(index, private, archive) == {"hostile": "unreadable_header"}


def test_a_file_is_located_in_the_archive_if_the_list_is_damaged(tmp_path):
    write_dicom(tmp_path / "archive" / "x.dcm", noise(64, 96))
    index = index_folder(tmp_path / "archive", tmp_path / "private")
    file = index.records["file_id"][0].as_py()
    known = tmp_path / "private" / "scan.parquet"
    known.write_bytes(known.read_bytes()[: known.stat().st_size // 2])
    assert locate(tmp_path / "private", file, str(tmp_path / "archive"), KEY) == str(tmp_path / "archive" / "x.dcm")
    with pytest.raises(UserError):
        locate(tmp_path / "private", file)
