"""Where an archive's bytes come from: a local folder, a URL, a member of a zip in either.

Belongs here: naming, listing and opening files, safely. Not here: what is in a file, file ids, DICOM.
"""

import errno
import os
import stat as status_bits
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from weakref import finalize

from pipeline.archive import remote
from pipeline.archive.location import LINK, SPECIAL, is_remote, normalized, without_credentials
from pipeline.archive.zips import SEPARATOR, Member, OpenZip, is_zip, members
from pipeline.errors import UserError, user_error

__all__ = [
    "LINK",
    "SEPARATOR",
    "SPECIAL",
    "Listed",
    "Member",
    "is_remote",
    "is_zip",
    "members",
    "normalized",
    "open_file",
    "stat",
    "walk",
    "without_credentials",
]

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ON_THE_WAY = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not wait for its writer
_BUFFER = 8192

# What opening says where another kind of thing, or nothing, has taken a file's or a folder's place since it was listed.
_GONE = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.ENODEV}


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of an archive: POSIX path relative to it, bytes, and a text that changes when the content may have.

    `version` is the time of the last change in ns of a local file; of a remote one its ETag, or else a time.
    """

    path: str
    size: int
    version: str


def walk(archive: str) -> Iterator[Listed]:
    """Every file below `archive`, hidden ones too, in no particular order, as they are found.

    Symbolic links below a local folder are not followed: what they point to is inside, and found there, or outside.
    They come as empty files of version `LINK`, and pipes, sockets and devices as ones of version `SPECIAL`.
    Names that are not UTF-8 come as `os.fsdecode` gives them. A folder that cannot be listed comes as a file whose path
    ends in a slash, and a file whose state cannot be read without size and version: opening them raises why. Raises
    `UserError` where `archive` itself is missing, is no folder, cannot be listed or holds no file.
    """
    found = False
    for found_file in _walk_remote(archive) if is_remote(archive) else _walk_local(archive):
        found = True
        yield found_file
    if not found:
        raise UserError(f"SONOTAG_ARCHIVE {without_credentials(archive)} holds no files.")


def _walk_remote(archive: str) -> Iterator[Listed]:
    return (Listed(path, size, version) for path, size, version in remote.walk(archive))


def _walk_local(archive: str) -> Iterator[Listed]:
    folder = Path(archive)
    if not folder.exists():
        raise UserError(
            f"SONOTAG_ARCHIVE {archive} does not exist (where the variable is not set, it is the phantom clinic of the "
            "store, which `make phantom` makes)."
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


def _in_folder(archive: str, folder: str, pending: list[str]) -> Iterator[Listed]:
    """The files of the folder at the relative path `folder`, "" or ending in a slash; its folders join `pending`."""
    try:
        with _opened_folder(archive, folder, os.O_RDONLY) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if listed := _listed(folder, entry, pending):
                    yield listed
    except OSError as error:
        if not folder:
            raise
        if error.errno not in _GONE:
            yield Listed(folder, 0, "")


def _listed(folder: str, entry: "os.DirEntry[str]", pending: list[str]) -> Listed | None:
    """The file that `entry` is, None where it is none; a folder joins `pending`."""
    try:
        if entry.is_dir(follow_symlinks=False):
            pending.append(f"{folder}{entry.name}/")
            return None
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:
        return Listed(folder + entry.name, 0, "")
    if status_bits.S_ISREG(status.st_mode):
        return Listed(folder + entry.name, status.st_size, str(status.st_mtime_ns))
    if status_bits.S_ISDIR(status.st_mode):  # it has become one while it was looked at
        return None
    return Listed(folder + entry.name, 0, LINK if status_bits.S_ISLNK(status.st_mode) else SPECIAL)


@contextmanager
def _opened_folder(archive: str, folder: str, flags: int = _ON_THE_WAY) -> Iterator[int]:
    """A descriptor of the folder at the relative path `folder`, opened with `flags`.

    Each folder on the way is opened within the one above it: the archive itself may be a link, but a folder below it
    in whose place a link has come since it was listed is not followed out of the archive.
    """
    names = [name for name in folder.split("/") if name]
    descriptor = os.open(archive, (_ON_THE_WAY if names else flags) & ~os.O_NOFOLLOW)
    try:
        for number, name in enumerate(names, 1):
            below = os.open(name, (flags if number == len(names) else _ON_THE_WAY) | _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def stat(archive: str, path: str) -> Listed | None:
    """The present state of one file, of a member's path that of its zip; None where there is no such file any more.

    Raises `OSError` where that cannot be told.
    """
    file = path.partition(SEPARATOR)[0]
    if is_remote(archive):
        state = remote.stat(archive, file)
        return state and Listed(file, *state)
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
    return Listed(file, status.st_size, str(status.st_mtime_ns))


def open_file(archive: str, path: str, whole: bool = False) -> BinaryIO:
    """The file at `path`, or the member of a zip, as a seekable binary file and context manager.

    With `whole`, most of it is going to be read, not in order: a remote file then comes in large blocks, a member is
    expanded into memory. Raises `FileNotFoundError` where no regular file is there any more, `OSError` where it cannot
    be read, and for a member `Rejected` (unreadable_container, over_limits).
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
        with _opened_folder(archive, folder, _ON_THE_WAY if name else os.O_RDONLY) as parent:
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
def _open_zip(archive: str, state: Listed) -> OpenZip:
    """The zip in this state of it, kept open: reading its directory for each of 10,000 members would take hours."""
    file = _open_plain(archive, state.path, whole=True)
    opened = OpenZip(file)
    finalize(opened, file.close)
    return opened
