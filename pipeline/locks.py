"""Locks of the store: who may change the archive's tables and caches, and who trains.

Belongs here: waiting for a lock that the operating system frees when its holder dies. Not here: what is done under it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.files import make_folder
from pipeline.progress import Log
from pipeline.store import Store


@contextmanager
def hold_lock(path: Path, log: Log, waiting: str) -> Iterator[None]:
    """Hold the lock file at `path`; if another process holds it, pass the line `waiting` to `log` and wait."""
    make_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def archive_lock(store: Store, log: Log) -> Iterator[None]:
    """Hold the store's index and image caches: one process at a time reads the archive, or forgets a patient."""
    with hold_lock(
        store.locks / "archive.lock", log, "Waiting for another process that reads the archive or erases a patient."
    ):
        yield


@contextmanager
def tables_lock(store: Store, log: Log) -> Iterator[None]:
    """Hold the tables that follow from index and images, from reading their inputs to writing them.

    Who needs `archive_lock`, too, takes that first.
    """
    with hold_lock(
        store.locks / "tables.lock", log, "Waiting for another process that writes tables or erases a patient."
    ):
        yield


@contextmanager
def block_training(lock_file: Path) -> Iterator[None]:
    """Keep trainings from starting; raises `UserError` if one is under way."""
    make_folder(lock_file.parent)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            "A training is under way, whose images must not change: stop it or wait until it ends, then run the "
            "command again."
        ) from None
    try:
        yield
    finally:
        lock.release()
