"""Reviewed studies: labels of single studies, decided by a reviewer, that go before those of their tags."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.csv_files import NOT_REVIEWED, Row, csv_files_in, has_columns, read_csv
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.labels.review_cells import Groups, groups_in, review_day, shape_in
from pipeline.recipe.labels import Labels, Shape

REQUIRED = ("study", "groups")
OPTIONAL = ("shape", "reviewer", "reviewed_on", "notes")
SHOWN = ("in_doubt", "tags_say", "study_description", "images")
"""Columns of the worklist for its reader, which are not read back."""

_NAME = "Reviewed studies"


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided on a study.

    `groups` are those of its records, empty for none; None if they were not reviewed, so that its description counts.
    `shape` is that of the probe of all its images; None if it was not reviewed, so that their tags count.
    """

    groups: Groups | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class ReviewedStudies:
    """`decisions` by the pseudonym of the study; `locations` are their files and lines."""

    decisions: Mapping[str, Decision] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)

    @property
    def with_groups(self) -> frozenset[str]:
        """The studies whose groups were reviewed."""
        return frozenset(study for study, its in self.decisions.items() if its.groups is not None)

    @property
    def digest(self) -> str:
        """Digest of the decisions; empty if there are none."""
        rows = ((study, sorted(its.groups or ()), its.groups is None, its.shape) for study, its in self._sorted())
        return digest(list(rows)) if self.decisions else ""

    @property
    def membership(self) -> str:
        """Digest of what decides which records train, whatever their groups; empty if there are no decisions."""
        rows = ((study, its.groups is None, bool(its.groups), its.shape) for study, its in self._sorted())
        return digest(list(rows)) if self.decisions else ""

    def unused(self, studies: Iterable[str | None]) -> list[str]:
        """File and line of the rows whose study is none of `studies`."""
        known = set(studies)
        return [location for study, location in self.locations.items() if study not in known]

    def _sorted(self) -> list[tuple[str, Decision]]:
        return sorted(self.decisions.items(), key=lambda item: item[0])


NO_STUDIES = ReviewedStudies()


@dataclass(frozen=True)
class _Reviewed:
    at: Row
    decision: Decision
    day: str


def is_study_table(path: Path) -> bool:
    """Whether the CSV at `path` is a table of reviewed studies."""
    return has_columns("Table", path, REQUIRED)


def reviewed_studies(mapping: Path, settings: Labels) -> ReviewedStudies:
    """The decisions in the CSVs with the columns `study` and `groups` in the folder `mapping`; none if it is no folder.

    The row of a study that was reviewed last counts, and rows without a date come before all others. Cells that begin
    with `?` are not reviewed; nor are groups if `settings` take no labels from descriptions. Raises `UserError`, naming
    file and line, as `read_csv` does and for an empty study, an unknown group, shape or date, and for two rows of a
    study and day that differ.
    """
    files = csv_files_in(_NAME, mapping) if mapping.is_dir() else []
    rows: dict[str, list[_Reviewed]] = defaultdict(list)
    for path in files:
        if is_study_table(path):
            for row in read_csv(_NAME, path, REQUIRED, (*OPTIONAL, *SHOWN)):
                if (reviewed := _reviewed(row, settings)).decision != Decision():
                    rows[row.cells["study"]].append(reviewed)
    latest = {study: _latest(of_study) for study, of_study in rows.items()}
    return ReviewedStudies(
        {study: row.decision for study, row in latest.items()},
        {study: f"{row.at.path.name}, line {row.at.line}" for study, row in latest.items()},
    )


def _reviewed(row: Row, settings: Labels) -> _Reviewed:
    if not row.cells["study"]:
        raise UserError(f"{row.location}: study is empty.")
    unread = row.cells["groups"].startswith(NOT_REVIEWED) or not settings.groups
    groups = None if unread else groups_in(row, settings.groups)
    unread = row.cells.get("shape", "").startswith(NOT_REVIEWED) or not row.cells.get("shape")
    return _Reviewed(row, Decision(groups, None if unread else shape_in(row)), review_day(row))


def _latest(rows: list[_Reviewed]) -> _Reviewed:
    """The row reviewed last; raises `UserError` if another of the same day differs."""
    day = max(row.day for row in rows)
    first, *others = (row for row in rows if row.day == day)
    for other in others:
        if other.decision != first.decision:
            raise UserError(f"{other.at.location}: the study has another decision in {first.at.location}.")
    return first
