"""Label changes between two versions of the user's tables, and the stored copy of the last version."""

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import DamagedError, UserError
from pipeline.files import read_json, write_json
from pipeline.labels.probe_names import NamePattern
from pipeline.labels.probe_tables import ProbeRow, Probes, ProbeTable
from pipeline.labels.reviewed_studies import NO_STUDIES, Decision, ReviewedStudies
from pipeline.labels.sources import LABELLED
from pipeline.labels.study_groups import StudyGroups
from pipeline.labels.weak_labels import TOO_RARE, weak_labels
from pipeline.mirrored import read_if_intact
from pipeline.recipe import Recipe
from pipeline.recipe.labels import Labels, Shape
from pipeline.store import Store
from pipeline.tables import LABEL_CHANGES

_LAST, _LAST_STUDIES, _LAST_PROBES = "study_groups.json", "reviewed_studies.json", "probes.json"
_NO_ROWS = ProbeTable()


def label_changes(
    index: pa.Table,
    shown: pa.ChunkedArray,
    before: StudyGroups,
    after: StudyGroups,
    settings: Labels,
    probes: tuple[Probes | None, Probes | None] = (None, None),
    studies: tuple[ReviewedStudies, ReviewedStudies] = (NO_STUDIES, NO_STUDIES),
) -> pa.Table:
    """The records of `index` whose labels differ between two mappings: schema LABEL_CHANGES, in the order of `index`.

    `index` has the columns that `weak_labels` needs; `shown` is each record's publishable study description, and
    `probes` and `studies` are the tables of probes and the reviewed studies before and after.
    """
    versions = zip((before, after), probes, studies, strict=True)
    labels = (weak_labels(index, groups, settings, named, reviewed) for groups, named, reviewed in versions)
    sides = [_label_texts(rows, settings) for rows in labels]
    table = pa.table([index["sop_instance"], shown, *sides], names=LABEL_CHANGES.schema.names)
    return table.filter(pc.not_equal(*sides)).cast(LABEL_CHANGES.schema)


def current_changes(
    index: pa.Table,
    published: pa.Table,
    groups: StudyGroups | None,
    recipe: Recipe,
    earlier: Store,
    probes: Probes | None = None,
    studies: ReviewedStudies = NO_STUDIES,
) -> pa.Table:
    """What the newest version of the mapping changed (LABEL_CHANGES), compared with that of the `earlier` run.

    If they are the same, what the earlier run found. Rows of probes are compared if the earlier run stored its own.
    """
    private, tables = earlier.private_of(recipe.name), earlier.experiment(recipe.name).tables
    before, reviewed, now = last_mapping(private), (last_studies(private), studies), probes or Probes()
    if before is None or groups is None:
        return LABEL_CHANGES.schema.empty_table()
    read = (replace(now, own=last_probes(private) or now.own), now)
    pairs = ((before, groups), reviewed, (read[0].own, now.own))
    if LABEL_CHANGES.path(tables).is_file() and all(last.digest == newest.digest for last, newest in pairs):
        return LABEL_CHANGES.read(tables)
    return label_changes(index, published["study_description"], before, groups, recipe.labels, read, reviewed)


def changes_by_description(changes: pa.Table) -> pa.Table:
    """Counts of `changes` by study description, before and after, the most frequent first.

    Unpublished descriptions are counted together, as in the worklist.
    """
    keys = ["study_description", "before", "after"]
    descriptions = pc.fill_null(changes["study_description"], TOO_RARE)
    shown = changes.set_column(changes.column_names.index("study_description"), "study_description", descriptions)
    counted = shown.group_by(keys).aggregate([("sop_instance", "count")]).rename_columns([*keys, "images"])
    order = [("images", "descending"), *((key, "ascending") for key in keys)]
    return counted.select(["images", *keys]).sort_by(order)


def last_mapping(private: Path) -> StudyGroups | None:
    """The mapping that was last applied to this store, None if there is none."""
    return read_if_intact(private / _LAST, _read_mapping)


def _read_mapping(path: Path) -> StudyGroups:
    mapping = read_json(path)
    if not isinstance(mapping, dict) or not all(isinstance(names, list) for names in mapping.values()):
        raise DamagedError(path)
    return StudyGroups({description: tuple(map(str, names)) for description, names in mapping.items()})


def last_studies(private: Path) -> ReviewedStudies:
    """The reviewed studies that were last applied to this store."""
    return read_if_intact(private / _LAST_STUDIES, _read_studies) or NO_STUDIES


def _read_studies(path: Path) -> ReviewedStudies:
    try:
        return ReviewedStudies(TypeAdapter(dict[str, Decision]).validate_python(read_json(path)))
    except ValidationError:
        raise DamagedError(path) from None


def last_probes(private: Path) -> ProbeTable | None:
    """The user's rows of probes that were last applied to this store; None if none were stored, not even zero."""
    return read_if_intact(private / _LAST_PROBES, _read_probes)


def _read_probes(path: Path) -> ProbeTable:
    try:
        rows = TypeAdapter(list[tuple[str, str, Shape]]).validate_python(read_json(path))
        return ProbeTable(tuple(ProbeRow(maker, NamePattern(name), shape) for maker, name, shape in rows))
    except (ValueError, UserError):  # ValidationError is a ValueError
        raise DamagedError(path) from None


def save_mapping(
    private: Path, groups: StudyGroups, studies: ReviewedStudies = NO_STUDIES, probes: ProbeTable = _NO_ROWS
) -> None:
    """Store all for the next comparison, in the private folder since descriptions can name patients."""
    write_json(private / _LAST, {description: list(names) for description, names in sorted(groups.mapping.items())})
    write_json(private / _LAST_STUDIES, {study: asdict(its) for study, its in sorted(studies.decisions.items())})
    write_json(private / _LAST_PROBES, sorted((row.maker, row.pattern.text, row.shape) for row in probes.rows))


def _label_texts(labels: pa.Table, settings: Labels) -> pa.ChunkedArray:
    """Each record's positive labels, such as `liver, abdomen, linear`, and in brackets a status other than labelled."""
    columns = (labels[name].to_pylist() for name in ("status", *settings.names))
    texts = []
    for status, *values in zip(*columns, strict=True):
        positive = ", ".join(name for name, value in zip(settings.names, values, strict=True) if value)
        texts.append(positive if status == LABELLED else f"{positive} ({status})".lstrip())
    return pa.chunked_array([pa.array(texts, pa.string())])
