"""Zip files in an archive: what they hold, and the content of one member, within bounds.

Belongs here: reading zips with Python's zipfile; nothing is written to disk. Not here: where a zip lies, what a
member means.
"""

import errno
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from struct import error as struct_error
from typing import IO, Any, BinaryIO

from pipeline.dicom.rejections import Reason, Rejected, Rejection

SEPARATOR = "\0"
"""Between a zip's path and a member's name, and before the count of a repeated name: no file name can hold it."""

MAX_MEMBERS = 200_000
MAX_DIRECTORY_BYTES = 64 << 20
"""Of a zip's central directory: 200,000 entries with names of 280 characters."""
MAX_MEMBER_BYTES = 2 << 30
"""One member, expanded."""
MAX_MEMORY_BYTES = 256 << 20
"""One member, expanded into memory as a whole."""
MAX_TOTAL_BYTES = 64 << 30
"""All members, expanded."""
MAX_RATIO = 1100
"""Expanded to packed bytes, above 1 MiB. Deflate reaches 1032, for black frames say; a directory with more lies."""

_BUFFER = 64 << 10
_ENTRY = b"PK\x01\x02"  # signature of an entry of the central directory
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # general purpose bits 0, 6 and 13 (PKWARE's APPNOTE.TXT, section 4.4.4)
# Not bzip2 and LZMA: they expand a millionfold, and zipfile has no way to stop them at the size that is stated.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}

# What zipfile and zlib raise for broken input.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct_error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,  # UnicodeDecodeError is one
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file within a zip, in the order of the directory.

    `name` tells it apart: the second of two equal names has SEPARATOR and "1" behind it, the third "2". `size` in
    bytes, expanded, and `crc` are what the directory states; `problem` says why the content cannot be read at all.
    """

    name: str
    size: int
    crc: int
    problem: Rejection | None


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with `head` (4 bytes or more) is a zip: a member's header, or an empty directory."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def members(file: BinaryIO) -> list[Member]:
    """The files within the zip `file`; names are only names, and folders are left out.

    Raises `Rejected` (unreadable_container, over_limits), and `OSError` where `file` itself cannot be read.
    """
    return [Member(name, info.file_size, info.CRC, _problem(info)) for name, info in OpenZip(file).members.items()]


class OpenZip:
    """A zip whose directory has been read; `members` by their names as `Member` has them.

    Raises `Rejected` (unreadable_container, over_limits), and `OSError` where `file` itself cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        guarded = _Guarded(file)
        with _broken_is_rejected():
            self._zip = zipfile.ZipFile(guarded)
        guarded.bounded = False
        self.members = _named(self._zip)
        if sum(info.file_size for info in self.members.values()) > MAX_TOTAL_BYTES:
            raise Rejected(Reason.OVER_LIMITS, f"a zip that expands to more than {MAX_TOTAL_BYTES >> 30} GiB")

    def open(self, name: str, whole: bool) -> BinaryIO:
        """The member `name` as a seekable file; expanded as it is read, so that going back begins anew.

        With `whole` it is expanded into memory at once, unless it is larger than MAX_MEMORY_BYTES. It never has more
        bytes than the directory states, whatever is in the stream. Raises `Rejected` (unreadable_container,
        over_limits), also while it is read; `FileNotFoundError` where there is no such member, and `OSError` where
        the zip itself cannot be read.
        """
        info = self.members.get(name)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "no such member")
        if problem := _problem(info):
            raise Rejected(problem.reason, problem.detail)
        with _broken_is_rejected():
            stream = self._zip.open(info)
            if not whole or info.file_size > MAX_MEMORY_BYTES:
                return io.BufferedReader(_Expanding(self, stream), _BUFFER)
            with stream:
                return io.BytesIO(stream.read(info.file_size))


def _named(opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    seen: Counter[str] = Counter()
    named = {}
    for info in opened.infolist():
        if not info.is_dir():
            repeat = seen[info.filename]
            named[f"{info.filename}{SEPARATOR}{repeat}" if repeat else info.filename] = info
            seen[info.filename] += 1
    return named


def _problem(info: zipfile.ZipInfo) -> Rejection | None:
    """What the directory alone tells against reading a member."""
    if info.flag_bits & _ENCRYPTED:
        return Rejection(Reason.UNREADABLE_CONTAINER, "an encrypted member of a zip")
    if info.compress_type not in _METHODS:
        return Rejection(Reason.UNREADABLE_CONTAINER, "a member of a zip, packed in an unknown way")
    if info.file_size > MAX_MEMBER_BYTES:
        return Rejection(Reason.OVER_LIMITS, f"a member of a zip, of more than {MAX_MEMBER_BYTES >> 30} GiB")
    if info.file_size > max(1 << 20, MAX_RATIO * info.compress_size):
        return Rejection(Reason.OVER_LIMITS, f"a member of a zip, packed more than {MAX_RATIO} to 1")
    return None


@contextmanager
def _broken_is_rejected() -> Iterator[None]:
    """Turn what a broken zip makes zipfile raise into `Rejected`; the system's own errors pass."""
    try:
        yield
    except _BROKEN as error:
        raise Rejected(Reason.UNREADABLE_CONTAINER, f"reading the zip stopped with {type(error).__name__}") from None


class _Expanding(io.RawIOBase):
    """A member's stream whose faults are `Rejected`; it keeps the zip alive."""

    def __init__(self, owner: OpenZip, stream: IO[bytes]) -> None:
        self._owner, self._stream = owner, stream

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _broken_is_rejected():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        with _broken_is_rejected():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Guarded(io.RawIOBase):
    """A file as zipfile reads it: while `bounded`, one read, which the central directory is, cannot be too large.

    The count of entries that the end record states is not what zipfile goes by, so that it cannot be believed.
    """

    bounded = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an offset before the file")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if self.bounded and size > MAX_DIRECTORY_BYTES:
            raise Rejected(Reason.OVER_LIMITS, f"a zip with a directory of more than {MAX_DIRECTORY_BYTES >> 20} MiB")
        data = self._file.read(size)
        if self.bounded and data.count(_ENTRY) > MAX_MEMBERS:
            raise Rejected(Reason.OVER_LIMITS, f"a zip with more than {MAX_MEMBERS:,} members")
        return data
