"""Study groups: the radiologist's table from study descriptions to groups, a CSV or a folder of CSVs."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from pipeline.csv_files import NOT_REVIEWED, Row, csv_files_in, fix_mojibake, read_csv
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.labels.probe_tables import is_probe_table
from pipeline.labels.review_cells import Groups, groups_in, review_day
from pipeline.labels.reviewed_studies import is_study_table
from pipeline.recipe.labels import Labels
from pipeline.whitespace import collapse_whitespace

REQUIRED = ("study_description", "groups")
OPTIONAL = ("reviewer", "reviewed_on", "notes")
"""`notes` are not read: the worklist holds the reasons of its suggestions there."""

_FORMULA = re.compile(r"^'?(?=[=+\-@\t\r])")
"""The start of a text that a spreadsheet reads as a formula unless an apostrophe precedes it."""


@dataclass(frozen=True)
class StudyGroups:
    """`mapping` from a normalized study description to its groups; empty groups mean reviewed and in none.

    `locations` are the descriptions' files and lines, such as `reviewed.csv, line 3`.
    """

    mapping: Mapping[str, Groups]
    locations: Mapping[str, str] = field(default_factory=dict)

    def groups_of(self, description: str | None) -> Groups | None:
        """The groups of a study description, None if the table lacks it."""
        return self.mapping.get(normalized(description or ""))

    @property
    def digest(self) -> str:
        """Digest of the mapping without reviewers and dates."""
        return digest(sorted((description, sorted(groups)) for description, groups in self.mapping.items()))

    def left_right_disagreements(self) -> list[tuple[str, str]]:
        """Pairs of descriptions that differ only in LEFT and RIGHT but have different groups, for the reviewer.

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
    """ISO 8601, whose text order is the order in time; empty if the row has none."""


def normalized(description: str) -> str:
    """A study description in the form in which descriptions are compared: upper case, single spaces, Unicode NFC."""
    return collapse_whitespace(unicodedata.normalize("NFC", description).upper())


def shipped_study_groups() -> Path:
    """The paper's Table A1 as printed: 44 descriptions."""
    return Path(str(files("pipeline.labels") / "study_groups.csv"))


def printed_descriptions() -> frozenset[str]:
    """The descriptions of Table A1, which are public."""
    rows = read_csv("Table A1", shipped_study_groups(), REQUIRED)
    return frozenset(normalized(row.cells["study_description"]) for row in rows)


def describe_disagreements(pairs: Sequence[tuple[str, str]]) -> str:
    """The sentence on `left_right_disagreements`, with pairs that Table A1 prints; others, are counted."""
    printed = printed_descriptions()
    named = [" and ".join(pair) for pair in pairs if printed.issuperset(pair)]
    others = [f"{len(pairs) - len(named)} more pairs of the mapping"] if len(named) < len(pairs) else []
    return f"other groups on the left than on the right: {'; '.join(named + others)}" if pairs else "no pair differs"


def study_groups_for(path: Path, settings: Labels) -> StudyGroups | None:
    """The table at `path` for the groups of a recipe; None if none of its labels comes from study descriptions.

    Raises as `read_study_groups`.
    """
    return read_study_groups(path, settings.groups) if settings.groups else None


def read_study_groups(path: Path, groups: Groups) -> StudyGroups:
    """Read a CSV of `study_description,groups[,reviewer,reviewed_on]`, or a folder of them by name.

    Of several rows of one description the last reviewed counts (docs/mapping.md). Group names match in any case and are
    returned as spelt in `groups`. Raises `UserError`, naming file and line but quoting no description, as `read_csv`
    does and for a group that is not among `groups`, an empty description, a date of another form, and contradictory
    rows of one file and day.
    """
    latest: dict[str, _Row] = {}
    for file in _csv_files(path):
        latest = _later(latest, _one_file(file, groups))
    return StudyGroups(
        {description: row.groups for description, row in latest.items()},
        {description: f"{row.at.path.name}, line {row.at.line}" for description, row in latest.items()},
    )


def for_spreadsheet(description: str) -> str:
    """A description with an apostrophe if a spreadsheet would read it as a formula; reading removes it."""
    return _FORMULA.sub("'", description)


def _later(rows: Mapping[str, _Row], others: Mapping[str, _Row]) -> dict[str, _Row]:
    """For each description the row reviewed later; on the same day, that of `others`."""
    newer = {d: row for d, row in others.items() if d not in rows or row.reviewed_on >= rows[d].reviewed_on}
    return {**rows, **newer}


def _csv_files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"Study groups {path} do not exist: SONOTAG_STUDY_GROUPS must name a CSV or a folder of CSVs.")
    if not path.is_dir():
        return [path]
    found = [file for file in csv_files_in("Study groups", path) if not (is_probe_table(file) or is_study_table(file))]
    if not found:
        raise UserError(f"Study groups {path} is a folder without CSV files of study groups.")
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
    """The checked row with its groups spelt as in `groups`, those of the recipe."""
    description = normalized(fix_mojibake(_FORMULA.sub("", row.cells["study_description"])))
    if not description:
        raise UserError(f"{row.location}: study_description is empty.")
    return _Row(row, description, groups_in(row, groups), review_day(row))
