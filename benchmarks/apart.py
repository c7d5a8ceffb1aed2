"""Things that are measured in turns, each in a process of its own, so that none runs under another's settings.

Belongs here: such a process. Not here: timing (`measure`), what is measured.
"""

import traceback
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

Parts = Mapping[str, Callable[[], Any]]
"""What a process can be asked to run, by name."""


class Apart:
    """A new process that holds `make(*arguments)` and runs parts of it when asked; `make` is a module's function."""

    def __init__(self, make: Callable[..., Parts], *arguments: Any) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()  # or nobody would notice that the process has ended

    def __call__(self, part: str) -> Any:
        """Run `part` there and wait for what it returns; raises RuntimeError where it fails."""
        try:
            self._pipe.send(part)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("The process that was measured failed.") from None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, make: Callable[..., Parts], arguments: tuple[Any, ...]) -> None:
    try:
        parts = make(*arguments)
        while True:
            pipe.send(parts[pipe.recv()]())
    except EOFError:  # the other side has closed: nothing more to measure
        pass
    except Exception:
        traceback.print_exc()
