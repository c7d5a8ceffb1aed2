"""Archives behind a URL, on moto's S3 server and in fsspec's memory: listing, reading little, failing plainly."""

import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from fsspec.registry import known_implementations
from s3fs import S3FileSystem

from pipeline.archive.location import normalized, without_credentials
from pipeline.archive.source import ArchiveFile, open_file, stat, walk
from pipeline.archive.zips import SEPARATOR
from pipeline.errors import UserError
from pipeline.tables import DICOM_INDEX, REJECTED_FILES
from tests.pipeline.archive.real import REPOSITORY
from tests.pipeline.archive.synthetic import KEY, noise, write_dicom
from tests.pipeline.archive.zipped import zip_of
from tests.s3 import empty_s3

pytestmark = pytest.mark.integration

DATA = np.random.default_rng(2).integers(0, 256, 3_000_000, np.uint8).tobytes()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with empty_s3() as url:
        yield url


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3FileSystem]:
    """A bucket with a few objects, found as a user's processes find it: through the environment alone."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "an id",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    system = fsspec.filesystem("s3")
    if not system.exists("clinic"):
        system.mkdir("clinic")
    for name, content in {"one": b"1", "a/b/two": DATA, "a/empty": b"", "a/folder/": b"", "ä ö^": b"3"}.items():
        system.pipe_file(f"clinic/archive/{name}", content)
    system.pipe_file("clinic/archive of another/x", b"not this one")
    yield system
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def asked(s3: S3FileSystem, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The requests to the server from now on: their counts by kind, and the bytes that it returns."""
    record = SimpleNamespace(calls=Counter(), bytes=0)
    real_call, real_cat = S3FileSystem._call_s3, s3.cat_file

    async def counted(self, method, *args, **kwargs):
        record.calls[method] += 1
        return await real_call(self, method, *args, **kwargs)

    def weighed(*args, **kwargs):
        content = real_cat(*args, **kwargs)
        record.bytes += len(content)
        return content

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    monkeypatch.setattr(s3, "cat_file", weighed)
    return record


ARCHIVE = "s3://clinic/archive"


@pytest.mark.parametrize("archive", [ARCHIVE, f"{ARCHIVE}/"])
def test_objects_below_the_prefix_are_listed(s3, archive):
    listed = {file.path: file for file in walk(normalized(archive))}
    assert {path: file.size for path, file in listed.items()} == {
        "one": 1,
        "a/b/two": 3_000_000,
        "a/empty": 0,
        "ä ö^": 1,
    }
    assert all(stat(archive, path) == file for path, file in listed.items())


def test_a_replaced_object_has_another_version_at_once(s3):
    before = {file.path: file.version for file in walk(ARCHIVE)}
    s3.pipe_file("clinic/archive/one", b"2")
    after = {file.path: file.version for file in walk(ARCHIVE)}
    assert {path for path in before if before[path] != after[path]} == {"one"}
    assert stat(ARCHIVE, "one") == ArchiveFile("one", 1, after["one"])
    s3.rm_file("clinic/archive/one")
    assert stat(ARCHIVE, "one") is None
    assert "one" not in {file.path for file in walk(ARCHIVE)}


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_reads_as_a_file_does(s3, whole):
    dice = np.random.default_rng(4)
    with open_file(ARCHIVE, "a/b/two", whole) as file, io.BytesIO(DATA) as expected:
        for _ in range(60):
            target, count = int(dice.integers(0, 3_100_000)), int(dice.integers(0, 50_000))
            assert file.seek(target) == expected.seek(target)
            assert file.read(count) == expected.read(count)
        assert file.seek(-7, io.SEEK_END) == expected.seek(-7, io.SEEK_END)
        assert file.read() == DATA[-7:] and file.tell() == 3_000_000 and file.read(1) == b""
        file.seek(0)
        assert file.read() == DATA


def test_an_empty_object_reads_as_empty(s3):
    with open_file(ARCHIVE, "a/empty") as file:
        assert file.read(132) == b""


def test_a_header_costs_one_request_and_64_kib(s3, asked):
    with open_file(ARCHIVE, "a/b/two") as file:
        assert file.read(132) == DATA[:132] and file.seek(0) == 0
        assert file.read(30_000) == DATA[:30_000]
    assert asked.calls == {"get_object": 1} and asked.bytes == 64 << 10


def test_pixels_cost_one_request(s3, asked):
    with open_file(ARCHIVE, "a/b/two", whole=True) as file:
        for start in (0, 2_000_000, 1_000_000):
            file.seek(start)
            assert file.read(1_000_000) == DATA[start : start + 1_000_000]
    assert asked.calls == {"get_object": 1} and asked.bytes == 3_000_000


def test_a_walk_through_a_large_object_takes_ever_larger_steps(s3, asked):
    with open_file(ARCHIVE, "a/b/two") as file:
        for start in range(0, 3_000_000, 20_000):  # as one walks from fragment to fragment
            file.seek(start)
            assert file.read(8) == DATA[start : start + 8]
    assert asked.calls["get_object"] <= 4


def test_members_of_a_zip_are_read_from_what_was_fetched(s3, asked):
    entries = [(f"{number}.dcm", DATA[number * 1000 :][:20_000]) for number in range(60)]
    s3.pipe_file("clinic/archive/export", zip_of(entries))
    asked.calls.clear()
    for name, content in entries:
        with open_file(ARCHIVE, f"export{SEPARATOR}{name}") as file:
            assert file.read() == content
    # Each member requires a check that the zip is still the open one.
    assert asked.calls["get_object"] <= 4 and asked.calls["head_object"] <= len(entries) + 1


