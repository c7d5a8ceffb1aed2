"""Work on files in other processes, where a crash, hang, memory blow-up or unexpected error loses one file.

Belongs here: the process pool and its limits, when failures stop a run. Not here: what is done to a file.
"""

import multiprocessing
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Semaphore
from typing import Any, Final, TypeVar

from pebble import ProcessExpired, ProcessPool

from pipeline.archive.fetch_proxy import Fetching, serving
from pipeline.archive.location import is_remote
from pipeline.archive.remote import go_through
from pipeline.archive.sandbox import confine
from pipeline.dicom.rejections import Reason, Rejection, UnreadableFile
from pipeline.errors import UnreachableError, is_transient

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK: Final = 16
"""Items sent to a worker at once, unless told otherwise: one by one, sending costs as much as reading a header."""
MEMORY: Final = 2**31
"""Bytes that a worker may hold: 2 GiB, four times the largest frame that is decoded."""
SECONDS: Final = 30.0
"""The longest that a worker may take over one item."""
_START_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of a result: why the work on this item gave none."""

    rejection: Rejection


TRIES: Final = 3
"""Runs in which reading one state of a file may be interrupted; then it is over the limits, and not read again."""

_DIED = Failed(Rejection(Reason.CRASHED, "the reading process died"))
_ENDED = Failed(Rejection(Reason.INTERRUPTED, "the reading process was ended from outside, as where memory runs out"))
_TOO_SLOW = Failed(Rejection(Reason.INTERRUPTED, "reading took too long"))
_TOO_MUCH = Failed(Rejection(Reason.OVER_LIMITS, "reading takes more processor time than a worker may spend"))
_PROCESSOR_SHARE = 0.5
"""Of a worker's time over one item, what its processors may spend: a file that needs more is itself too slow, while a
worker that waits for a disk or share spends none."""
_SPENT = -signal.SIGPROF if hasattr(signal, "SIGPROF") else None
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM} if hasattr(signal, "SIGKILL") else set()


def after_tries(rejection: Rejection, tries: int) -> Rejection:
    """`rejection`, or the settled one that takes its place where reading was interrupted in `tries` runs."""
    if rejection.reason is Reason.INTERRUPTED and tries >= TRIES:
        return Rejection(Reason.OVER_LIMITS, f"{rejection.detail}, in {tries} runs")
    return rejection


class FaultWatch:
    """Stops a run in which half of the latest files fail for what may pass, as on a share that hangs."""

    _LATEST = 20

    def __init__(self) -> None:
        self._latest: deque[bool] = deque(maxlen=self._LATEST)

    def note(self, result: object) -> None:
        """Count the result of one file; raises `UnreachableError` where too many of the latest have failed."""
        failed = isinstance(result, Failed) and not result.rejection.reason.is_settled
        self._latest.append(failed or (isinstance(result, UnreadableFile) and result.is_transient))
        if 2 * sum(self._latest) >= self._LATEST:
            raise UnreachableError(
                f"{sum(self._latest)} of the last {len(self._latest)} archive files could not be read, or not in time: "
                "the disk or share that holds SONOTAG_ARCHIVE does not answer as it should; run again when it does."
            )


def each_in_worker(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    seconds: float = SECONDS,
    chunk: int = CHUNK,
    readable: Sequence[str] | None = None,
) -> Iterator[Result | Failed]:
    """`work(item)` for each of `items`, in their order, in as many processes as there are processors.

    `work` can be pickled. Where it raises anything, where its result cannot be sent back, or where its worker dies,
    takes more than `seconds` over one item or asks for more than `MEMORY` bytes, that item's result is `Failed`, and
    the others have theirs. `chunk` items are sent at once, and few chunks are under way at a time, so memory does not
    grow with the number of items. Where the kernel offers the means, a worker can read the files and folders
    `readable` (of a `work` with the attribute `archive` that archive), write nowhere and connect to nothing
    (`sandbox`); the objects of a remote archive are fetched for it by this process (`fetching`).
    """
    if readable is None:
        readable = [work.archive] if hasattr(work, "archive") else []
    with _fetching(readable) as address:
        yield from _each(work, items, seconds, chunk, (work, [*readable], address))


@contextmanager
def _fetching(readable: Sequence[str]) -> Iterator[str]:
    """Where workers connect to have objects fetched of a remote archive among `readable`; "" where there is none."""
    urls = [url for url in readable if is_remote(url)]
    with serving(urls[0]) if urls else nullcontext("") as address:
        yield address


def _each(
    work: Callable[[Item], Result], items: Iterable[Item], seconds: float, chunk: int, setting: tuple[Any, ...]
) -> Iterator[Result | Failed]:
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    batches = _batched(items, chunk)
    first = list(islice(batches, workers))  # a process without work would be ended while it still starts
    batches = chain(first, batches)
    if not first:
        return
    under_way: deque[tuple[list[Item], Future[list[Result | Failed]]]] = deque()
    context = _context()
    started = context.Semaphore(0)
    with ProcessPool(
        max_workers=len(first), initializer=_prepare, initargs=(started, *setting), context=context
    ) as pool:
        try:
            while True:
                for batch in islice(batches, 4 * workers - len(under_way)):
                    under_way.append(
                        (batch, pool.schedule(_all, args=(batch, seconds * _PROCESSOR_SHARE), timeout=seconds))
                    )
                if not under_way:
                    return
                batch, future = under_way.popleft()
                yield from _results(pool, batch, future, seconds)
        finally:
            for _, future in under_way:
                future.cancel()
            for _ in first:  # a process that is ended while it starts prints a traceback
                started.acquire(timeout=_START_SECONDS)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _results(
    pool: ProcessPool, batch: list[Item], future: "Future[list[Result | Failed]]", seconds: float
) -> Iterator[Result | Failed]:
    """The results of a batch; where its worker failed, of each of its items alone."""
    try:
        yield from future.result()
    except Exception:  # of one item, or of sending a result: tried alone, each item has its own outcome
        for item in batch:
            yield _alone(pool, item, seconds)


def _alone(pool: ProcessPool, item: Any, seconds: float) -> Any:
    try:
        return pool.schedule(_all, args=([item], seconds * _PROCESSOR_SHARE), timeout=seconds).result()[0]
    except ProcessExpired as expired:
        if expired.exitcode == _SPENT:
            return _TOO_MUCH
        return _ENDED if expired.exitcode in _FROM_OUTSIDE else _DIED
    except TimeoutError:
        return _TOO_SLOW
    except MemoryError:
        return Failed(Rejection(Reason.OVER_LIMITS, "reading asks for more memory than a worker may hold"))
    except Exception as error:
        return _stopped(error)


_work: list[Callable[[Any], Any]] = []
"""In a worker, what it is there for: sent when it starts, since no code can be loaded once it is confined."""


def _all(items: Sequence[Any], processor_seconds: float) -> list[Any]:
    return [_one(_work[0], item, processor_seconds) for item in items]


def _one(work: Callable[[Item], Result], item: Item, processor_seconds: float) -> Result | Failed:
    try:
        _limit_processor(processor_seconds)
        return work(item)
    except MemoryError:
        raise  # other items of the chunk may hold most of it: each is tried alone
    except BaseException as error:  # a panic of a library written in Rust is no Exception, and SystemExit is none
        return _stopped(error)
    finally:
        _limit_processor(0)


def _limit_processor(seconds: float) -> None:
    """End this process by SIGPROF once its threads have spent `seconds` from now on; 0 lifts the limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _stopped(error: BaseException) -> Failed:
    """The outcome of an item over which `error` was raised; its type alone, since messages quote values and paths."""
    if is_transient(error) or isinstance(error, PermissionError):
        return Failed(Rejection(Reason.UNREADABLE, f"reading stopped with {type(error).__name__}"))
    return Failed(Rejection(Reason.CRASHED, f"reading stopped with {type(error).__name__}"))


