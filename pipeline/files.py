"""Atomic writing of files, private permissions, JSON and Parquet, digests, data URLs."""

import base64
import glob
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DamagedError, UserError, user_error

_OWN_FOLDER, _OWN_FILE = 0o700, 0o600
_OTHERS = 0o077


def restrict_umask() -> None:
    """Make files that this process and its children create from now on accessible to the user alone."""
    os.umask(_OTHERS)


def make_folder(path: Path) -> Path:
    """Create the folder `path` and its missing parents, accessible to the user alone; returns `path`."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=_OWN_FOLDER, exist_ok=True)
    return path


def make_private(folder: Path) -> None:
    """Remove all permissions of other users on `folder` and its content; does nothing if `folder` has none.

    Files of another user are skipped. Raises `OSError` if `folder` itself belongs to one.
    """
    if not folder.stat().st_mode & _OTHERS:
        return
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            with suppress(PermissionError, FileNotFoundError):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o700)
    folder.chmod(folder.stat().st_mode & 0o700)  # last, so that the next process finishes the work of a killed one


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renames it to `path` on success, removes it on error.

    A reader sees the old file or the new one, never a partial one, also after `kill -9`. Temporary files of killed
    processes are removed by the next process that writes `path`.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWN_FILE))
        yield temporary
        with open(temporary, "rb") as written:
            os.fchmod(written.fileno(), _OWN_FILE)  # if the caller created it anew
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine's part of temporary names: a store on a network drive has writers on other machines."""


def temporary_beside(path: Path) -> Path:
    """A new name beside `path` for a file that is being written; removes what killed writers of `path` left there."""
    clear_abandoned(path.parent, path.name)
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid4().hex[:8]}.tmp")


def clear_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove temporary files in `folder`, of the file `name` or of any, whose writer has ended.

    Writers are processes of this machine; what other machines write to a shared folder stays.
    """
    for other in folder.glob(f".{'*' if name is None else glob.escape(name)}.{_HOST}-*-*.tmp"):
        writer = other.name.rsplit("-", 2)[1]
        if writer.isdecimal() and not _is_alive(int(writer)):
            other.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def read_bounded(name: str, path: Path, most: int) -> bytes:
    """The content of a user's file; raises `UserError` with `name` if it is unreadable or longer than `most` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise user_error(f"{name} cannot be opened: {error.strerror}.", error) from None
    if len(content) > most:
        raise UserError(f"{name} is larger than {most // 2**20} MiB.")
    return content


def file_state(path: Path) -> tuple[int, int]:
    """Inode and time of the last change, zeros if there is no such file. A file that is replaced has others."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic_replace(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of the JSON file at `path`; raises `DamagedError` if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DamagedError(path) from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write `table` to `path` as Parquet (zstd), whole or not at all; the same rows give the same bytes."""
    with atomic_replace(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The Parquet table at `path`, memory-mapped, with all columns or those named.

    Raises `DamagedError` if it is not a Parquet file or lacks a column.
    """
    with damaged_if_unreadable(path):
        return pq.read_table(path, columns=columns and list(columns), memory_map=path.stat().st_size > 0)


@contextmanager
def damaged_if_unreadable(path: Path) -> Iterator[None]:
    """Raise `DamagedError` for Arrow's errors on a broken Parquet file at `path`; system errors pass through."""
    try:
        yield
    except pa.ArrowException:
        raise DamagedError(path) from None
    except OSError as error:  # Arrow's own have no errno
        if error.errno is not None:
            raise
        raise DamagedError(path) from None


def data_url(path: Path) -> str:
    """The PNG file at `path` as a data URL."""
    return png_url(path.read_bytes())


def png_url(png: bytes) -> str:
    """The bytes of a PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def jpeg_url(jpeg: bytes) -> str:
    """The bytes of a JPEG as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of `parts` as canonical JSON, in which bytes are replaced by their own SHA-256."""

    def plain(value: Any) -> str:
        return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

    text = json.dumps(parts, sort_keys=True, default=plain, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
