"""Tests in a worker which protections against hostile files hold on this machine."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from pipeline.archive.sandbox import PROTECTIONS
from pipeline.archive.workers import Failed, each_in_worker

NOT_HELD: Final = "NOT HELD on this machine"


def attempted(folder: str, port: int) -> tuple[bool, bool, bool]:
    """Which of `PROTECTIONS` hold in this process: whether each attempt is refused.

    Attempts to read the file `secret` in `folder`, to connect to `port` of this machine, and to create a file.
    """
    return (
        _is_refused(lambda: Path(folder, "secret").read_bytes()),
        _is_refused(lambda: socket.create_connection(("127.0.0.1", port), timeout=5).close()),
        _is_refused(lambda: Path(folder, "created").touch()),
    )


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


def protections() -> dict[str, bool]:
    """Whether each of `PROTECTIONS` holds in a worker on this machine."""
    with tempfile.TemporaryDirectory() as folder, closing(socket.create_server(("127.0.0.1", 0))) as listening:
        Path(folder, "secret").touch()
        [held] = each_in_worker(partial(attempted, folder), [listening.getsockname()[1]])
    return dict(zip(PROTECTIONS, (False,) * 3 if isinstance(held, Failed) else held, strict=True))


def protection_lines(held: dict[str, bool]) -> Iterator[str]:
    """A line for each protection."""
    return (f"{protection}: {'holds' if holds else NOT_HELD}" for protection, holds in held.items())
