"""Pending runs: a folder per run with the records that MLflow has missed, which a later run delivers.

Not here: sending the records (`resources.mlflow_delivery`).

A run holds the lock of its folder; the operating system frees it when the process dies. A folder with a free lock
therefore belongs to a finished run, and a finished run without an end record was killed.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.files import make_folder, write_text
from resources.mlflow_records import RECORDS, End, Record

MAX_RUNS = 1000
MAX_BYTES = 8 * 2**30
"""Maximum size of all pending files; the store keeps the encoders themselves in any case."""
RETRY_DELAYS = (600, 3600, 21_600, 86_400)
"""Seconds before each further attempt to deliver a run to a server that responds but fails."""
MAX_ATTEMPTS = len(RETRY_DELAYS) + 1

_START, _RECORDS, _FILES = "start.json", "records.jsonl", "files"


class Start(BaseModel):
    """What MLflow needs to create a run, and the state of its delivery; times in milliseconds since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    name: str
    tags: dict[str, str]
    at: int
    run_id: str = ""
    """MLflow's id; empty until MLflow has created the run."""
    attempts: int = 0
    """Failed deliveries to a server that responded."""
    not_before: int = 0
    """Time of the next attempt."""


@dataclass
class PendingRun:
    """The folder of one run, locked by this process."""

    folder: Path
    start: Start
    _lock: FileLock
    _records: int = 0

    def update(self, **changes: str | int) -> None:
        """Change fields of `start`, in the folder too."""
        self.start = self.start.model_copy(update=changes)
        write_text(self.folder / _START, self.start.model_dump_json())

    @property
    def is_due(self) -> bool:
        """Whether the time of the next attempt has come."""
        return self.start.not_before <= time.time() * 1000

    @property
    def is_exhausted(self) -> bool:
        """Whether the last attempt has failed."""
        return self.start.attempts >= MAX_ATTEMPTS

    def count_failure(self) -> None:
        """Count a failed attempt and schedule the next one."""
        failed = self.start.attempts
        delay = RETRY_DELAYS[min(failed, len(RETRY_DELAYS) - 1)]
        self.update(attempts=failed + 1, not_before=int((time.time() + delay) * 1000))

    def append(self, record: Record) -> None:
        """Add `record` with copies of its files; raises `OSError` if they do not fit."""
        files = [path for named in record.files for path in (named.rglob("*") if named.is_dir() else [named])]
        if files:
            if _size(self.folder.parent) + sum(path.stat().st_size for path in files) > MAX_BYTES:
                raise OSError(f"more than {MAX_BYTES >> 30} GiB are pending")
            record = record.with_copies(self.folder / _FILES / str(self._records))
        with open(self.folder / _RECORDS, "a", encoding="utf-8") as lines:
            lines.write(record.model_dump_json() + "\n")
        self._records += 1

    @property
    def is_delivered(self) -> bool:
        """Whether MLflow has the run and missed no record."""
        return bool(self.start.run_id) and not (self.folder / _RECORDS).exists()

    def records(self) -> list[Record]:
        """The records, with an end; a line that a crash cut short is skipped."""
        found: list[Record] = []
        path = self.folder / _RECORDS
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                found.append(RECORDS.validate_json(line))
            except ValidationError:
                continue
        if not any(isinstance(record, End) for record in found):
            found.append(End(status="KILLED", at=int(time.time() * 1000)))
        return found

    def close(self) -> None:
        """Release the lock, so that a later run can deliver the folder."""
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder and its lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def create_pending_run(root: Path, start: Start) -> PendingRun:
    """A new folder in `root`; deletes the oldest ones if there are more than `MAX_RUNS`."""
    make_folder(root)
    for pending in islice(finished_runs(root), max(0, len(_folders(root)) - MAX_RUNS + 1)):
        pending.remove()
    name = f"{start.at:013d}-{uuid4().hex[:8]}"
    lock = _lock(root / name)
    lock.acquire()  # before the folder exists, so that no other process takes it for a finished run's
    pending = PendingRun(root / name, start, lock)
    pending.update()
    return pending


def finished_runs(root: Path) -> Iterator[PendingRun]:
    """The pending runs in `root` whose process has ended, oldest first; each is locked until the next is yielded."""
    for folder in _folders(root):
        lock = _lock(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield PendingRun(folder, Start.model_validate_json((folder / _START).read_bytes()), lock)
        except (FileNotFoundError, ValidationError):  # delivered by another process, or cut short by a crash
            PendingRun(folder, Start(experiment="", name="", tags={}, at=0), lock).remove()
        finally:
            lock.release()


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*") if path.is_dir())


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"), thread_local=False)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
