"""Stalls, read errors and missing permissions of a share lose no file."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.archive import cache_builder as images_module
from pipeline.archive import scan
from pipeline.archive.cache_builder import Cache, build_cache
from pipeline.archive.frame_reader import FrameReader
from pipeline.archive.header_reader import HeaderReader, digest_pixels
from pipeline.archive.listing import locate
from pipeline.archive.workers import TRIES
from pipeline.errors import UnreachableError
from pipeline.privacy.identity import file_id
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom
from tests.pipeline.archive.zipped import zip_of

pytestmark = pytest.mark.integration

SECONDS = 2.0
ROOT = Path(__file__).parents[3]


def fault_of(archive: str, path: str) -> None:
    """Stall or fail for files named `stalls…` or `fails…`, while there is a file `faulty` beside the archive."""
    name = path.rpartition("/")[2].rpartition("\0")[2]
    if not (Path(archive).parent / "faulty").exists():
        return
    if name.startswith("stalls"):
        time.sleep(60)
    if name.startswith("fails"):
        raise OSError(errno.EIO, "Input/output error")


class FaultyHeaderReader(HeaderReader):
    def __call__(self, listed):
        fault_of(self.archive, listed.path)
        return super().__call__(listed)


class FaultyFrameReader(FrameReader):
    def __call__(self, job):
        fault_of(self.archive, job.file.path)
        return super().__call__(job)


def faulty_digest(archive, path):
    fault_of(archive, path)
    return digest_pixels(archive, path)


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """An archive with a sound file, on a share that can be made faulty; workers wait for two seconds."""
    write_dicom(tmp_path / "archive" / "sound", noise(40, 60), PatientID="P1")
    (tmp_path / "faulty").touch()
    for module in (scan, images_module):
        real = module.each_in_worker
        monkeypatch.setattr(
            module,
            "each_in_worker",
            lambda work, items, *how, real=real, **reads: real(work, items, SECONDS, *how[1:], **reads),
        )
    return tmp_path


def index(clinic: Path) -> scan.Index:
    return index_folder(clinic / "archive", clinic / "private")


def cache(clinic: Path) -> Cache:
    return build_cache(
        index(clinic).records,
        str(clinic / "archive"),
        clinic / "private",
        KEY,
        clinic / "images",
        Images(height=32, width=32),
        Archive(),
    )


def reasons(clinic: Path, table) -> dict[str, str]:
    named = {Path(locate(clinic / "private", row["id"])).name: row["reason"] for row in table.to_pylist()}
    assert len(named) == table.num_rows
    return named


@pytest.mark.parametrize(("name", "reason"), [("stalls", "interrupted"), ("fails", "unreadable")])
def test_a_file_on_a_share_that_fails_for_a_while_is_read_when_it_answers(clinic, monkeypatch, name, reason):
    write_dicom(clinic / "archive" / name, PatientID="P2")
    monkeypatch.setattr(scan, "HeaderReader", FaultyHeaderReader)
    found = index(clinic)
    assert found.files == 2 and reasons(clinic, found.rejected) == {name: reason} and found.unreadable == 1
    (clinic / "faulty").unlink()
    found = index(clinic)
    assert (found.records.num_rows, found.read, found.unreadable) == (2, 1, 0)


@pytest.mark.slow
def test_a_member_of_a_zip_that_stalls_is_read_when_the_share_answers(clinic, monkeypatch):
    member = write_dicom(clinic / "member", PatientID="P2").read_bytes()
    (clinic / "archive" / "export.zip").write_bytes(zip_of([("stalls", member)]))
    monkeypatch.setattr(scan, "HeaderReader", FaultyHeaderReader)
    assert reasons(clinic, index(clinic).rejected) == {"stalls": "interrupted"}
    (clinic / "faulty").unlink()
    assert index(clinic).records.num_rows == 2


def test_a_file_that_takes_too_long_in_every_run_is_settled_until_it_changes(clinic, monkeypatch):
    slow = write_dicom(clinic / "archive" / "stalls", PatientID="P2")
    monkeypatch.setattr(scan, "HeaderReader", FaultyHeaderReader)
    found = [reasons(clinic, index(clinic).rejected)["stalls"] for _ in range(TRIES)]
    assert found == ["interrupted", "interrupted", "over_limits"]
    assert index(clinic).read == 0
    (clinic / "faulty").unlink()
    os.utime(slow, (1, 1))
    assert index(clinic).records.num_rows == 2


def test_a_share_that_hangs_stops_the_run_and_settles_nothing(clinic, monkeypatch):
    for number in range(12):
        write_dicom(clinic / "archive" / f"fails{number}", PatientID=f"P{number}")
    monkeypatch.setattr(scan, "HeaderReader", FaultyHeaderReader)
    with pytest.raises(UnreachableError, match="SONOTAG_ARCHIVE"):
        index(clinic)
    (clinic / "faulty").unlink()
    assert index(clinic).records.num_rows == 13


@pytest.mark.parametrize(("name", "reason"), [("stalls", "interrupted"), ("fails", "unreadable")])
def test_an_image_on_a_share_that_fails_for_a_while_is_made_when_it_answers(clinic, monkeypatch, name, reason):
    write_dicom(clinic / "archive" / name, noise(40, 60, seed=1), PatientID="P2")
    monkeypatch.setattr(images_module, "FrameReader", FaultyFrameReader)
    made = cache(clinic)
    assert reasons(clinic, made.rejected) == {name: reason} and made.images.num_rows == 1
    (clinic / "faulty").unlink()
    made = cache(clinic)
    assert (made.images.num_rows, made.rejected.num_rows, made.decoded) == (2, 0, 1)


@pytest.mark.slow
def test_an_image_that_takes_too_long_in_every_run_is_settled(clinic, monkeypatch):
    write_dicom(clinic / "archive" / "stalls", noise(40, 60, seed=1), PatientID="P2")
    monkeypatch.setattr(images_module, "FrameReader", FaultyFrameReader)
    found = [reasons(clinic, cache(clinic).rejected)["stalls"] for _ in range(TRIES)]
    assert found == ["interrupted", "interrupted", "over_limits"]
    assert cache(clinic).decoded == 0


def test_repeats_whose_pixels_cannot_be_read_now_are_compared_later(clinic, monkeypatch):
    for name in ("stalls", "twin"):
        write_dicom(clinic / "archive" / name, SOPInstanceUID="1.2.3", PatientID="P2")
    monkeypatch.setattr(scan, "digest_pixels", faulty_digest)
    assert reasons(clinic, index(clinic).rejected) == {"stalls": "unreadable", "twin": "unreadable"}
    (clinic / "faulty").unlink()
    found = index(clinic)
    assert found.records.num_rows == 2 and reasons(clinic, found.rejected) == {"twin": "duplicate"}


def as_user(clinic: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Index the archive, or run `arguments`, without root's right to read everything."""
    code = (
        "import sys; from pathlib import Path; from tests.pipeline.archive.synthetic import index_folder;"
        f"found = index_folder(Path({str(clinic / 'archive')!r}), Path({str(clinic / 'private')!r}));"
        "print(found.records.num_rows, found.files, found.unreadable, found.deleted.num_rows)"
    )
    run = [sys.executable, *(arguments or ("-c", code))]
    if os.geteuid() == 0:
        run = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *run]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SONOTAG_STORE": str(clinic)}
    environment |= {"SONOTAG_ARCHIVE": str(clinic / "archive"), "SONOTAG_PSEUDONYM_KEY": KEY.decode()}
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def unreadable(clinic):
    """Makes a path unreadable to its owner; afterwards it can be removed again."""
    made: list[Path] = []

    def make(path: Path) -> None:
        path.chmod(0)
        made.append(path)

    yield make
    for path in made:
        path.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_files_without_permission_are_quarantined_and_read_later(clinic, unreadable):
    hidden = write_dicom(clinic / "archive" / "hidden", PatientID="P2")
    below = write_dicom(clinic / "archive" / "lost+found" / "below", PatientID="P3")
    assert as_user(clinic).stdout.split() == ["3", "3", "0", "0"]
    os.utime(hidden, (1, 1))
    unreadable(hidden)
    unreadable(below.parent)
    # The folder is a row of its own; the files in it are still known, and not taken for deleted.
    assert as_user(clinic).stdout.split() == ["2", "4", "2", "0"]
    rows = pq.read_table(clinic / "private" / "scan.parquet").to_pylist()
    refused = {row["path"]: row["file_id"] for row in rows if row["reason"] == "unreadable"}
    assert set(refused) == {b"hidden", b"lost+found/"}
    located = as_user(clinic, "-m", "pipeline.archive", "locate", refused[b"lost+found/"])
    assert located.stdout == f"{clinic}/archive/lost+found/\n"
    hidden.chmod(0o600)
    below.parent.chmod(0o700)
    assert as_user(clinic).stdout.split() == ["3", "3", "0", "0"]


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_a_file_is_located_before_any_scan_has_ended(clinic, unreadable):
    for path in (clinic / "archive").iterdir():
        unreadable(path)
    failed = as_user(clinic)
    assert failed.returncode and "SONOTAG_ARCHIVE" in failed.stderr and "1 unreadable" in failed.stderr
    (clinic / "private" / "scan.parquet").unlink()
    located = as_user(clinic, "-m", "pipeline.archive", "locate", file_id(KEY, "sound"))
    assert located.stdout == f"{clinic}/archive/sound\n"
