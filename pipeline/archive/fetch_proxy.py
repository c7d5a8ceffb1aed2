"""Fetches objects of a remote archive in the main process for workers, which have no network: server and client."""

import json
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final

from pipeline.archive import remote

MAX_BYTES: Final = 2**26
"""Maximum bytes per request, 64 MiB; a longer request returns fewer, as a read may."""

_LONGEST_REQUEST = 2**16  # bytes; a path has a few thousand at most
_HEAD = struct.Struct(">?Q")  # whether the request failed; bytes that follow


@contextmanager
def serving(url: str) -> Iterator[str]:
    """Serve objects below `url`; yields the address of a socket that only this user can open."""
    with tempfile.TemporaryDirectory(prefix="sonotag") as folder, socket.socket(socket.AF_UNIX) as listening:
        address = str(Path(folder, "s"))
        listening.bind(address)
        listening.listen(64)
        Thread(target=_accept, args=(listening, url), daemon=True).start()
        try:
            yield address
        finally:
            with suppress(OSError):  # wakes the thread that waits for connections
                listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, url: str) -> None:
    with suppress(OSError):  # closed by `serving`
        while True:
            connection, _ = listening.accept()
            Thread(target=_answer_all, args=(connection, url), daemon=True).start()


def _answer_all(connection: socket.socket, url: str) -> None:
    """Serve one worker until it exits or sends an invalid request."""
    with connection, connection.makefile("rwb") as file, suppress(OSError):
        while request := file.readline(_LONGEST_REQUEST):
            try:
                payload = _answer(url, *json.loads(request))
            except Exception as error:
                name = type(error).__name__.encode()
                file.write(_HEAD.pack(True, len(name)) + name)
            else:
                file.write(_HEAD.pack(False, len(payload)) + payload)
            file.flush()


def _answer(url: str, path: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of the object at the relative `path`; its size, type and version as JSON if `end` is 0."""
    if ".." in path.split("/"):
        raise FileNotFoundError
    system, name = remote.system_of(url, path)
    if end:
        return bytes(system.cat_file(name, start=start, end=min(end, start + MAX_BYTES)))
    info = system.info(name)
    return json.dumps({"size": info["size"] or 0, "type": info["type"], "ETag": remote.version_of(info)}).encode()


class ProxyFileSystem:
    """The part of an fsspec file system that reading needs, over the connection at `address`."""

    def __init__(self, address: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        self._file = connection.makefile("rwb")

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """The object's bytes from `start` to before `end`; raises what the storage raises."""
        return self._request(name, start, end)

    def info(self, name: str) -> dict[str, Any]:
        """The object's size, type and version; raises what the storage raises."""
        found: dict[str, Any] = json.loads(self._request(name, 0, 0))
        return found

    def _request(self, name: str, start: int, end: int) -> bytes:
        self._file.write(json.dumps([name, start, end]).encode() + b"\n")
        self._file.flush()
        failed, length = _HEAD.unpack(self._file.read(_HEAD.size))
        payload = self._file.read(length)
        if not failed:
            return payload
        raise _RAISED.get(payload.decode(), type(payload.decode(), (Exception,), {}))


_RAISED: Final[dict[str, type[Exception]]] = {
    "FileNotFoundError": FileNotFoundError,
    "PermissionError": PermissionError,
}
