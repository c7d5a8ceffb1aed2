"""Lists and opens the files of an archive: a local folder or a URL, and members of zips in either."""

import errno
import os
import stat as status_bits
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, starmap
from pathlib import Path
from typing import BinaryIO
from weakref import finalize

from pipeline.archive import remote
from pipeline.archive.location import LINK, SPECIAL, is_remote, without_credentials
from pipeline.archive.zips import SEPARATOR, OpenZip
from pipeline.errors import UserError, user_error

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not wait for its writer
_BUFFER = 8192

# Errors of opening a file or folder that was removed or replaced by another kind since it was listed.
_GONE = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.ENODEV}


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of an archive: POSIX path relative to it, size in bytes, and a version that changes with the content.

    `version` is a local file's time of the last change in ns, a remote one's ETag, or else a time.
    """

    path: str
    size: int
    version: str


def walk(archive: str) -> Iterator[ArchiveFile]:
    """Every file below `archive`, including hidden ones, in no particular order.

    Symbolic links below a local folder are not followed: they are empty files of version `LINK`; pipes, sockets and
    devices are empty files of version `SPECIAL`. Names that are not UTF-8 are as from `os.fsdecode`. A folder that
    cannot be listed is a file whose path ends in a slash, and a file whose state cannot be read has size 0 and no
    version; opening them raises the reason. Raises `UserError` if `archive` itself is missing, is not a folder, cannot
    be listed or has no file.
    """
    files = starmap(ArchiveFile, remote.walk(archive)) if is_remote(archive) else _walk_local(archive)
    if (first := next(files, None)) is None:
        raise UserError(f"SONOTAG_ARCHIVE {without_credentials(archive)} holds no files.")
    yield from chain([first], files)


def _walk_local(archive: str) -> Iterator[ArchiveFile]:
    folder = Path(archive)
    if not folder.exists():
        raise UserError(
            f"SONOTAG_ARCHIVE {archive} does not exist (if the variable is not set, it is the phantom clinic of the "
            "store, which `make phantom` writes)."
        )
    if not folder.is_dir():
        raise UserError(f"SONOTAG_ARCHIVE {archive} is not a folder.")
    try:
        pending = [""]
        while pending:
            yield from _in_folder(archive, pending.pop(), pending)
    except OSError as error:
        sentence = f"SONOTAG_ARCHIVE {archive} holds a folder that cannot be listed: {error.strerror}."
        raise user_error(sentence, error) from None


def _in_folder(archive: str, folder: str, pending: list[str]) -> Iterator[ArchiveFile]:
    """The files in the relative path `folder`, "" or ending in a slash; appends its folders to `pending`."""
    try:
        with _opened_folder(archive, folder, os.O_RDONLY) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if listed := _listed(folder, entry, pending):
                    yield listed
    except OSError as error:
        if not folder:
            raise
        if error.errno not in _GONE:
            yield ArchiveFile(folder, 0, "")


def _listed(folder: str, entry: "os.DirEntry[str]", pending: list[str]) -> ArchiveFile | None:
    """The file of `entry`, None if it is not a file; appends a folder to `pending`."""
    try:
        if entry.is_dir(follow_symlinks=False):
            pending.append(f"{folder}{entry.name}/")
            return None
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:
        return ArchiveFile(folder + entry.name, 0, "")
    if status_bits.S_ISREG(status.st_mode):
        return ArchiveFile(folder + entry.name, status.st_size, str(status.st_mtime_ns))
    if status_bits.S_ISDIR(status.st_mode):  # it was replaced since `is_dir`
        return None
    return ArchiveFile(folder + entry.name, 0, LINK if status_bits.S_ISLNK(status.st_mode) else SPECIAL)


@contextmanager
def _opened_folder(archive: str, folder: str, flags: int = _PARENT) -> Iterator[int]:
    """A descriptor of the folder at the relative path `folder`, opened with `flags`.

    Opens each folder within its parent: the archive itself may be a link, but a link that has replaced a folder below
    it since it was listed is not followed out of the archive.
    """
    names = [name for name in folder.split("/") if name]
    descriptor = os.open(archive, (_PARENT if names else flags) & ~os.O_NOFOLLOW)
    try:
        for number, name in enumerate(names, 1):
            below = os.open(name, (flags if number == len(names) else _PARENT) | _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def stat(archive: str, path: str) -> ArchiveFile | None:
    """The present state of one file, for a member's path that of its zip; None if it no longer exists.

    Raises `OSError` if the state cannot be read.
    """
    file = path.partition(SEPARATOR)[0]
    if is_remote(archive):
        state = remote.stat(archive, file)
        return state and ArchiveFile(file, *state)
    folder, _, name = file.rpartition("/")
    try:
        with _opened_folder(archive, folder) as descriptor:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    if not status_bits.S_ISREG(status.st_mode):
        return None
    return ArchiveFile(file, status.st_size, str(status.st_mtime_ns))


def open_file(archive: str, path: str, whole: bool = False) -> BinaryIO:
    """The file at `path`, or the member of a zip, as a seekable binary file and context manager.

    Use `whole` to read most of it in any order: then a remote file is fetched in large blocks, and a member expanded
    into memory. Raises `FileNotFoundError` if it is not a regular file any more, `OSError` if it cannot be read, and
    for a member `Rejected` (unreadable_container, over_limits).
    """
    file, separator, name = path.partition(SEPARATOR)
    if not separator:
        return _open_plain(archive, file, whole)
    state = stat(archive, file)
    if state is None:
        raise FileNotFoundError(errno.ENOENT, "no such file")
    return _open_zip(archive, state).open(name, whole)


def _open_plain(archive: str, path: str, whole: bool) -> BinaryIO:
    if is_remote(archive):
        return remote.open_object(archive, path, remote.PIXEL_BLOCK if whole else remote.HEADER_BLOCK)
    folder, _, name = path.rpartition("/")
    try:
        with _opened_folder(archive, folder, _PARENT if name else os.O_RDONLY) as parent:
            descriptor = os.open(name or ".", _FILE, dir_fd=parent)
    except OSError as error:
        if error.errno in _GONE:
            raise FileNotFoundError(errno.ENOENT, "no regular file") from None
        raise
    if not status_bits.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no regular file")
    return open(descriptor, "rb", buffering=_BUFFER)


@lru_cache(maxsize=2)
def _open_zip(archive: str, state: ArchiveFile) -> OpenZip:
    """The zip in this state, kept open: reading its directory for each of 10,000 members would take hours."""
    file = _open_plain(archive, state.path, whole=True)
    opened = OpenZip(file)
    finalize(opened, file.close)
    return opened
