"""What became of an arm, as data.

Belongs here: the outcome and its file. Not here: deciding it.
"""

from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from pipeline.checked_json import read_checked
from pipeline.files import write_json

Status = Literal["ran", "unavailable", "diverged"]


@dataclass(frozen=True)
class Outcome:
    """What became of an arm: `ran`, or why there is nothing to show.

    `fingerprint` is the digest of all that went in (images, labels where used, settings, code): a later run with the
    same fingerprint has nothing to do. `seconds` is how long it took, also until it diverged; a training that was
    killed and went on took all its stretches, each up to its last checkpoint. None where there was nothing to do, or
    where an earlier version wrote it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    status: Status
    reason: str
    fingerprint: str
    seconds: Annotated[float, Field(ge=0)] | None = field(default=None, compare=False)

    def write(self, folder: Path) -> None:
        """Write the outcome into `folder`, last of its files: a folder without one is unfinished."""
        write_json(folder / "outcome.json", asdict(self))

    @staticmethod
    def read(folder: Path) -> "Outcome | None":
        """The outcome in `folder`, None where its work has not finished; raises `UserError` where it is damaged."""
        path = folder / "outcome.json"
        return read_checked(_adapter(), path) if path.is_file() else None


@cache
def _adapter() -> TypeAdapter[Outcome]:
    return TypeAdapter(Outcome)
