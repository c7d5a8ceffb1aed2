"""Counts the archive's new, changed and missing files, and decides when to read it again."""

import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.listing import LISTED, Origin, compare, list_files, listed_rows, read_known
from pipeline.archive.location import normalized
from pipeline.archive.missing_images import known_images, refuse_loss
from pipeline.errors import UserError
from pipeline.privacy.identity import key_check
from pipeline.recipe.automation import Automation

ATTEMPTS = 5
"""After so many failures on one state of the archive a person has to act."""
FIRST_WAIT_SECONDS = 600.0
LONGEST_BACKOFF_SECONDS = 6 * 3600.0
_COMPARED = [*LISTED.names, "container", "is_zip", "settled", "deleted"]


@dataclass(frozen=True)
class Arrivals:
    """The archive compared with the last scan, in numbers of files; a zip counts as one."""

    files: int
    new: int
    changed: int
    gone: int
    state: str
    """32 hex digits that change with the archive; made with the pseudonym key, so that they reveal no path."""
    loss: str = ""
    """Why the archive must not be read: too many images are missing."""

    @property
    def any(self) -> bool:
        """Whether reading the archive would find a difference."""
        return bool(self.new or self.changed or self.gone)

    def __str__(self) -> str:
        return f"{self.new} new, {self.changed} changed and {self.gone} gone of {self.files} files"


def arrivals(archive: str, private: Path, key: bytes, modalities: tuple[str, ...]) -> Arrivals:
    """Compare `archive`, a folder or URL, with the last scan's list in `private`, without opening a file.

    Raises as `source.walk`.
    """
    archive = normalized(archive)
    listed = list_files(archive)
    known = read_known(private, Origin(archive, key_check(key), modalities), _COMPARED)
    compared = compare(listed, known)
    there = known["path"].filter(pc.invert(known["deleted"]))
    seen_before = pc.is_in(compared.to_read["path"], value_set=there)
    changed = pc.sum(seen_before, min_count=0).as_py()
    gone = pc.and_(pc.invert(compared.gone["deleted"]), pc.is_null(compared.gone["container"]))
    state = hmac.new(key, b"the state of an archive\0", "sha256")
    for row in listed_rows(listed):
        state.update(f"{row.path}\0{row.size}\0{row.version}\n".encode("utf-8", "surrogateescape"))
    new, lost = compared.to_read.num_rows - changed, pc.sum(gone, min_count=0).as_py()
    loss = _loss(archive, private, listed) if new < lost else ""
    return Arrivals(listed.num_rows, new, changed, lost, state.hexdigest()[:32], loss)


def _loss(archive: str, private: Path, listed: pa.Table) -> str:
    """The error message for a large loss, else empty; a scan decides whether files were only moved."""
    before = known_images(private, archive)
    of_zips = before["path"].filter(pc.is_in(before["container"], value_set=listed["path"]))
    there = pa.concat_arrays([*listed["path"].chunks, *of_zips.chunks])
    try:
        refuse_loss(private, archive, before, there, pa.array([], pa.string()))
    except UserError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class ScanHistory:
    """Outcomes of earlier scans; times in seconds since the epoch."""

    last_read: str = ""
    """The state for which the last successful scan was requested; empty if a person started it."""
    cancelled: str = ""
    """The state for which the last scan was requested, if a person cancelled it."""
    failures: int = 0
    """Failed scans since the last successful one."""
    failed_states: tuple[str, ...] = ()
    """The states for which these were requested."""
    last_failure: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """What a sensor stores between ticks, of constant size."""

    state: str
    unchanged_since: float
    first_seen: float
    """Time at which the archive first differed from the last scan."""

    @staticmethod
    def read(text: str | None) -> "Waiting | None":
        """Parse `text`; None if it is empty or of another version."""
        try:
            return Waiting(**json.loads(text or "null"))
        except (TypeError, ValueError):
            return None

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Decision:
    """Read now, with `run_key`, or wait; `why` for a person."""

    why: str
    waiting: Waiting | None = None
    run_key: str = ""


def decide(now: float, waiting: Waiting | None, found: Arrivals, past: ScanHistory, settings: Automation) -> Decision:
    """Whether to read the archive now, given the arrivals `found` and the stored `waiting`.

    A burst is one scan, after the archive has not changed for `settings.settle_minutes`; an archive that keeps changing
    is read after `settings.longest_wait_hours`. A failed scan is retried after 10 minutes, then after twice as long
    each time, at most `ATTEMPTS` times while the archive does not change.
    """
    if found.loss or found.state == past.cancelled:
        return Decision(found.loss or "Reading the archive as it is was cancelled by a person.")
    if not past.failures and (found.state == past.last_read or not found.any):
        return Decision(f"Nothing new among {found.files} files.")
    attempts = past.failed_states.count(found.state)
    if attempts >= ATTEMPTS:
        return Decision(f"Reading the archive as it is has failed {attempts} times: a person has to look.")
    if waiting is None or waiting.state != found.state:
        waiting = Waiting(found.state, now, waiting.first_seen if waiting else now)
    pause = past.last_failure + backoff(past.failures) - now
    if past.failures and pause > 0:
        return Decision(f"The last run failed; the next try is in {_duration(pause)}.", waiting)
    quiet, waited = now - waiting.unchanged_since, now - waiting.first_seen
    if quiet < 60 * settings.settle_minutes and waited < 3600 * settings.longest_wait_hours:
        left = min(60 * settings.settle_minutes - quiet, 3600 * settings.longest_wait_hours - waited)
        return Decision(f"{found}: waiting {_duration(left)} for the archive to settle.", waiting)
    return Decision(f"{found}.", None, f"{found.state}-{waiting.first_seen:.0f}-{past.failures}")


def backoff(failures: int) -> float:
    """Seconds to wait after so many consecutive failures: 10 minutes, doubled each time, at most 6 hours."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** max(failures - 1, 0), LONGEST_BACKOFF_SECONDS)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
