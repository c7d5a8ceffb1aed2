"""Transient errors: real ones of this system, and those of a storage library."""

import errno
import os
import socket
from pathlib import Path

import pytest

from pipeline.archive.source import walk
from pipeline.dicom.rejections import UnreadableFile
from pipeline.errors import UnreachableError, UserError, is_transient, user_error


def test_a_full_disk_is_transient() -> None:
    with pytest.raises(OSError) as raised, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert is_transient(raised.value)


def test_a_busy_resource_is_transient(tmp_path: Path) -> None:
    import fcntl

    with open(tmp_path / "lock", "w") as one, open(tmp_path / "lock", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(OSError) as raised:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert is_transient(raised.value)


def test_a_missing_file_is_not_transient(tmp_path: Path) -> None:
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(OSError) as raised:
            wrong.read_bytes()
        assert not is_transient(raised.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG])
def test_errors_that_a_person_must_correct_are_not_transient(number: int) -> None:
    assert not is_transient(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("error", [ValueError(), OSError("no number"), MemoryError(), UserError("a mistake")])
def test_bad_data_and_bugs_are_not_transient(error: Exception) -> None:
    assert not is_transient(error)
    assert type(user_error("a sentence", error)) is UserError


def test_a_user_error_is_transient_if_its_cause_is() -> None:
    assert isinstance(user_error("a sentence", ConnectionResetError()), UnreachableError)
    assert is_transient(UnreachableError("a sentence"))
    assert UnreadableFile.from_error(OSError(errno.EIO, "Input/output error")).is_transient
    assert not UnreadableFile.from_error(PermissionError(errno.EACCES, "Permission denied")).is_transient


def test_a_bucket_whose_server_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again: no process listens there
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    monkeypatch.setattr("s3fs.core.S3FileSystem.cachable", False)
    with pytest.raises(UnreachableError, match="SONOTAG_ARCHIVE s3://clinic/archive") as raised:
        list(walk("s3://clinic/archive"))
    assert "127.0.0.1" not in str(raised.value), "only the error's type is shown"
