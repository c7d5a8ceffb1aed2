"""An archive that has grown large: scanning it again, and the memory that takes.

Belongs here: many small files. Not here: decoding.
"""

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
from pipeline.recipe import Archive

FILES = 200_000
MILLION = 1_000_000


def measure(phantom: Path, work: Path) -> list[Row]:
    """One row: scanning 200,000 files of which none has changed."""
    archive, private = work / "archive", work / "private"
    tiny_archive(phantom, archive, FILES)
    _index(archive, private)
    return [
        compare(
            "scan an archive in which nothing changed",
            "files",
            FILES,
            lambda: _index(archive, private),
            lambda: _plain_walk(archive),
            "os.walk and os.stat, remembering nothing",
        )
    ]


def million(phantom: Path, work: Path, log: Log) -> list[Figure]:
    """Time and memory of indexing 1,000,000 files, and of scanning them again, with the same of a tenth of them."""
    figures = []
    for count in (MILLION // 10, MILLION):
        archive, private = work / f"archive-{count}", work / f"private-{count}"
        log(f"Making {count:,} files.")
        tiny_archive(phantom, archive, count)
        for what in ("index", "scan again"):
            log(f"{what}: {count:,} files.")
            seconds, peak = _apart(_index, archive, private)
            figures.append(Figure(f"{what}, {count:,} files", f"{count / seconds:,.0f} files/s, {peak / 1e6:,.0f} MB"))
    return figures


def _index(archive: Path, private: Path) -> None:
    index_archive(str(archive), private, PUBLIC_DEMO_KEY, Archive())


def _plain_walk(archive: Path) -> list[os.stat_result]:
    return [os.stat(os.path.join(folder, name)) for folder, _, names in os.walk(archive) for name in names]  # noqa: PTH116, PTH118


def _apart(work: Callable[[Path, Path], None], *arguments: Path) -> tuple[float, int]:
    """Seconds that `work` takes in a process of its own, and the most bytes that it and its workers held.

    The sum of their proportional set sizes, looked at ten times a second: a page that two share counts half in each.
    """
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    started, peak = time.perf_counter(), 0
    process.start()
    while process.is_alive():
        peak = max(peak, sum(map(_held, _family(process.pid or 0))))
        process.join(0.1)
    if process.exitcode:
        raise RuntimeError("The process that was measured failed.")
    return time.perf_counter() - started, peak


def _family(pid: int) -> Iterator[int]:
    """A process and all that descend from it, as /proc has them."""
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
