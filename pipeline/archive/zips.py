"""Lists and reads the members of zip files with limits on size and number, without writing to disk."""

import errno
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from struct import error as struct_error
from typing import IO, Any, BinaryIO, cast

from pipeline.dicom.rejections import Reason, Rejected, Rejection

SEPARATOR = "\0"
"""Between a zip's path and a member's name, and before the count of a repeated name; not allowed in file names."""

MAX_MEMBERS = 200_000
MAX_DIRECTORY_BYTES = 64 << 20
"""Maximum of a zip's central directory: 200,000 entries with names of 280 characters."""
MAX_MEMBER_BYTES = 2 << 30
"""Maximum of one expanded member."""
MAX_MEMORY_BYTES = 256 << 20
"""Maximum of a member that is expanded into memory at once."""
MAX_TOTAL_BYTES = 64 << 30
"""Maximum of all expanded members."""
MAX_RATIO = 1100
"""Maximum of expanded to packed bytes, above 1 MiB. Deflate reaches 1032, for example for black frames."""

_BUFFER = 64 << 10
_ENTRY = b"PK\x01\x02"  # signature of an entry of the central directory
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # general purpose bits 0, 6 and 13 (PKWARE's APPNOTE.TXT, section 4.4.4)
# Not bzip2 and LZMA: they expand a millionfold, and zipfile cannot stop them at the stated size.
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
    """A file in a zip.

    `name` is unique: the second of two equal names ends in SEPARATOR and "1", the third in "2". The directory states
    `size` (expanded, in bytes) and `crc`; `problem` is the reason if the content cannot be read at all.
    """

    name: str
    size: int
    crc: int
    problem: Rejection | None


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 4 bytes) is a zip: a member's header or an empty directory."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def members(file: BinaryIO) -> list[Member]:
    """The files in the zip `file`, without folders.

    Raises `Rejected` (unreadable_container, over_limits), and `OSError` if `file` itself cannot be read.
    """
    return [Member(name, info.file_size, info.CRC, _problem(info)) for name, info in OpenZip(file).members.items()]


class OpenZip:
    """A zip with its directory: `members` by their unique names.

    Raises `Rejected` (unreadable_container, over_limits), and `OSError` if `file` itself cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        guarded = _Guarded(file)
        with _broken_is_rejected():
            self._zip = zipfile.ZipFile(cast(BinaryIO, guarded))
        guarded.bounded = False
        self.members = _named(self._zip)
        if sum(info.file_size for info in self.members.values()) > MAX_TOTAL_BYTES:
            raise Rejected(Reason.OVER_LIMITS, f"a zip that expands to more than {MAX_TOTAL_BYTES >> 30} GiB")

    def open(self, name: str, whole: bool) -> BinaryIO:
        """The member `name` as a seekable file, expanded on demand; seeking back starts from the beginning.

        With `whole` it is expanded into memory at once, unless it is larger than MAX_MEMORY_BYTES. It never has more
        bytes than the directory states. Raises `Rejected` (unreadable_container, over_limits), also during reading;
        `FileNotFoundError` if there is no such member, and `OSError` if the zip itself cannot be read.
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
    """The reason in the directory for not reading a member."""
    if info.flag_bits & _ENCRYPTED:
        return Rejection(Reason.UNREADABLE_CONTAINER, "an encrypted member of a zip")
    if info.compress_type not in _METHODS:
        return Rejection(Reason.UNREADABLE_CONTAINER, "a member of a zip, with an unknown compression")
    if info.file_size > MAX_MEMBER_BYTES:
        return Rejection(Reason.OVER_LIMITS, f"a member of a zip, of more than {MAX_MEMBER_BYTES >> 30} GiB")
    if info.file_size > max(1 << 20, MAX_RATIO * info.compress_size):
        return Rejection(Reason.OVER_LIMITS, f"a member of a zip, packed more than {MAX_RATIO} to 1")
    return None


@contextmanager
def _broken_is_rejected() -> Iterator[None]:
    """Convert what zipfile raises for a broken zip to `Rejected`; `OSError` passes."""
    try:
        yield
    except _BROKEN as error:
        raise Rejected(Reason.UNREADABLE_CONTAINER, f"reading the zip stopped with {type(error).__name__}") from None


class _Expanding(io.RawIOBase):
    """A member's stream that raises `Rejected`; its reference keeps the zip open."""

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


class _Guarded:
    """A file for zipfile that limits a single read, such as the central directory, while `bounded`.

    zipfile ignores the number of entries that the end record states, so this counts them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.bounded = file, True
        self.tell, self.seekable = file.tell, file.seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an offset before the file")
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if self.bounded and size > MAX_DIRECTORY_BYTES:
            raise Rejected(Reason.OVER_LIMITS, f"a zip with a directory of more than {MAX_DIRECTORY_BYTES >> 20} MiB")
        data = self._file.read(size)
        if self.bounded and data.count(_ENTRY) > MAX_MEMBERS:
            raise Rejected(Reason.OVER_LIMITS, f"a zip with more than {MAX_MEMBERS:,} members")
        return data
