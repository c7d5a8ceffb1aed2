"""Runs each side of a comparison in its own process, so that neither changes the other's settings."""

import traceback
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

Parts = Mapping[str, Callable[[], Any]]
"""The functions that a process can run, by name."""


class IsolatedProcess:
    """A new process that runs the functions of `make(*arguments)` on request; `make` is a module-level function."""

    def __init__(self, make: Callable[..., Parts], *arguments: Any) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()  # otherwise `recv` would not fail when the process ends

    def __call__(self, part: str) -> Any:
        """Run `part` there and return its result. Raises RuntimeError if it fails."""
        try:
            self._pipe.send(part)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("The measured process failed.") from None

    def __enter__(self) -> "IsolatedProcess":
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
    except EOFError:  # the parent closed the pipe: done
        pass
    except Exception:
        traceback.print_exc()
