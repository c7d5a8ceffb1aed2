"""Tests in a worker which protections against hostile files hold on this machine."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.archive.sandbox import PROTECTIONS
from pipeline.archive.workers import Failed, each_in_worker

NOT_HELD: Final = "NOT HELD on this machine"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker attempts: to read the file `secret`, to connect to a loopback `port`, to create `created`."""

    secret: str
    port: int
    created: str


def attempted(attempt: Attempt) -> tuple[bool, bool, bool]:
    """Which of `PROTECTIONS` hold in this process: whether each part of `attempt` was refused."""
    return (
        _is_refused(lambda: Path(attempt.secret).read_bytes()),
        _is_refused(lambda: socket.create_connection(("127.0.0.1", attempt.port), timeout=5).close()),
        _is_refused(lambda: Path(attempt.created).touch()),
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
        secret = Path(folder, "secret")
        secret.touch()
        attempt = Attempt(str(secret), listening.getsockname()[1], str(Path(folder, "created")))
        [held] = each_in_worker(attempted, [attempt])
    return dict(zip(PROTECTIONS, (False,) * 3 if isinstance(held, Failed) else held, strict=True))


def protection_lines(held: dict[str, bool]) -> Iterator[str]:
    """A line for each protection."""
    return (f"{protection}: {'holds' if holds else NOT_HELD}" for protection, holds in held.items())
