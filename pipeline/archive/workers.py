"""Processes files in confined workers, in which a crash, hang, memory blow-up or unexpected error loses one file."""

import multiprocessing
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Semaphore
from typing import Any, Final, TypeVar

from pebble import ProcessExpired, ProcessPool

from pipeline.archive.fetch_proxy import ProxyFileSystem, serving
from pipeline.archive.location import is_remote
from pipeline.archive.remote import use_proxy
from pipeline.archive.sandbox import confine
from pipeline.dicom.rejections import Reason, Rejection, UnreadableFile
from pipeline.errors import UnreachableError, is_transient

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK: Final = 16
"""Default number of items sent to a worker at once: sending one costs as much as reading a header."""
MEMORY: Final = 2**31
"""Maximum memory of a worker in bytes: 2 GiB, four times the largest frame that is decoded."""
SECONDS: Final = 30.0
"""Default time limit per item."""
_START_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Failed:
    """Takes the place of a result: the reason why there is none."""

    rejection: Rejection


TRIES: Final = 3
"""Runs in which reading a state of a file may be interrupted before it counts as over the limits."""

_DIED = Failed(Rejection(Reason.CRASHED, "the reading process died"))
_ENDED = Failed(Rejection(Reason.INTERRUPTED, "the reading process was ended from outside, as when memory runs out"))
_TOO_SLOW = Failed(Rejection(Reason.INTERRUPTED, "reading took too long"))
_TOO_MUCH = Failed(Rejection(Reason.OVER_LIMITS, "reading takes more processor time than a worker may spend"))
_PROCESSOR_SHARE = 0.5
"""Share of the time limit that may be processor time: a file that exceeds it is itself too slow, while a worker that
waits for a disk or share uses none."""
_SPENT = -signal.SIGPROF if hasattr(signal, "SIGPROF") else None
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM} if hasattr(signal, "SIGKILL") else set()


def after_tries(rejection: Rejection, tries: int) -> Rejection:
    """`rejection`, or the settled one that replaces it after `tries` interrupted runs."""
    if rejection.reason is Reason.INTERRUPTED and tries >= TRIES:
        return Rejection(Reason.OVER_LIMITS, f"{rejection.detail}, in {tries} runs")
    return rejection


class FaultWatch:
    """Stops a run if half of the latest files fail with transient errors, as on a share that hangs."""

    _LATEST = 20

    def __init__(self) -> None:
        self._latest: deque[bool] = deque(maxlen=self._LATEST)

    def note(self, result: object) -> None:
        """Count the result of one file; raises `UnreachableError` if too many of the latest have failed."""
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
    readable: Sequence[str] = (),
) -> Iterator[Result | Failed]:
    """`work(item)` for each of `items`, in order, in one process per processor; `work` must be picklable.

    An item's result is `Failed` if `work` raises, the result cannot be sent back, or the worker dies, takes more than
    `seconds` or needs more than `MEMORY` bytes. Sends `chunk` items at once and keeps few chunks pending, which bounds
    memory. If the kernel supports it, workers can only read `readable` (files, folders, one remote archive), write
    nothing and open no connection (`sandbox`); this process fetches a remote archive's objects for them
    (`fetch_proxy`).
    """
    urls = [url for url in readable if is_remote(url)]
    with serving(urls[0]) if urls else nullcontext("") as proxy:
        remaining = iter(items)
        batches = iter(lambda: list(islice(remaining, chunk)), [])
        yield from _each(batches, seconds, (work, [*readable], proxy))


def _each(
    batches: Iterator[list[Any]], seconds: float, setting: tuple[Callable[[Any], Any], list[str], str]
) -> Iterator[Any]:
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    first = list(islice(batches, workers))  # a process without work would be ended during its start
    batches = chain(first, batches)
    if not first:
        return
    pending: deque[tuple[list[Any], Future[list[Any]]]] = deque()
    context = _context()
    started = context.Semaphore(0)
    with ProcessPool(
        max_workers=len(first), initializer=_prepare, initargs=(started, *setting), context=context
    ) as pool:
        try:
            while True:
                for batch in islice(batches, 4 * workers - len(pending)):
                    pending.append((batch, _scheduled(pool, batch, seconds)))
                if not pending:
                    return
                batch, future = pending.popleft()
                yield from _results(pool, batch, future, seconds)
        finally:
            for _, future in pending:
                future.cancel()
            for _ in first:  # a process that is ended during its start prints a traceback
                started.acquire(timeout=_START_SECONDS)