def _prepare(started: Semaphore, work: Callable[[Any], Any], readable: Sequence[str], address: str) -> None:
    """Silence, limit and confine a new worker: native decoders print, and what they print can quote the file."""
    started.release()
    _work[:] = [work]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - not there on every system

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would be a copy of patients' pixels
    if address:
        go_through(Fetching(address))
    confine(path for path in readable if not is_remote(path))


def _context() -> BaseContext:
    """A fork server where there is one: quick, and safe beside the threads of torch and Dagster; else spawn.

    It starts without the variables of this process's environment, keys and passwords among them, that Python and its
    libraries do not need; what it starts with, no process can forget.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.archive.header_reader", "pipeline.archive.frame_reader"])
    _start_fork_server()
    return context


@cache
def _start_fork_server() -> None:
    """Start it without what `os.environ`, which stays as it is, does not have to hand on."""
    kept = {name: value for name, value in os.environ.items() if not _NEEDED.fullmatch(name)}
    for name in kept:
        os.unsetenv(name)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            os.putenv(name, value)


_NEEDED: Final = re.compile("(PATH|LANG|TZ|HOME|TMPDIR|SYSTEMROOT|(PYTHON|LC_|LD_|DYLD_|OMP_|GOMP_|OPENBLAS_|MKL_).*)")
