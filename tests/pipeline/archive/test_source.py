"""Where files come from: local folders and zips in them; links, oddities, and what changes while it is read."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from pipeline.archive import source
from pipeline.archive.location import LINK, SPECIAL, normalized
from pipeline.archive.scan import index_archive
from pipeline.archive.source import ArchiveFile, open_file, stat, walk
from pipeline.archive.zips import SEPARATOR
from pipeline.dicom.rejections import Rejected
from pipeline.errors import UserError
from pipeline.recipe.archive import Archive
from tests.pipeline.archive.synthetic import KEY, write_dicom
from tests.pipeline.archive.zipped import with_flag, zip_of


def paths(archive: Path) -> set[str]:
    return {listed.path for listed in walk(str(archive))}


def content(archive: Path | str, path: str, whole: bool = False) -> bytes:
    with open_file(str(archive), path, whole) as file:
        return file.read()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with hidden and nested files, and another folder beside it."""
    folder = tmp_path / "archive"
    for name in ("one", ".hidden", "a/two", "a/b/c/three", "ä ö/v^i^e^r"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return folder


def test_every_regular_file_is_found_with_its_size_and_time(archive):
    (archive / "empty folder").mkdir()
    expected = {
        ArchiveFile(str(path.relative_to(archive)), path.stat().st_size, str(path.stat().st_mtime_ns))
        for path in archive.rglob("*")
        if path.is_file()
    }
    assert set(walk(str(archive))) == expected and len(expected) == 5
    for listed in expected:
        assert content(archive, listed.path) == listed.path.encode()
        assert stat(str(archive), listed.path) == listed


def test_files_come_as_they_are_found(tmp_path):
    for number in range(50):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "x").write_bytes(b"")
    walking = walk(str(tmp_path))
    next(walking)
    for number in range(50):  # a list made beforehand would still have them
        (tmp_path / str(number) / "x").unlink()
    assert len(list(walking)) == 0


def test_an_archive_may_itself_be_a_link_and_end_in_a_slash(archive, tmp_path):
    (tmp_path / "link").symlink_to(archive)
    assert paths(tmp_path / "link") == {listed.path for listed in walk(f"{archive}/")} == paths(archive)


def test_links_below_the_archive_are_not_followed(archive, tmp_path):
    (archive / "to folder").symlink_to(tmp_path / "outside")
    (archive / "to file").symlink_to(tmp_path / "outside" / "secret")
    (archive / "to itself").symlink_to(archive)
    (archive / "to nothing").symlink_to(tmp_path / "nowhere")
    links = {listed for listed in walk(str(archive)) if listed.path.startswith("to ")}
    assert links == {ArchiveFile(f"to {what}", 0, LINK) for what in ("folder", "file", "itself", "nothing")}
    assert not any("secret" in path for path in paths(archive))
    for name in ("to file", "to nothing"):
        assert stat(str(archive), name) is None
        with pytest.raises(FileNotFoundError):
            content(archive, name)


def test_a_link_that_takes_a_file_s_place_after_it_was_listed_is_not_followed(archive, tmp_path):
    assert "one" in paths(archive)
    (archive / "one").unlink()
    (archive / "one").symlink_to(tmp_path / "outside" / "secret")
    with pytest.raises(FileNotFoundError) as raised:
        content(archive, "one")
    assert str(archive) not in str(raised.value)


def test_a_link_that_takes_a_folder_s_place_while_listing_is_not_followed(archive, tmp_path):
    for name in ("x", "y"):
        (archive / name).mkdir()
        (archive / name / "own").write_bytes(b"")
    walking = walk(str(archive))
    found = {next(walking).path}  # the archive's own folder is listed first
    for name in ("x", "y"):
        (archive / name / "own").unlink()
        (archive / name).rmdir()
        (archive / name).symlink_to(tmp_path / "outside")
    found |= {listed.path for listed in walking}
    assert not any("secret" in path for path in found)


def test_what_is_no_regular_file_is_listed_as_such_and_not_waited_for(archive):
    os.mkfifo(archive / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(archive / "socket"))
        assert {listed.path for listed in walk(str(archive)) if listed.version == SPECIAL} == {"fifo", "socket"}
        started = time.perf_counter()
        for name in ("fifo", "socket", "a"):
            with pytest.raises(FileNotFoundError):
                content(archive, name)
            assert stat(str(archive), name) is None
        assert time.perf_counter() - started < 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_need_not_be_utf8(tmp_path):
    (tmp_path / "archive").mkdir()
    raw = os.fsencode(tmp_path / "archive") + b"/M\xfcller\xff"
    with open(raw, "wb") as file:
        file.write(b"content")
    [listed] = walk(str(tmp_path / "archive"))
    assert os.fsencode(listed.path) == b"M\xfcller\xff"
    assert content(tmp_path / "archive", listed.path) == b"content"


def test_files_and_folders_that_vanish_are_passed_over(archive):
    for number in range(5):
        (archive / f"v{number}").write_bytes(b"")
    walking = walk(str(archive))
    first = next(walking).path
    for path in [*archive.glob("v*"), archive / "a" / "b" / "c" / "three", archive / "a" / "two"]:
        if path != archive / first:
            path.unlink()
    (archive / "a" / "b" / "c").rmdir()
    (archive / "a" / "b").rmdir()
    (archive / "a").rmdir()
    rest = {listed.path for listed in walking}
    assert not any(path.startswith(("v", "a/")) for path in rest) and "ä ö/v^i^e^r" in rest
    assert stat(str(archive), "a/two") is None
    with pytest.raises(FileNotFoundError):
        content(archive, "a/two")


