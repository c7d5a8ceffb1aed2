"""Speed and memory of indexing and rescanning a large archive of small files."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.archives import tiny_archive
from benchmarks.measure import Figure, Row, compare
from pipeline.archive.scan import index_archive
from pipeline.privacy.identity import PUBLIC_DEMO_KEY
from pipeline.progress import Log
from pipeline.recipe.archive import Archive

FILES = 200_000
MILLION = 1_000_000


def measure(phantom: Path, work: Path) -> list[Row]:
    """One row: scanning 200,000 unchanged files."""
    archive, private = work / "archive", work / "private"
    tiny_archive(phantom, archive, FILES)
    _index(archive, private)
    return [
        compare(
            "scan an unchanged archive",
            "files",
            FILES,
            lambda: _index(archive, private),
            lambda: _plain_walk(archive),
            "os.walk and os.stat, without a record",
        )
    ]


def million(phantom: Path, work: Path, log: Log) -> list[Figure]:
    """Time and memory of indexing and rescanning 100,000 and 1,000,000 files."""
    figures = []
    for count in (MILLION // 10, MILLION):
        archive, private = work / f"archive-{count}", work / f"private-{count}"
        log(f"Making {count:,} files.")
        tiny_archive(phantom, archive, count)
        for what in ("index", "scan again"):
            log(f"{what}: {count:,} files.")
            seconds, peak = _time_and_peak(_index, archive, private)
            figures.append(Figure(f"{what}, {count:,} files", f"{count / seconds:,.0f} files/s, {peak / 1e6:,.0f} MB"))
    return figures


def _index(archive: Path, private: Path) -> None:
    index_archive(str(archive), private, PUBLIC_DEMO_KEY, Archive())


def _plain_walk(archive: Path) -> list[os.stat_result]:
    return [os.stat(os.path.join(folder, name)) for folder, _, names in os.walk(archive) for name in names]  # noqa: PTH116, PTH118


def _time_and_peak(work: Callable[[Path, Path], None], *arguments: Path) -> tuple[float, int]:
    """Seconds that `work` takes in its own process, and the peak memory of that process and its workers, in bytes.

    Sums proportional set sizes ten times a second: a page that two processes share counts half in each.
    """
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    started, peak = time.perf_counter(), 0
    process.start()
    while process.is_alive():
        peak = max(peak, sum(map(_held, _family(process.pid or 0))))
        process.join(0.1)
    if process.exitcode:
        raise RuntimeError("The measured process failed.")
    return time.perf_counter() - started, peak


def _family(pid: int) -> Iterator[int]:
    """The ids of a process and all its descendants, from /proc."""
    yield pid
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _held(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
