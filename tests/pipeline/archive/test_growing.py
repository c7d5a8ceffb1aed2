"""Archives that grow, shrink and change: only new files are read, and the tables equal those of a new store."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.uid import RLELossless

from pipeline.archive import cache_builder, header_reader, scan
from pipeline.archive.cache_builder import build_cache
from pipeline.archive.listing import known_files
from pipeline.archive.source import ArchiveFile
from pipeline.errors import UserError
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.synthetic import KEY, dataset, index_folder, noise, write_dicom

pytestmark = pytest.mark.integration

SIZE = Images(height=32, width=64)


def grow(folder: Path, numbers: range) -> Path:
    """An archive with one still per number, of four patients."""
    for number in numbers:
        write_dicom(
            folder / "archive" / f"{number % 4}" / f"{number:03d}",
            noise(40, 60, seed=number),
            PatientID=f"P{number % 4}",
            SOPInstanceUID=f"1.2.3.{number}",
        )
    return folder


def build(folder: Path):
    index = index_folder(folder / "archive", folder / "private")
    cache = build_cache(
        index.records,
        str(folder / "archive"),
        folder / "private",
        KEY,
        folder / "images",
        SIZE,
        Archive(frames_per_cine=2),
    )
    return index, cache


def same_tables(one: Path, other: Path) -> None:
    """Index, rejections and cache of `one` equal those of a new store for the same archive."""
    index, cache = build(one)
    shutil.copytree(one / "archive", other / "archive")
    fresh_index, fresh_cache = build(other)
    assert index.records.equals(fresh_index.records) and index.rejected.equals(fresh_index.rejected)
    assert cache.images.equals(fresh_cache.images) and cache.rejected.equals(fresh_cache.rejected)
    assert shards(cache.folder) == shards(fresh_cache.folder)
    assert (one / "private" / "patients.parquet").read_bytes() == (other / "private" / "patients.parquet").read_bytes()


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def test_an_unchanged_archive_is_not_read_again(tmp_path):
    _, first = build(grow(tmp_path, range(20)))
    index, again = build(tmp_path)
    assert (index.files, index.read, first.decoded, again.decoded) == (20, 0, 20, 0)


def test_only_new_files_are_read_and_decoded(tmp_path):
    build(grow(tmp_path / "a", range(20)))
    index, cache = build(grow(tmp_path / "a", range(20, 23)))
    assert (index.files, index.read, cache.decoded, cache.images.num_rows) == (23, 3, 3, 23)
    same_tables(tmp_path / "a", tmp_path / "b")


def test_one_replaced_file_changes_one_shard_and_keeps_that_shard_s_other_images(tmp_path):
    _, first = build(grow(tmp_path / "a", range(120)))
    before = shards(first.folder)
    write_dicom(
        tmp_path / "a" / "archive" / "1" / "005", noise(40, 60, seed=999), PatientID="P1", SOPInstanceUID="1.2.3.5"
    )
    index, second = build(tmp_path / "a")
    after = shards(second.folder)
    assert (index.read, second.decoded) == (1, 1)
    changed = [name for name in before if before[name] != after[name]]
    assert len(changed) == 1 and before.keys() == after.keys()
    assert pq.read_metadata(second.folder / changed[0]).num_rows > 1  # otherwise nothing was kept in it
    same_tables(tmp_path / "a", tmp_path / "b")


def test_a_deleted_file_is_marked_and_its_image_leaves_the_cache(tmp_path):
    index, cache = build(grow(tmp_path / "a", range(12)))
    gone = tmp_path / "a" / "archive" / "1" / "005"
    gone.unlink()
    later, smaller = build(tmp_path / "a")
    assert (later.files, later.read, smaller.decoded, smaller.images.num_rows) == (11, 0, 0, 11)
    (deleted,) = later.deleted.to_pylist()
    lost = set(index.records["sop_instance"].to_pylist()) - set(later.records["sop_instance"].to_pylist())
    files = known_files(tmp_path / "a" / "private").select(["file_id", "deleted"]).to_pylist()
    assert lost == {deleted["sop_instance"]}
    assert [row["file_id"] for row in files if row["deleted"]] == [deleted["file_id"]]
    assert set(smaller.images["sop_instance"].to_pylist()) == set(later.records["sop_instance"].to_pylist())
    grow(tmp_path / "a", range(5, 6))
    back, full = build(tmp_path / "a")
    assert back.deleted.num_rows == 0 and full.images.num_rows == cache.images.num_rows
    same_tables(tmp_path / "a", tmp_path / "b")


def test_a_repeat_takes_the_place_of_the_first_when_that_is_deleted(tmp_path):
    grow(tmp_path / "a", range(4))
    first = tmp_path / "a" / "archive" / "1" / "001"
    shutil.copy(first, first.with_name("copy"))
    index, _ = build(tmp_path / "a")
    assert index.rejected["reason"].to_pylist() == ["duplicate"]
    first.unlink()
    later, cache = build(tmp_path / "a")
    assert later.rejected.num_rows == 0 and later.records.num_rows == cache.images.num_rows == 4
    same_tables(tmp_path / "a", tmp_path / "b")


def test_a_conflict_is_dissolved_when_one_of_its_files_goes(tmp_path):
    grow(tmp_path / "a", range(4))
    other = tmp_path / "a" / "archive" / "other"
    write_dicom(other, noise(40, 60, seed=7), PatientID="P1", SOPInstanceUID="1.2.3.1")
    index, _ = build(tmp_path / "a")
    assert index.rejected["reason"].to_pylist() == ["conflicting_duplicate"] * 2
    other.unlink()
    assert build(tmp_path / "a")[0].records.num_rows == 4
    same_tables(tmp_path / "a", tmp_path / "b")


def test_a_renamed_file_is_no_repeat_of_the_deleted_one(tmp_path, monkeypatch):
    archive = grow(tmp_path, range(4)) / "archive"
    index_folder(archive, tmp_path / "private")
    (archive / "1" / "001").rename(archive / "renamed")
    read, real = [], scan.each_in_worker
    monkeypatch.setattr(scan, "each_in_worker", lambda *args, **kwargs: read.append(args) or real(*args, **kwargs))
    index = index_folder(archive, tmp_path / "private")
    assert (index.records.num_rows, index.rejected.num_rows, index.deleted.num_rows, index.read) == (4, 0, 1, 1)
    assert len(read) == 1, "headers alone: no pixels are read to compare it with the deleted one"


def test_a_file_cut_short_is_incomplete_until_the_rest_arrives(tmp_path):
    grow(tmp_path / "a", range(3))
    path = tmp_path / "a" / "archive" / "late"
    whole = write_dicom(path, noise(40, 60, seed=50), PatientID="P1").read_bytes()
    path.write_bytes(whole[:-700])
    index, cache = build(tmp_path / "a")
    assert index.rejected["reason"].to_pylist() == ["incomplete"] and cache.frames == 3
    path.write_bytes(whole)
    index, cache = build(tmp_path / "a")
    assert (index.rejected.num_rows, index.read, cache.images.num_rows) == (0, 1, 4)


def test_a_file_that_moves_while_it_is_read_waits_for_the_next_run(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "x", PatientID="P1")
    status = path.stat()
    listed = ArchiveFile("x", status.st_size, str(status.st_mtime_ns))
    examiner = header_reader.HeaderReader(str(tmp_path), ("US",))
    assert isinstance(examiner(listed), header_reader.Header)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns + 1))
    assert str(examiner(listed).reason) == "still_being_written"
    with open(path, "ab") as file:
        file.write(b"more")
    assert str(examiner(listed).reason) == "still_being_written"


def test_unsettled_files_are_read_again_even_if_nothing_changed(tmp_path, monkeypatch):
    grow(tmp_path, range(2))
    real = header_reader.stat
    monkeypatch.setattr(scan, "each_in_worker", lambda work, items, readable: map(work, items))
    monkeypatch.setattr(header_reader, "stat", lambda archive, path: ArchiveFile(path, 1, "1"))
    with pytest.raises(scan.UserError, match="2 still_being_written"):
        index_folder(tmp_path / "archive", tmp_path / "private")
    monkeypatch.setattr(header_reader, "stat", real)
    assert index_folder(tmp_path / "archive", tmp_path / "private").records.num_rows == 2


def test_another_key_or_archive_starts_a_new_list(tmp_path):
    build(grow(tmp_path, range(4)))
    other = index_folder(tmp_path / "archive", tmp_path / "private", b"another key, long enough")
    assert other.read == 4
    shutil.move(tmp_path / "archive", tmp_path / "moved")
    assert index_folder(tmp_path / "moved", tmp_path / "private").read == 4


def test_a_scan_of_another_version_raises_a_user_error_and_is_replaced(tmp_path):
    build(grow(tmp_path, range(2)))
    scanned = tmp_path / "private" / "scan.parquet"
    older = pq.read_table(scanned)
    metadata = older.schema.metadata | {b"code": b"2"}
    pq.write_table(older.drop_columns("for_labels").replace_schema_metadata(metadata), scanned)
    with pytest.raises(UserError, match=r"scan.parquet.*version.*`ingest`"):
        known_files(tmp_path / "private")
    assert build(tmp_path)[0].read == 2 and known_files(tmp_path / "private").num_rows == 2


def test_an_interrupted_scan_resumes(tmp_path, monkeypatch):
    grow(tmp_path / "a", range(30))
    monkeypatch.setattr(scan, "_JOURNAL_EVERY", 10)
    real = scan.each_in_worker

    def dies_after_25(work, items, readable):
        for number, result in enumerate(real(work, items, readable=readable)):
            if number == 25:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(scan, "each_in_worker", dies_after_25)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a")
    monkeypatch.setattr(scan, "each_in_worker", real)
    index, _ = build(tmp_path / "a")
    assert (index.files, index.read) == (30, 10)
    assert not (tmp_path / "a" / "private" / "scan").exists()
    same_tables(tmp_path / "a", tmp_path / "b")


def zipped(path: Path, numbers: range) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for number in numbers:
            content = io.BytesIO()
            dataset(noise(40, 60, seed=number), SOPInstanceUID=f"1.2.3.{number}").save_as(
                content, enforce_file_format=True
            )
            file.writestr(f"DICOM/{number}", content.getvalue())
        file.writestr("README", "x" * 200)


def test_members_of_a_zip_are_files_and_follow_their_zip(tmp_path):
    grow(tmp_path / "a", range(2))
    path = tmp_path / "a" / "archive" / "export.zip"
    zipped(path, range(10, 15))
    index, cache = build(tmp_path / "a")
    assert (index.files, index.records.num_rows, cache.images.num_rows) == (8, 7, 7)
    assert index.rejected["reason"].to_pylist() == ["not_dicom"]
    assert build(tmp_path / "a")[0].read == 0
    zipped(path, range(12, 16))
    os.utime(path, ns=(1, 1))
    index, cache = build(tmp_path / "a")
    assert (index.files, cache.images.num_rows, index.deleted.num_rows) == (7, 6, 2)
    same_tables(tmp_path / "a", tmp_path / "b")
    path.unlink()
    index, cache = build(tmp_path / "a")
    assert (index.files, cache.images.num_rows) == (2, 2)
    assert (
        known_files(tmp_path / "a" / "private")["deleted"].to_pylist().count(True) == 7 + 1
    )  # six members each, and it


def test_two_frames_of_a_cine_stay_together_when_the_archive_grows(tmp_path):
    grow(tmp_path / "a", range(3))
    cine = np.stack([noise(40, 60, seed=n) for n in range(100, 108)])
    write_dicom(tmp_path / "a" / "archive" / "cine", cine, PatientID="P1", SOPInstanceUID="1.2.9")
    _, cache = build(tmp_path / "a")
    assert cache.images.num_rows == 5
    _, grown = build(grow(tmp_path / "a", range(3, 40)))
    assert (grown.decoded, grown.images.num_rows) == (37, 42)
    same_tables(tmp_path / "a", tmp_path / "b")


def test_a_new_decoder_makes_just_its_own_images_again(tmp_path, monkeypatch):
    grow(tmp_path, range(6))
    for number in range(2):
        made = dataset(noise(40, 60, seed=200 + number), SOPInstanceUID=f"1.2.7.{number}")
        made.compress(RLELossless, generate_instance_uid=False)
        made.save_as(tmp_path / "archive" / f"rle{number}", enforce_file_format=True)
    assert build(tmp_path)[1].decoded == 8
    real = cache_builder.version
    monkeypatch.setattr(cache_builder, "version", lambda name: "next" if name == "pylibjpeg-rle" else real(name))
    assert build(tmp_path)[1].decoded == 2
    monkeypatch.setattr(cache_builder, "version", lambda name: "next" if name == "pylibjpeg-openjpeg" else real(name))
    assert build(tmp_path)[1].decoded == 2  # the two once more, by the decoder they had at first


def test_a_shard_that_was_damaged_is_made_again(tmp_path):
    _, cache = build(grow(tmp_path, range(20)))
    before = shards(cache.folder)
    damaged = min(before)
    (cache.folder / damaged).write_bytes(before[damaged][:-30])
    _, again = build(tmp_path)
    assert shards(again.folder) == before and 0 < again.decoded < 20
