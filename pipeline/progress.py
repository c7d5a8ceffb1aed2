"""Progress of long work: a bar on a terminal, occasional lines in a log."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

Log = Callable[[str], None]

LINE_EVERY_SECONDS = 15.0


def silent(_: str) -> None:
    """A `Log` that discards its lines."""


class Progress:
    """Progress over `total` units: a bar on a terminal, and lines with rate and remaining time through `log`.

    A context manager around a loop that calls `advance` once per unit or batch of units.
    """

    def __init__(self, what: str, total: int, unit: str, log: Log = silent) -> None:
        self._what, self._total, self._unit, self._log = what, total, unit, log
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar = tqdm(desc=what, total=total, unit=f" {unit}", disable=not sys.stderr.isatty(), leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()
        if error is None and self._done:
            self._log(self._line(time.monotonic()))

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            self._log(self._line(now))

    def _line(self, now: float) -> str:
        rate = self._done / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        return f"{self._what}: {self._done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left"