def _scheduled(pool: ProcessPool, batch: list[Any], seconds: float) -> "Future[list[Any]]":
    return pool.schedule(_all, args=(batch, seconds * _PROCESSOR_SHARE), timeout=seconds)


def _results(pool: ProcessPool, batch: list[Any], future: "Future[list[Any]]", seconds: float) -> Iterator[Any]:
    """The results of a batch; if its worker failed, of each of its items alone."""
    try:
        yield from future.result()
    except Exception:  # in one item or in sending a result; alone, each item gets its own outcome
        for item in batch:
            yield _alone(pool, item, seconds)


def _alone(pool: ProcessPool, item: Any, seconds: float) -> Any:
    try:
        return _scheduled(pool, [item], seconds).result()[0]
    except ProcessExpired as expired:
        if expired.exitcode == _SPENT:
            return _TOO_MUCH
        return _ENDED if expired.exitcode in _FROM_OUTSIDE else _DIED
    except TimeoutError:
        return _TOO_SLOW
    except MemoryError:
        return Failed(Rejection(Reason.OVER_LIMITS, "reading needs more memory than a worker may use"))
    except Exception as error:
        return _stopped(error)


_work: list[Callable[[Any], Any]] = []
"""In a worker, its function, sent at its start, since a confined worker cannot load code."""


def _all(items: Sequence[Any], processor_seconds: float) -> list[Any]:
    return [_one(_work[0], item, processor_seconds) for item in items]


def _one(work: Callable[[Item], Result], item: Item, processor_seconds: float) -> Result | Failed:
    try:
        _limit_processor(processor_seconds)
        return work(item)
    except MemoryError:
        raise  # other items of the chunk may use most of it; retried alone
    except BaseException as error:  # a Rust panic and SystemExit are not Exceptions
        return _stopped(error)
    finally:
        _limit_processor(0)


def _limit_processor(seconds: float) -> None:
    """Let SIGPROF end this process after `seconds` of processor time of its threads; 0 removes the limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _stopped(error: BaseException) -> Failed:
    """The outcome for `error`, with its type only, since messages quote values and paths."""
    if is_transient(error) or isinstance(error, PermissionError):
        return Failed(Rejection(Reason.UNREADABLE, f"reading stopped with {type(error).__name__}"))
    return Failed(Rejection(Reason.CRASHED, f"reading stopped with {type(error).__name__}"))


def _prepare(started: Semaphore, work: Callable[[Any], Any], readable: Sequence[str], address: str) -> None:
    """Silence, limit and confine a new worker; native decoders print text that can quote the file."""
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
        use_proxy(ProxyFileSystem(address))
    confine(path for path in readable if not is_remote(path))


def _context() -> BaseContext:
    """A fork server if available: fast, and safe beside the threads of torch and Dagster; else spawn.

    It starts without environment variables that Python and its libraries do not need, such as keys and passwords,
    since a process cannot erase the environment that it started with.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.archive.header_reader", "pipeline.archive.frame_reader"])
    _start_fork_server()
    return context


@cache
def _start_fork_server() -> None:
    """Start it with the needed part of `os.environ`, which stays unchanged."""
    kept = {name: value for name, value in os.environ.items() if not _NEEDED.fullmatch(name)}
    for name in kept:
        os.unsetenv(name)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            os.putenv(name, value)


_NEEDED: Final = re.compile("(PATH|LANG|TZ|HOME|TMPDIR|SYSTEMROOT|(PYTHON|LC_|LD_|DYLD_|OMP_|GOMP_|OPENBLAS_|MKL_).*)")
