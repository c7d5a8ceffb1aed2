"""Lists and reads archives at any URL that fsspec supports, such as s3://bucket/prefix."""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from pipeline.archive.location import LINK, SPECIAL, without_credentials
from pipeline.errors import UnreachableError, UserError, is_transient

HEADER_BLOCK = 64 << 10
"""Bytes of the first request for a header: nearly all ultrasound headers are shorter."""
PIXEL_BLOCK = 8 << 20
"""Bytes of a request for pixels, and the maximum of any request."""

# Keys of fsspec's file systems for what changes with an object, best first: entity tag, then times.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "modified", "mtime", "created")


def walk(url: str) -> Iterator[tuple[str, int, str]]:
    """Relative path, size and version of every object below `url`.

    Raises `UserError` if it is missing, is a single object or cannot be listed; states only the type of the reason,
    since messages can quote credentials.
    """
    try:
        system, root = fsspec.core.url_to_fs(url)
        system.invalidate_cache()
        found = system.find(root, detail=True)
        system.invalidate_cache()  # a million entries would stay in memory, and make `stat` stale
    except FileNotFoundError:
        raise UserError(f"SONOTAG_ARCHIVE {without_credentials(url)} does not exist.") from None
    except Exception as error:
        kind = UnreachableError if is_transient(error) or _is_of_the_network(error) else UserError
        raise kind(f"SONOTAG_ARCHIVE {without_credentials(url)} cannot be listed: {type(error).__name__}.") from None
    if root in found:
        raise UserError(f"SONOTAG_ARCHIVE {without_credentials(url)} is not a folder.")
    below = f"{root.rstrip('/')}/"
    for name, info in found.items():
        if info["type"] == "file" and not name.endswith("/"):  # some tools write such an object for a folder
            yield name.removeprefix(below), info["size"] or 0, version_of(info)
        elif info["type"] not in {"file", "directory"}:  # in storages with links, such as SFTP
            yield name.removeprefix(below), 0, LINK if info["type"] == "link" else SPECIAL


def _is_of_the_network(error: BaseException) -> bool:
    """Whether the error, of botocore or aiohttp, means that the server was not reached."""
    names = {"ConnectionError", "HTTPClientError", "ClientConnectionError"}
    return any(kind.__name__ in names for kind in type(error).__mro__)


def stat(url: str, path: str) -> tuple[int, str] | None:
    """Present size and version of one object; None if it is gone. Raises `OSError` if they cannot be read."""
    system, name = system_of(url, path)
    try:
        with _failures_are_os_errors():
            info = system.info(name)
    except FileNotFoundError:
        return None
    return (info["size"] or 0, version_of(info)) if info["type"] == "file" else None


def open_object(url: str, path: str, block: int) -> io.BufferedReader:
    """An object as a seekable file, fetched on demand in ranges of at least `block` bytes.

    Reading raises `OSError` with an errno for every error of the storage's library: an error of the network must not
    look like a defect of the file.
    """
    return io.BufferedReader(_Object(*system_of(url, path), block))


class _Object(io.RawIOBase):
    """An object read in ranges: each is kept until the next one, which is four times as long."""

    def __init__(self, system: Any, name: str, block: int) -> None:
        self._system, self._name, self._next = system, name, block
        self._position, self._start, self._held = 0, 0, b""
        self._size: int | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        target = offset + (base[whence] if whence in base else self._length())
        if target < 0:
            raise OSError(errno.EINVAL, "an offset before the file")
        self._position = target
        return target

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        at = self._position - self._start
        if not 0 <= at < len(self._held):
            self._held, self._start, at = self._fetch(self._position, max(wanted, self._next)), self._position, 0
            self._next = min(4 * self._next, PIXEL_BLOCK)
        part = self._held[at : at + wanted]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _fetch(self, start: int, count: int) -> bytes:
        """At most `count` bytes from `start` on; none at the end, beyond which storages raise errors."""
        if self._size is not None and start >= self._size:
            return b""
        try:
            with _failures_are_os_errors():
                return bytes(self._system.cat_file(self._name, start=start, end=start + count))
        except OSError:
            if start >= self._length():
                return b""
            raise

    def _length(self) -> int:
        if self._size is None:
            with _failures_are_os_errors():
                self._size = int(self._system.info(self._name)["size"])
        return self._size


@contextmanager
def _failures_are_os_errors() -> Iterator[None]:
    """Convert exceptions to `OSError` with an errno, with their type only, since messages can quote paths."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object") from None
    except PermissionError:
        raise PermissionError(errno.EACCES, "access denied") from None
    except Exception as error:
        raise OSError(errno.EIO, f"the storage raised {type(error).__name__}") from None


def use_proxy(system: Any) -> None:
    """Send this process's requests to `system`, which takes paths relative to the archive, instead of the storage."""
    _proxy[:] = [system]


_proxy: list[Any] = []


def system_of(url: str, path: str) -> tuple[Any, str]:
    """The file system (`cat_file`, `info`) for the object at `path` below `url`, and the object's name in it."""
    if _proxy:
        return _proxy[0], path
    system, root = fsspec.core.url_to_fs(url)  # it caches file systems per process
    return system, f"{root.rstrip('/')}/{path}"


def version_of(info: dict[str, Any]) -> str:
    """A text in fsspec's `info` that changes with the object."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
