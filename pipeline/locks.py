"""File locks of the store, which the operating system releases when their holder dies."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.files import make_folder
from pipeline.progress import Log
from pipeline.store import Store


@contextmanager
def hold_lock(path: Path, log: Log, waiting: str) -> Iterator[None]:
    """Hold the lock file at `path`; if another process holds it, log the line `waiting` and wait."""
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        log(waiting)
        held = lock.acquire()
    with held:
        yield


def archive_lock(store: Store, log: Log) -> AbstractContextManager[None]:
    """Hold the lock of index and image caches: one process at a time reads the archive or erases a patient."""
    waiting = "Waiting for another process that reads the archive or erases a patient."
    return hold_lock(store.locks / "archive.lock", log, waiting)


def tables_lock(store: Store, log: Log) -> AbstractContextManager[None]:
    """Hold the lock of the tables derived from index and images, from reading their inputs to writing them.

    To hold both locks, take `archive_lock` first.
    """
    waiting = "Waiting for another process that writes tables or erases a patient."
    return hold_lock(store.locks / "tables.lock", log, waiting)


@contextmanager
def block_training(lock_file: Path) -> Iterator[None]:
    """Keep trainings from starting; raises `UserError` if one is running."""
    make_folder(lock_file.parent)
    try:
        held = FileLock(lock_file).acquire(timeout=0)
    except Timeout:
        raise UserError(
            "A training is running, and its images must not change: stop it or wait until it ends, then run this again."
        ) from None
    with held:
        yield
