"""Study groups: the radiologist's table of what each study description means.

Belongs here: reading and checking the CSV, or a folder of them. Not here: labels of images.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from importlib.resources import files
from pathlib import Path

from pipeline.csv_files import Row, csv_files_in, fix_mojibake, read_csv
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.recipe import Labels, folded
from pipeline.whitespace import collapse_whitespace

REQUIRED = ("study_description", "groups")
OPTIONAL = ("reviewer", "reviewed_on")
NOT_REVIEWED = "?"
"""What `groups` of a row begin with that nobody has reviewed yet: such a row counts as absent."""

_FORMULA = re.compile(r"^'?(?=[=+\-@\t\r])")
"""Where a spreadsheet takes text for a formula, unless an apostrophe stands there."""

Groups = tuple[str, ...]


@dataclass(frozen=True)
class StudyGroups:
    """`mapping` from a normalized study description to its groups; no groups means reviewed and in none.

    `locations` says of descriptions in which file and line they were read, such as `reviewed.csv, line 3`.
    """

    mapping: Mapping[str, Groups]
    locations: Mapping[str, str] = field(default_factory=dict)

    def groups_of(self, description: str | None) -> Groups | None:
        """The groups of a study description, None where the table does not know it."""
        return self.mapping.get(normalized(description or ""))

    @property
    def digest(self) -> str:
        """Digest of the mapping alone: reviewers and dates do not count."""
        return digest(sorted((description, sorted(groups)) for description, groups in self.mapping.items()))

    def left_right_disagreements(self) -> list[tuple[str, str]]:
        """Pairs of descriptions that differ in LEFT and RIGHT alone, but not in groups alone: for the reviewer.

        Table A1 as printed has two such pairs.
        """
        pairs = ((left, re.sub(r"\bLEFT\b", "RIGHT", left)) for left in sorted(self.mapping))
        return [
            (left, right)
            for left, right in pairs
            if left != right and right in self.mapping and set(self.mapping[left]) != set(self.mapping[right])
        ]


@dataclass(frozen=True)
class _Row:
    at: Row
    description: str
    groups: Groups
    reviewed_on: str
    """ISO 8601, as such texts are ordered in time; empty where the row has none."""


def normalized(description: str) -> str:
    """A study description as descriptions are compared: upper case, each run of white space one space.

    An accent that a file holds apart from its letter (Unicode NFD) counts as the accented letter.
    """
    return collapse_whitespace(unicodedata.normalize("NFC", description).upper())


def shipped_study_groups() -> Path:
    """The paper's Table A1 as printed: 44 descriptions."""
    return Path(str(files("pipeline.labels") / "study_groups.csv"))


def printed_descriptions() -> frozenset[str]:
    """The descriptions of Table A1: known to everybody, whatever a recipe's groups are."""
    with shipped_study_groups().open(encoding="utf-8", newline="") as file:
        return frozenset(normalized(row["study_description"]) for row in csv.DictReader(file))


def study_groups_for(path: Path, settings: Labels) -> StudyGroups | None:
    """The table at `path` for the groups of a recipe; None where none of its labels comes from study descriptions.

    Raises as `read_study_groups`.
    """
    return read_study_groups(path, settings.groups) if settings.groups else None


def read_study_groups(path: Path, groups: Groups) -> StudyGroups:
    """Read a CSV of `study_description,groups[,reviewer,reviewed_on]`, or a folder of them in the order of their names.

    Of several rows of one description the last reviewed counts (`reviewed_on`, YYYY-MM-DD; without a date before all
    others), among those of one day that of the last file. A row whose groups begin with `?` is a worklist's and not
    reviewed yet: it counts as absent. Group names match whatever their case; the spelling of `groups` counts. Raises
    `UserError`, naming file and line but quoting no description, for a table that `read_csv` refuses, a group that
    is not among `groups`, an empty description, a date of another form, and two rows of one file and day that
    contradict each other.
    """
    latest: dict[str, _Row] = {}
    for file in _csv_files(path):
        latest = _later(latest, _one_file(file, groups))
    return StudyGroups(
        {description: row.groups for description, row in latest.items()},
        {description: f"{row.at.path.name}, line {row.at.line}" for description, row in latest.items()},
    )


def for_spreadsheet(description: str) -> str:
    """A description as a spreadsheet takes it for text, whatever it begins with; reading takes the apostrophe away."""
    return _FORMULA.sub("'", description)


def _later(rows: Mapping[str, _Row], others: Mapping[str, _Row]) -> dict[str, _Row]:
    """For each description the row reviewed later; the same day, that of `others`."""
    newer = {d: row for d, row in others.items() if d not in rows or row.reviewed_on >= rows[d].reviewed_on}
    return {**rows, **newer}


def _csv_files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"Study groups {path} do not exist: SONOTAG_STUDY_GROUPS names a CSV or a folder of CSVs.")
    if not path.is_dir():
        return [path]
    found = csv_files_in("Study groups", path)
    if not found:
        raise UserError(f"Study groups {path} is a folder without a CSV.")
    return found


def _one_file(path: Path, groups: Groups) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for row in _rows(path, groups):
        earlier = rows.get(row.description, row)
        if earlier.reviewed_on == row.reviewed_on and set(earlier.groups) != set(row.groups):
            raise UserError(f"{row.at.location}: study_description has other groups in line {earlier.at.line}.")
        rows = _later(rows, {row.description: row})
    return rows


def _rows(path: Path, groups: Groups) -> Iterator[_Row]:
    for row in read_csv("Study groups", path, REQUIRED, OPTIONAL):
        if not row.cells["groups"].startswith(NOT_REVIEWED):
            yield _row(row, groups)


def _row(row: Row, groups: Groups) -> _Row:
    """The row as read; `groups` are the recipe's, whose spelling counts."""
    description = normalized(fix_mojibake(_FORMULA.sub("", row.cells["study_description"])))
    if not description:
        raise UserError(f"{row.location}: study_description is empty.")
    spelt = {folded(name): name for name in groups}
    named = [name for part in re.split("[,;]", row.cells["groups"]) if (name := folded(part))]
    if not spelt.keys() >= set(named):
        raise UserError(f"{row.location}: groups holds a name that is none of {', '.join(groups)}.")
    chosen = {spelt[name] for name in named}
    return _Row(row, description, tuple(name for name in groups if name in chosen), _day(row))


def _day(row: Row) -> str:
    """The day as ISO 8601; also of DD.MM.YYYY, as which some spreadsheets save it. With slashes it could be a month."""
    text = row.cells.get("reviewed_on", "")
    try:
        if "." in text:
            return datetime.strptime(text, "%d.%m.%Y").date().isoformat()
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise UserError(f"{row.location}: reviewed_on is no date of the form YYYY-MM-DD or DD.MM.YYYY.") from None
