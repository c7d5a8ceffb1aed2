"""What a worker may do: a hostile file that takes it over finds no key, no network and nothing to write to."""

import ctypes
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.archive.protections import NOT_HELD, protections
from pipeline.archive.sandbox import PROTECTIONS
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.privacy.identity import KEY_VARIABLE
from tests.pipeline.archive.synthetic import write_dicom

ROOT = Path(__file__).parents[3]


def landlock_version() -> int:
    """Landlock's ABI from the kernel, not from the code under test."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) if sys.platform == "linux" else -1


needs_landlock = pytest.mark.skipif(landlock_version() < 1, reason="this kernel has no Landlock")
needs_filter = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"},
    reason="no filter for this system",
)


def in_worker(what, item, archive: Path | str = "", **options):
    """`what(item)` in a worker that may read `archive`."""
    [result] = each_in_worker(what, [item], **{"readable": [str(archive)]} | options)
    return result


def outcome(what, item, **options) -> str:
    """The name of the error that stops `what` in a worker, or what it returns."""
    result = in_worker(what, item, **options)
    return result.rejection.detail if isinstance(result, Failed) else result


REFUSED = "reading stopped with PermissionError"


def read(path):
    return Path(path).read_text()


def read_memory_of(process):
    return Path(f"/proc/{process}/mem").open("rb").read(1)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=5).close()


def connect_to_a_path(path):
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect(path)


def create(path):
    return os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def append(path):
    return os.close(os.open(path, os.O_APPEND | os.O_RDWR))


def remove(path):
    return Path(path).unlink()


def rename(path):
    return Path(path).rename(path + ".moved")


def link(path):
    return Path(path + ".link").symlink_to(path)


def make_folder(path):
    return Path(path + ".folder").mkdir()


def truncate(path):
    return os.truncate(path, 0)


def run(path):
    return os.execv(path, [path])


def environment_of_the_worker(_):
    return f"{os.environ.get(KEY_VARIABLE)} {os.environ.get('AWS_SECRET_ACCESS_KEY')}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a key, beside an archive of one file."""
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "private" / "pseudonym.key").write_text("secret")
    write_dicom(tmp_path / "archive" / "image")
    (tmp_path / "archive" / "text").write_text("of the archive")
    return tmp_path


@needs_landlock
def test_a_worker_reads_its_archive_and_not_the_key(store):
    assert outcome(read, str(store / "archive" / "text"), archive=store / "archive") == "of the archive"
    assert outcome(read, str(store / "private" / "pseudonym.key"), archive=store / "archive") == REFUSED
    assert outcome(read, str(store / "archive" / "text")) == REFUSED  # a worker that is given none reads none


@needs_landlock
def test_a_worker_that_is_given_a_file_reads_this_one_alone(store):
    given = [str(store / "archive" / "text")]
    assert outcome(read, given[0], readable=given) == "of the archive"
    assert in_worker(read, str(store / "archive" / "image"), readable=given).rejection.detail == REFUSED


@needs_landlock
def test_a_link_in_the_archive_does_not_lead_a_worker_to_the_key(store):
    (store / "archive" / "link").symlink_to(store / "private" / "pseudonym.key")
    assert outcome(read, str(store / "archive" / "link"), archive=store / "archive") == REFUSED


@needs_landlock
def test_a_worker_does_not_reach_into_the_process_that_holds_the_key():
    assert outcome(read_memory_of, os.getpid()) == REFUSED


@pytest.mark.integration
def test_a_worker_starts_without_keys_and_passwords():
    """In a process of its own, since the fork server of this one has started long ago."""
    code = (
        "from pipeline.archive.workers import each_in_worker;"
        "from tests.pipeline.archive.test_sandbox import environment_of_the_worker as work;"
        "import os; print(*each_in_worker(work, [0])); print(os.environ['SONOTAG_PSEUDONYM_KEY'], flush=True);"
        "os.system('echo $SONOTAG_PSEUDONYM_KEY')"
    )
    secrets = {KEY_VARIABLE: "a key of this test", "AWS_SECRET_ACCESS_KEY": "another"}
    environment = {**os.environ, **secrets, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    # The parent process and the programs that it starts still have them.
    assert done.stdout.splitlines() == ["None None", "a key of this test", "a key of this test"]


@needs_filter
def test_a_worker_connects_to_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert outcome(connect, listening.getsockname()[1]) == REFUSED
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        assert outcome(connect_to_a_path, str(tmp_path / "s")) == REFUSED


@needs_filter
@pytest.mark.parametrize("what", [create, append, remove, rename, link, make_folder, truncate])
def test_a_worker_changes_no_file(store, what):
    before = {path: path.read_bytes() for path in (store / "archive").iterdir()}
    target = store / "archive" / ("new" if what is create else "text")
    assert outcome(what, str(target), archive=store / "archive") == REFUSED
    assert {path: path.read_bytes() for path in (store / "archive").iterdir()} == before


@needs_filter
def test_a_worker_starts_no_program():
    assert outcome(run, "/bin/true", readable=["/bin/true"]) == REFUSED


@needs_landlock
@needs_filter
def test_preflight_tests_and_prints_which_protections_hold(tmp_path):
    assert protections() == dict.fromkeys(PROTECTIONS, True)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.archive", "preflight"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SONOTAG_STORE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.rpartition(": ")[::2] for line in done.stdout.splitlines()] == [(p, "holds") for p in PROTECTIONS]
    assert NOT_HELD not in done.stdout
