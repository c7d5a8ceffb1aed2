"""What has arrived in the archive since it was last read, and whether it is time to read it again.

Belongs here: counting new, changed and gone files; when a changed archive has settled. Not here: reading files, runs.
"""

import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.listing import LISTED, Origin, compare, list_files, listed_rows, read_known
from pipeline.archive.missing_images import known_images, refuse_loss
from pipeline.archive.source import normalized
from pipeline.errors import UserError
from pipeline.privacy.identity import key_check
from pipeline.recipe import Automation

ATTEMPTS = 5
"""After so many failures on one state of the archive a person has to look."""
FIRST_WAIT_SECONDS = 600.0
LONGEST_BACKOFF_SECONDS = 6 * 3600.0
_COMPARED = [*LISTED.names, "container", "is_zip", "settled", "deleted"]


@dataclass(frozen=True)
class Arrivals:
    """The archive against what was last read of it, in numbers of files; a zip is one."""

    files: int
    new: int
    changed: int
    gone: int
    state: str
    """32 hex digits that change when the archive does; made with the pseudonym key, so that they tell of no path."""
    loss: str = ""
    """Why the archive is not to be read: too much of it is gone."""

    @property
    def any(self) -> bool:
        """Whether reading the archive would find a difference."""
        return bool(self.new or self.changed or self.gone)

    def __str__(self) -> str:
        return f"{self.new} new, {self.changed} changed and {self.gone} gone of {self.files} files"


def arrivals(archive: str, private: Path, key: bytes, modalities: tuple[str, ...]) -> Arrivals:
    """Compare what lies in `archive`, a folder or URL, with the list that the last scan left in `private`.

    No file is opened. Raises as `source.walk`.
    """
    listed = list_files(normalized(archive))
    known = read_known(private, Origin(normalized(archive), key_check(key), modalities), _COMPARED)
    compared = compare(listed, known)
    there = known["path"].filter(pc.invert(known["deleted"]))
    seen_before = pc.is_in(compared.to_read["path"], value_set=there)
    changed = pc.sum(seen_before, min_count=0).as_py()
    gone = pc.and_(pc.invert(compared.gone["deleted"]), pc.is_null(compared.gone["container"]))
    state = hmac.new(key, b"the state of an archive\0", "sha256")
    for row in listed_rows(listed):
        state.update(f"{row.path}\0{row.size}\0{row.version}\n".encode("utf-8", "surrogateescape"))
    new = compared.to_read.num_rows - changed
    lost = pc.sum(gone, min_count=0).as_py()
    return Arrivals(
        files=listed.num_rows,
        new=new,
        changed=changed,
        gone=lost,
        state=state.hexdigest()[:32],
        loss=_loss(normalized(archive), private, listed) if new < lost else "",
    )


def _loss(archive: str, private: Path, listed: pa.Table) -> str:
    """The sentence for too large a loss, empty if it is none; files that may only have been moved are read to tell."""
    before = known_images(private, archive)
    of_zips = before["path"].filter(pc.is_in(before["container"], value_set=listed["path"]))
    there = pa.concat_arrays([*listed["path"].chunks, *of_zips.chunks])
    try:
        refuse_loss(private, archive, before, there, pa.array([], pa.string()))
    except UserError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Past:
    """What became of the readings so far, the latest one last; times in seconds since the epoch."""

    last_read: str = ""
    """The state for which the last reading that succeeded was asked for; empty where a person started it."""
    cancelled: str = ""
    """The state for which the last reading was asked for, where a person has cancelled that one."""
    failures: int = 0
    """Readings that have failed since the last one that did not."""
    failed_states: tuple[str, ...] = ()
    """The states for which these were asked for."""
    last_failure: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """What is remembered from look to look: of constant size, whatever has arrived."""

    state: str
    unchanged_since: float
    first_seen: float
    """When the archive was first seen to differ from what was read."""

    @staticmethod
    def read(text: str | None) -> "Waiting | None":
        """What `text` says; None where it says nothing, or something of another version."""
        try:
            return Waiting(**json.loads(text or "null"))
        except (TypeError, ValueError):
            return None

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Decision:
    """Read now (`ask` names this reading, and no other one), or wait; `why` for a person."""

    why: str
    waiting: Waiting | None = None
    ask: str = ""


def decide(now: float, waiting: Waiting | None, found: Arrivals, past: Past, settings: Automation) -> Decision:
    """Whether it is time to read the archive, given what was `found` and what was remembered, `waiting`.

    A burst is one reading, once the archive has not changed for `settings.settle_minutes`; an archive that never
    pauses is read after `settings.longest_wait_hours`. What could not be read is tried again, after 10 minutes, then
    twice as long each time, and `ATTEMPTS` times at most while the archive stays as it is.
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
    """Seconds to wait after so many failures in a row: 10 minutes, then twice as long each time, 6 hours at most."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** max(failures - 1, 0), LONGEST_BACKOFF_SECONDS)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
