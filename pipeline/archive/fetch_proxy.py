"""Objects of a remote archive, fetched by this process for workers that cannot connect to anything themselves.

Belongs here: the requests, both ends. Not here: how storages are asked (`remote`), confining workers (`sandbox`).
"""

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

MOST: Final = 2**26
"""Bytes that are fetched at once at most: 64 MiB; who asks for more gets less, as a read may."""

_LONGEST_REQUEST = 2**16  # bytes; a path has a few thousand at most
_HEAD = struct.Struct(">?Q")  # whether the request failed; bytes that follow


@contextmanager
def serving(url: str) -> Iterator[str]:
    """Answer requests for objects below `url`; yields the address at which workers connect, for this user alone."""
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
    with suppress(OSError):  # closed: the work is done
        while True:
            connection, _ = listening.accept()
            Thread(target=_answer_all, args=(connection, url), daemon=True).start()


def _answer_all(connection: socket.socket, url: str) -> None:
    """Answer one worker until it ends, or sends what is no request."""
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
    """The bytes `start` to `end` of the object at the relative `path`; if `end` is 0, what is known of it, in JSON."""
    if ".." in path.split("/"):
        raise FileNotFoundError
    system, name = remote.system_of(url, path)
    if end:
        return bytes(system.cat_file(name, start=start, end=min(end, start + MOST)))
    info = system.info(name)
    return json.dumps({"size": info["size"] or 0, "type": info["type"], "ETag": remote.version_of(info)}).encode()


class Fetching:
    """The part of a file system that reading needs, answered through the connection at `address`."""

    def __init__(self, address: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        self._file = connection.makefile("rwb")

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """The object's bytes from `start` to before `end`; raises what the storage raised."""
        return self._ask(name, start, end)

    def info(self, name: str) -> dict[str, Any]:
        """The object's size, type and version; raises what the storage raised."""
        found: dict[str, Any] = json.loads(self._ask(name, 0, 0))
        return found

    def _ask(self, name: str, start: int, end: int) -> bytes:
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