def test_a_file_whose_content_may_have_changed_has_another_version(archive):
    before = stat(str(archive), "one")
    (archive / "one").write_bytes(b"two")
    os.utime(archive / "one", ns=(1, int(before.version) + 1))
    after = stat(str(archive), "one")
    assert after.size == before.size and after.version != before.version


@pytest.mark.parametrize(
    ("name", "problem"), [("nowhere", "exist.*make phantom"), ("one", "not a folder"), ("empty", "no files")]
)
def test_an_invalid_archive_raises_a_user_error(archive, name, problem):
    (archive / "empty" / "still").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^SONOTAG_ARCHIVE .*/{name} .*{problem}"):
        list(walk(str(archive / name)))


def test_a_file_url_is_the_folder_it_names(archive, monkeypatch):
    odd = archive / "100%20 a"
    odd.mkdir()
    assert normalized(archive.as_uri()) == normalized(f"file://{archive}") == str(archive)
    assert normalized(f"file://{odd}") == normalized(odd.as_uri()) == str(odd)
    monkeypatch.chdir(archive)
    assert normalized("a/b") == str(archive / "a" / "b")


def test_members_of_a_zip_are_opened_by_their_names(archive):
    (archive / "export").write_bytes(zip_of([("d/one", b"first"), ("../../one", b"second"), ("d/one", b"third")]))
    for whole in (False, True):
        assert content(archive, f"export{SEPARATOR}d/one", whole) == b"first"
        assert content(archive, f"export{SEPARATOR}../../one", whole) == b"second"
        assert content(archive, f"export{SEPARATOR}d/one{SEPARATOR}1", whole) == b"third"
    assert stat(str(archive), f"export{SEPARATOR}d/one") == stat(str(archive), "export")
    for gone in (f"export{SEPARATOR}none", f"nowhere{SEPARATOR}d/one"):
        with pytest.raises(FileNotFoundError):
            content(archive, gone)


def test_a_zip_that_was_replaced_is_read_anew(archive):
    for text in (b"first", b"other and longer"):
        (archive / "export").write_bytes(zip_of([("x", text)]))
        assert content(archive, f"export{SEPARATOR}x") == text


def test_a_member_that_cannot_be_read_is_rejected(archive):
    (archive / "export").write_bytes(with_flag(zip_of([("x", b"secret")]), 0x1))
    with pytest.raises(Rejected):
        content(archive, f"export{SEPARATOR}x")


def test_a_zip_of_ten_thousand_members_is_parsed_once(archive, monkeypatch):
    (archive / "export").write_bytes(zip_of([(f"{number}.dcm", b"%d" % number) for number in range(10_000)]))
    parsed = []
    monkeypatch.setattr(source, "OpenZip", lambda file, real=source.OpenZip: parsed.append(1) or real(file))
    assert all(content(archive, f"export{SEPARATOR}{n}.dcm") == b"%d" % n for n in range(0, 10_000, 7))
    assert len(parsed) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_few_zips_stay_open(archive):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(30):
        (archive / str(number)).write_bytes(zip_of([("x", b"%d" % number)]))
        assert content(archive, f"{number}{SEPARATOR}x") == b"%d" % number
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_a_member_outlives_its_zip_s_place_among_the_open_ones(archive):
    for number in range(5):
        (archive / str(number)).write_bytes(zip_of([("x", b"%d" % number * 200_000)]))
    with open_file(str(archive), f"0{SEPARATOR}x") as member:
        assert member.read(10) == b"0" * 10
        assert [content(archive, f"{number}{SEPARATOR}x")[:1] for number in range(1, 5)] == [b"1", b"2", b"3", b"4"]
        assert member.read() == b"0" * 199_990


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_that_names_files_outside_leads_nowhere(tmp_path):
    """PS3.3 F.3.2.2: ReferencedFileID (0004,1500) names a file relative to the folder of the DICOMDIR."""
    media = tmp_path / "archive" / "disk"
    write_dicom(tmp_path / "outside.dcm", PatientID="OUTSIDE")
    write_dicom(media / "IMAGES" / "IM0001")
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedFileID = ["..", "..", "outside.dcm"]
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.DirectoryRecordSequence = [record]
    directory.save_as(media / "DICOMDIR", enforce_file_format=True)
    assert paths(tmp_path / "archive") == {"disk/DICOMDIR", "disk/IMAGES/IM0001"}
    index = index_archive(str(tmp_path / "archive"), tmp_path / "private", KEY, Archive())
    assert (index.records.num_rows, index.rejected["reason"].to_pylist()) == (1, ["not_an_image"])


def test_a_link_that_takes_the_place_of_a_folder_above_a_file_after_listing_is_not_followed(archive, tmp_path):
    (tmp_path / "outside" / "b" / "c").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "c" / "three").write_bytes(b"secret")
    (tmp_path / "outside" / "two").write_bytes(b"secret")
    listed = paths(archive)
    assert {"a/two", "a/b/c/three"} <= listed
    (archive / "a").rename(archive / "moved")
    (archive / "a").symlink_to(tmp_path / "outside")
    for path in ("a/two", "a/b/c/three"):
        assert stat(str(archive), path) is None
        with pytest.raises(FileNotFoundError):
            content(archive, path)
    assert not any(path.startswith("a/") for path in paths(archive))


def test_a_link_that_takes_the_place_of_a_folder_above_others_while_listing_is_not_followed(archive, tmp_path):
    for folder in (archive, tmp_path / "outside"):
        (folder / "z" / "y" / "x").mkdir(parents=True)
    (tmp_path / "outside" / "z" / "y" / "secret").write_bytes(b"secret")
    walking = walk(str(archive))
    found = {next(walking).path}  # the archive's own folder is listed first
    (archive / "z").rename(tmp_path / "moved")
    (archive / "z").symlink_to(tmp_path / "outside" / "z")
    assert not any("secret" in path for path in found | {listed.path for listed in walking})
