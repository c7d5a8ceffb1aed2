"""The labels that one source of a recipe derives from a record's header fields.

Not here: joining the sources (`weak_labels`).
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from pipeline.label_fields import NUMBER_FIELDS, TEXT_FIELDS
from pipeline.labels.probe import ProbeTags, probe_of
from pipeline.labels.probe_tables import Probes
from pipeline.labels.reviewed_studies import NO_STUDIES, ReviewedStudies
from pipeline.labels.study_groups import StudyGroups, normalized
from pipeline.recipe.labels import BinsSource, Labels, ProbeSource, Source, StudyGroupsSource, ValuesSource

LABELLED = "labelled"
UNMAPPED = "unmapped_description"
IN_NO_GROUP = "in_no_group"
UNKNOWN_PROBE = "unknown_probe"

_Row = dict[str, str | int | None]
"""`status`, None if the labels are known, and each label: 1, 0, or None if unknown."""


def columns_of(source: Source) -> tuple[str, ...]:
    """The columns of the index that `source` reads."""
    match source:
        case StudyGroupsSource():
            return ("study_description",)
        case ProbeSource():
            return ("manufacturer", "transducer_type", "transducer_data")
        case ValuesSource():
            return (TEXT_FIELDS[source.field].column,)
        case BinsSource():
            return (NUMBER_FIELDS[source.field].column,)


def status_meanings(settings: Labels) -> dict[str, str]:
    """An explanation of each status that the sources of `settings` can give."""
    open_fields = {f"unknown_{columns_of(source)[0]}" for source in settings.sources}
    trains = "left out" if settings.missing == "exclude" else "trains without that label"
    return {
        **dict.fromkeys(open_fields, f"{trains}: the header has no value, or none that the recipe lists"),
        UNKNOWN_PROBE: f"{trains}: its probe has no shape of the recipe, or is unknown (worklist: unmapped_probes)",
        UNMAPPED: f"{trains}: its study description is not mapped yet (worklist: unmapped_descriptions)",
        IN_NO_GROUP: "left out: a reviewer assigned its study description to no group",
        LABELLED: "trains",
    }


def labels_from(
    source: Source,
    index: pa.Table,
    groups: StudyGroups | None,
    probes: Probes,
    studies: ReviewedStudies = NO_STUDIES,
) -> pa.Table:
    """The labels that `source` gives each record of `index`: int8 0 or 1, null if unknown.

    What a reviewer decided on a record's study goes before its tags. The column `status` is null if the labels are
    known, else the reason: `unmapped_description`, `in_no_group` (whose labels are known and all 0), `unknown_probe`,
    or `unknown_` and the field's column.
    """
    columns = (index[name].to_pylist() for name in columns_of(source))
    decided = _decided(source, index, studies)
    kinds: dict[tuple[Any, ...], int] = {}  # a million records have a few hundred combinations of values
    kind_of = [kinds.setdefault(kind, len(kinds)) for kind in zip(decided, *columns, strict=False)]
    rows = [
        _row(source, tags, groups, probes) if names is None else _by_reviewer(source, names) for names, *tags in kinds
    ]
    schema = pa.schema([("status", pa.string()), *((name, pa.int8()) for name in source.names)])
    return pa.Table.from_pylist(rows, schema=schema).take(pa.array(kind_of, pa.int64()))


def _decided(source: Source, index: pa.Table, studies: ReviewedStudies) -> Iterable[tuple[str, ...] | None]:
    """The names that a reviewer decided on for the study of each record, None without a decision."""
    decisions = studies.decisions.items()
    names: Mapping[str, tuple[str, ...]] = {}
    match source:
        case StudyGroupsSource():
            names = {study: its.groups for study, its in decisions if its.groups is not None}
        case ProbeSource():
            names = {study: (its.shape,) for study, its in decisions if its.shape}
    return map(names.get, index["study"].to_pylist()) if names else repeat(None)


def _by_reviewer(source: Source, names: tuple[str, ...]) -> _Row:
    if isinstance(source, StudyGroupsSource):
        return _by_groups(source, names)
    return _known(source, names) if set(names) & set(source.names) else {"status": UNKNOWN_PROBE}


def _row(source: Source, tags: Sequence[Any], groups: StudyGroups | None, probes: Probes) -> _Row:
    match source:
        case StudyGroupsSource():
            return _by_groups(source, groups.groups_of(*tags) if groups else None)
        case ProbeSource():
            shape = probe_of(ProbeTags(*tags), source, probes)
            return _known(source, [shape]) if shape else {"status": UNKNOWN_PROBE}
        case ValuesSource():
            labels = _by_values(source, *tags)
        case BinsSource():
            labels = _by_bin(source, *tags)
    return _known(source, labels) if labels else {"status": f"unknown_{columns_of(source)[0]}"}


def _known(source: Source, positive: Collection[str]) -> _Row:
    return {"status": None, **{name: int(name in positive) for name in source.names}}


def _by_groups(source: StudyGroupsSource, groups: Collection[str] | None) -> _Row:
    if groups is None:
        return {"status": UNMAPPED}
    return _known(source, groups) | {"status": None if groups else IN_NO_GROUP}


def _by_values(source: ValuesSource, text: str | None) -> list[str]:
    """The labels whose listed values occur in the field; values that are not listed are ignored."""
    values = {normalized(value) for value in (text or "").split("\\")}
    return [name for name, listed in source.labels.items() if values & {normalized(value) for value in listed}]


def _by_bin(source: BinsSource, number: float | None) -> list[str]:
    """The label of the range that contains `number`, from its lower edge up to but without its upper edge.

    A thickness, voltage, time or field strength that is not positive means an empty field.
    """
    if number is None or number <= 0:
        return []
    return [source.labels[bisect_right(source.edges, number)]]
