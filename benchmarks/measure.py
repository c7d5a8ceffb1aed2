"""Timing of alternating runs, and the tables that benchmarks print."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPEATS = 3


@dataclass(frozen=True)
class Row:
    """One comparison: units per second of the project and of its peer."""

    what: str
    unit: str
    ours: float
    peer: float
    peer_is: str


@dataclass(frozen=True)
class Figure:
    """One absolute figure without a peer."""

    what: str
    value: str


def compare(
    what: str, unit: str, count: int, ours: Callable[[], object], peer: Callable[[], object], peer_is: str
) -> Row:
    """Time both alternately, so that load on the machine affects both; medians of `REPEATS` runs."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(REPEATS):
        for name, run in (("ours", ours), ("peer", peer)):
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return Row(what, unit, count / statistics.median(times["ours"]), count / statistics.median(times["peer"]), peer_is)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, with the machine's description."""
    lines = [
        f"{_machine()}; medians of {REPEATS} alternating runs.",
        "",
        "| what | sonotag | peer | ratio | the peer |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {r.what} | {r.ours:,.0f} {r.unit}/s | {r.peer:,.0f} {r.unit}/s | {r.ours / r.peer:.2f}× | {r.peer_is} |"
        for r in rows
    ]
    return "\n".join(lines)


def figures_table(figures: Sequence[Figure]) -> str:
    """The figures as Markdown, with the machine's description."""
    rows = [f"| {figure.what} | {figure.value} |" for figure in figures]
    return "\n".join([f"{_machine()}.", "", "| what | measured |", "| --- | ---: |", *rows])


def _machine() -> str:
    return f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
