"""What MLflow has not heard yet: one folder per run, written where a server does not answer, sent by a later run.

Belongs here: those folders, their locks and their limits. Not here: what is told, and how (records.py).

A run holds its folder's lock, which the operating system frees when the process dies. So a folder whose lock is free
belongs to a run that is over: what is left in it is sent, and a run that never said its end was killed.
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
from resources.records import RECORDS, End, Record

MOST_RUNS = 1000
MOST_BYTES = 8 * 2**30
"""Of all files that are kept for later; the encoders themselves are in the store anyway."""
ATTEMPTS_AFTER = (600, 3600, 21_600, 86_400)
"""Seconds after which a run is sent again to a server that answers and yet fails to take it; then it is given up."""

_START, _RECORDS, _FILES = "start.json", "records.jsonl", "files"


class Start(BaseModel):
    """How a run begins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    name: str
    tags: dict[str, str]
    at: int
    """Milliseconds since 1970."""
    run_id: str = ""
    """Once MLflow knows the run."""
    attempts: int = 0
    """How often a server has answered and failed to take the run."""
    not_before: int = 0
    """Milliseconds since 1970, of the next attempt."""


@dataclass
class Unsent:
    """The folder of one run, whose lock this process holds."""

    folder: Path
    start: Start
    _lock: FileLock
    _kept: int = 0

    def update(self, **changes: str | int) -> None:
        """Note what has become known of the run."""
        self.start = self.start.model_copy(update=changes)
        write_text(self.folder / _START, self.start.model_dump_json())

    @property
    def is_due(self) -> bool:
        """Whether the run is to be sent by now."""
        return self.start.not_before <= time.time() * 1000

    @property
    def is_given_up(self) -> bool:
        """Whether it has failed once more after the last wait."""
        return self.start.attempts > len(ATTEMPTS_AFTER)

    def note_failure(self) -> None:
        """Count an attempt that has failed, and put off the next one."""
        done = self.start.attempts
        wait = ATTEMPTS_AFTER[min(done, len(ATTEMPTS_AFTER) - 1)]
        self.update(attempts=done + 1, not_before=int((time.time() + wait) * 1000))

    def keep(self, record: Record) -> None:
        """Keep `record`, its files copied; raises `OSError` where there is no room for them."""
        files = [path for named in record.files for path in (named.rglob("*") if named.is_dir() else [named])]
        if files:
            size = sum(path.stat().st_size for path in files)
            if _size(self.folder.parent) + size > MOST_BYTES:
                raise OSError(f"more than {MOST_BYTES >> 30} GiB wait for MLflow")
            record = record.kept(self.folder / _FILES / str(self._kept))
        with open(self.folder / _RECORDS, "a", encoding="utf-8") as lines:
            lines.write(record.model_dump_json() + "\n")
        self._kept += 1

    @property
    def is_empty(self) -> bool:
        """Whether MLflow has heard it all."""
        return bool(self.start.run_id) and not (self.folder / _RECORDS).exists()

    def records(self) -> list[Record]:
        """What is to be sent, an end among it; a line that was cut short by a crash is left out."""
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
        """Let go of the folder, which stays for a later run."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the folder, lock and all."""
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def begin(root: Path, start: Start) -> Unsent:
    """A new folder in `root`; the oldest ones are given up where there are too many."""
    make_folder(root)
    for unsent in islice(over(root), max(0, len(_folders(root)) - MOST_RUNS + 1)):
        unsent.remove()
    name = f"{start.at:013d}-{uuid4().hex[:8]}"
    lock = _lock(root / name)
    lock.acquire()  # before the folder is there, so that nobody else takes it for a dead run's
    unsent = Unsent(root / name, start, lock)
    unsent.update()
    return unsent


def over(root: Path) -> Iterator[Unsent]:
    """The folders in `root` of runs that are over, oldest first, each held until the next is asked for."""
    for folder in _folders(root):
        lock = _lock(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield Unsent(folder, Start.model_validate_json((folder / _START).read_bytes()), lock)
        except (FileNotFoundError, ValidationError):  # somebody else has sent it meanwhile, or a crash cut it short
            Unsent(folder, Start(experiment="", name="", tags={}, at=0), lock).remove()
        finally:
            lock.release()


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*") if path.is_dir())


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"), thread_local=False)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
