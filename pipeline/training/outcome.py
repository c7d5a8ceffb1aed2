"""The outcome of a training and its file, outcome.json."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from pipeline.checked_json import read_checked
from pipeline.files import write_json

Status = Literal["ran", "unavailable", "diverged"]


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `ran`, or the status and reason of one without a result.

    `fingerprint` is the digest of all inputs (images, labels if used, settings, code): a later run with the same
    fingerprint has nothing to do. `seconds` is the training time until the end or the divergence; a resumed training
    adds up its stretches, each up to its last checkpoint. It is None if nothing was trained, and in older files.
    `kept_epoch` is the epoch, from 1, whose weights became the encoder; None of other models, and in older files.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    status: Status
    reason: str
    fingerprint: str
    seconds: Annotated[float, Field(ge=0)] | None = field(default=None, compare=False)
    kept_epoch: Annotated[int, Field(ge=1)] | None = field(default=None, compare=False)

    def write(self, folder: Path) -> None:
        """Write outcome.json into `folder`, last of its files: a folder without it is unfinished."""
        write_json(folder / "outcome.json", asdict(self))

    @staticmethod
    def read(folder: Path) -> "Outcome | None":
        """The outcome in `folder`, None if it is unfinished; raises `UserError` if the file is damaged."""
        path = folder / "outcome.json"
        return read_checked(Outcome, path) if path.is_file() else None


def has_run(folder: Path) -> bool:
    """Whether `folder` holds the result of a training."""
    outcome = Outcome.read(folder)
    return outcome is not None and outcome.status == "ran"


def worst_of(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome that several trainings have together: the first that did not run, if there is one."""
    return min(outcomes, key=lambda outcome: outcome.status == "ran")