def test_an_object_that_is_gone_is_a_file_not_found(s3):
    with open_file(ARCHIVE, "gone") as file, pytest.raises(FileNotFoundError) as raised:
        file.read(1)
    assert "gone" not in str(raised.value)
    assert stat(ARCHIVE, "gone") is None


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        ("s3://no-such-bucket/archive", "does not exist"),
        ("s3://clinic/nothing here", "holds no files"),
        (f"{ARCHIVE}/one", "is not a folder"),
    ],
)
def test_an_invalid_archive_raises_a_user_error(s3, archive, problem):
    with pytest.raises(UserError, match=f"^SONOTAG_ARCHIVE {archive} {problem}"):
        list(walk(archive))


def test_a_storage_that_fails_is_not_taken_for_a_broken_file(s3, monkeypatch):
    async def refuse(self, *_, **__):
        raise RuntimeError("an error that quotes MUELLER^ANNA and a secret")

    monkeypatch.setattr(S3FileSystem, "_call_s3", refuse)
    with open_file(ARCHIVE, "one") as file, pytest.raises(OSError, match="RuntimeError") as raised:
        file.read(1)
    assert raised.value.errno and "MUELLER" not in str(raised.value)
    with pytest.raises(OSError, match="RuntimeError"):
        stat(ARCHIVE, "one")
    with pytest.raises(UserError, match=r"cannot be listed: RuntimeError\.$"):
        list(walk(ARCHIVE))


def test_any_file_system_of_fsspec_will_do():
    memory = fsspec.filesystem("memory")
    memory.pipe({"/clinic/one": b"1", "/clinic/a/export": zip_of([("x", b"zipped")])})
    assert {(file.path, file.size > 0) for file in walk("memory://clinic")} == {("one", True), ("a/export", True)}
    with open_file("memory://clinic", f"a/export{SEPARATOR}x") as file:
        assert file.read() == b"zipped"
    before = stat("memory://clinic", "one")
    memory.pipe_file("/clinic/one", b"2")
    assert stat("memory://clinic", "one").version != before.version
    memory.rm("/clinic", recursive=True)


def test_an_unknown_scheme_raises_a_user_error():
    with pytest.raises(UserError, match="nonsense://clinic/x"):
        normalized("nonsense://clinic/x")


def test_a_scheme_without_its_package_raises_an_error_that_names_the_package(monkeypatch):
    needs = {"class": "no_such_package.FileSystem", "err": "Install no-such-package to read it"}
    monkeypatch.setitem(known_implementations, "clinicfs", needs)
    with pytest.raises(UserError, match=r"clinicfs://x cannot be opened: Install no-such-package to read it\.$"):
        normalized("clinicfs://x")


def test_credentials_in_a_url_are_not_shown():
    url = "ftp://anna:secret@clinic.example:21/archive?token=secret"
    assert without_credentials(url) == "ftp://clinic.example:21/archive"
    assert without_credentials("/a/folder?x") == "/a/folder?x"
    with pytest.raises(UserError) as raised:
        normalized(url.replace("ftp", "nonsense"))
    assert "secret" not in str(raised.value)


INDEX = """
import sys
from pathlib import Path
from pipeline.archive.scan import index_archive
from pipeline.recipe.archive import Archive
from pipeline.tables import DICOM_INDEX, REJECTED_FILES

archive, folder, key = sys.argv[1], Path(sys.argv[2]), sys.argv[3].encode()
for _ in range(2):
    index = index_archive(archive, folder / "private", key, Archive())
    print(index.read)
DICOM_INDEX.write(folder, index.records)
REJECTED_FILES.write(folder, index.rejected)
"""


def indexed_apart(archive: str, folder: Path) -> tuple[list[str], pa.Table, pa.Table]:
    """Files read by a first and a second scan, records and rejected files; by a process that starts from nothing.

    Workers come from a server that keeps the environment it was first started with.
    """
    command = [sys.executable, "-c", INDEX, archive, str(folder), KEY.decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), DICOM_INDEX.read(folder), REJECTED_FILES.read(folder)


def test_an_archive_behind_a_url_is_indexed_as_the_folder_is(s3, tmp_path):
    """ArchiveFile in one process, read in others, through environment variables and HTTP."""
    folder = tmp_path / "archive"
    for number in range(3):
        write_dicom(folder / "export" / f"{number}.dcm", noise(seed=number), PatientID=f"P{number}")
    packed = zip_of([("IM1", write_dicom(tmp_path / "x", noise(seed=9), PatientID="P9").read_bytes())])
    (folder / "a zip").write_bytes(packed)
    (folder / "notes").write_bytes(b"none of DICOM")
    s3.put(f"{folder}/", "clinic/small/", recursive=True)
    read, records, rejected = indexed_apart("s3://clinic/small", tmp_path / "remote")
    _, local_records, local_rejected = indexed_apart(str(folder), tmp_path / "local")
    assert records.equals(local_records) and rejected.equals(local_rejected)
    assert (records.num_rows, rejected["reason"].to_pylist()) == (4, ["not_dicom"])
    assert read[1] == "0"
