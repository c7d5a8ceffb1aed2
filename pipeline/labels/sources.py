"""One label source at a time: what a record's tags say by it, or that they leave it open.

Belongs here: the rules of each kind of source in a recipe. Not here: the columns that it reads (`source_columns`),
putting the sources together (`weak_labels`), the radiologist's table itself (`study_groups`), the probe's shape
(`probe`).
"""

from bisect import bisect_right
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from pipeline.labels.probe import probe_of
from pipeline.labels.source_columns import columns_of
from pipeline.labels.study_groups import StudyGroups, normalized
from pipeline.recipe import BinsSource, Labels, ProbeSource, Source, StudyGroupsSource, ValuesSource

LABELLED = "labelled"
UNMAPPED = "unmapped_description"
IN_NO_GROUP = "in_no_group"
UNKNOWN_PROBE = "unknown_probe"

_Row = dict[str, str | int | None]
"""`status`, None where the labels are known, and each label: 1, 0, or None where it is not known."""


def status_meanings(settings: Labels) -> dict[str, str]:
    """What each status that the sources of `settings` can give says of an image, for a person."""
    open_fields = {f"unknown_{columns_of(source)[0]}" for source in settings.sources}
    trains = "left out" if settings.missing == "exclude" else "trains without that label"
    return {
        **dict.fromkeys(open_fields, f"{trains}: the header does not say it, or in no word that the recipe lists"),
        UNKNOWN_PROBE: f"{trains}: neither linear nor curvilinear by its header",
        UNMAPPED: f"{trains}: nobody has mapped its study description yet (worklist: unmapped_descriptions)",
        IN_NO_GROUP: "left out: a reviewer put its study description in no group",
        LABELLED: "trains",
    }


def labels_from(source: Source, index: pa.Table, groups: StudyGroups | None) -> pa.Table:
    """What `source` says of each record of `index`: its labels as int8 0/1, null where they are left open.

    The column `status` is null where they are known, else the reason: `unmapped_description` or `in_no_group` (then
    the labels are known, and all 0), `unknown_probe`, or `unknown_` and the field's column.
    """
    columns = (index[name].to_pylist() for name in columns_of(source))
    kinds: dict[tuple[Any, ...], int] = {}  # a million records carry some hundred combinations of tags
    kind_of = [kinds.setdefault(tags, len(kinds)) for tags in zip(*columns, strict=True)]
    rows = [_row(source, tags, groups) for tags in kinds]
    schema = pa.schema([("status", pa.string()), *((name, pa.int8()) for name in source.names)])
    return pa.Table.from_pylist(rows, schema=schema).take(pa.array(kind_of, pa.int64()))


def _row(source: Source, tags: tuple[Any, ...], groups: StudyGroups | None) -> _Row:
    match source:
        case StudyGroupsSource():
            return _by_groups(source, groups.groups_of(*tags) if groups else None)
        case ProbeSource():
            probe = probe_of(tags[0], tags[1], source)
            return _known(source, [probe]) if probe else {"status": UNKNOWN_PROBE}
        case ValuesSource():
            meant = _meant(source, *tags)
        case BinsSource():
            meant = _bin(source, *tags)
    return _known(source, meant) if meant else {"status": f"unknown_{columns_of(source)[0]}"}


def _known(source: Source, positive: Collection[str]) -> _Row:
    return {"status": None, **{name: int(name in positive) for name in source.names}}


def _by_groups(source: StudyGroupsSource, groups: Collection[str] | None) -> _Row:
    if groups is None:
        return {"status": UNMAPPED}
    return _known(source, groups) | {"status": None if groups else IN_NO_GROUP}


def _meant(source: ValuesSource, text: str | None) -> list[str]:
    """The labels that one of the field's values means; values nobody listed say nothing, so they exclude nothing."""
    values = {normalized(value) for value in (text or "").split("\\")}
    return [name for name, listed in source.labels.items() if values & {normalized(value) for value in listed}]


def _bin(source: BinsSource, number: float | None) -> list[str]:
    """The label of the range that holds `number`: from its lower edge on, up to its upper edge, which is not in it.

    What is not positive is no thickness, voltage, time or field strength, but a field that was not filled in.
    """
    if number is None or number <= 0:
        return []
    return [source.labels[bisect_right(source.edges, number)]]
