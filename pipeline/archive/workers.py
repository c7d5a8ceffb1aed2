"""Work on files in other processes, where a crash costs one file.

Belongs here: the process pool. Not here: what is done to a file.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from multiprocessing.context import BaseContext
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 16
"""Items sent to a worker at once: sending them one by one costs as much as reading a header."""


class Crashed:
    """In place of a result: the worker process died while it worked on the item, and did so again with it alone."""


def each_in_worker(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result | Crashed]:
    """`work(item)` for each of `items`, in their order, in as many processes as there are processors.

    `work` is a module's function; what it raises is raised here. Few chunks are under way at a time, so memory does
    not grow with the number of items.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    remaining = iter(items)
    under_way: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    with ProcessPool(max_workers=workers, initializer=_mute, context=_context()) as pool:
        try:
            while True:
                while len(under_way) < 4 * workers and (chunk := list(islice(remaining, CHUNK))):
                    under_way.append((chunk, pool.schedule(_all, args=(work, chunk))))
                if not under_way:
                    return
                yield from _results(pool, work, *under_way.popleft())
        finally:
            for _, future in under_way:
                future.cancel()


def _results(
    pool: ProcessPool, work: Callable[[Item], Result], chunk: list[Item], future: "Future[list[Result]]"
) -> Iterator[Result | Crashed]:
    """The results of a chunk; where its worker died, of each of its items alone."""
    try:
        yield from future.result()
    except ProcessExpired:
        for item in chunk:
            try:
                yield pool.schedule(_all, args=(work, [item])).result()[0]
            except ProcessExpired:
                yield Crashed()


def _all(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


def _mute() -> None:
    """Native decoders print to the terminal, and what they print can quote the file."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _context() -> BaseContext:
    """A fork server where there is one: quick, and safe beside the threads of torch and Dagster; else spawn."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.archive.header", "pipeline.archive.pixels"])
    return context
