"""Weak labels from the header fields of each record (paper section 3.3), and the descriptions not mapped yet."""

from collections import Counter, defaultdict
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.label_fields import DESCRIPTION_FIELDS
from pipeline.labels.probe_tables import Probes
from pipeline.labels.reviewed_studies import NO_STUDIES, ReviewedStudies
from pipeline.labels.sources import LABELLED, labels_from
from pipeline.labels.study_groups import StudyGroups, normalized
from pipeline.recipe.archive import STUDY_DESCRIPTION
from pipeline.recipe.labels import Labels, StudyGroupsSource
from pipeline.tables import UNMAPPED_DESCRIPTIONS, weak_labels_table

TOO_RARE = "(too rare to publish)"
"""Replaces study descriptions that too few patients share."""


def is_label_space(labels: pa.Table, settings: Labels) -> bool:
    """Whether the label columns are the recipe's, in its order, and hold only 0, 1 and null."""
    names = labels.column_names[2:]
    return tuple(names) == settings.names and all(
        set(pc.unique(labels[name]).to_pylist()) <= {0, 1, None} for name in names
    )


def weak_labels(
    index: pa.Table,
    groups: StudyGroups | None,
    settings: Labels,
    probes: Probes | None = None,
    studies: ReviewedStudies = NO_STUDIES,
) -> pa.Table:
    """Each record's labels and status (schema `weak_labels_table(settings.names)`), in the order of `index`.

    `index` needs sop_instance, the columns of the sources, and study if there are reviewed `studies`, whose labels go
    before those of tags. `groups` may be None if no source is the radiologist's table, and without `probes` the shipped
    table of probes counts. The status of an incomplete record is that of its first incomplete source, in the order of
    the recipe except that the radiologist's table comes first: a description in no group is left out, even if something
    else is unknown, too. Known labels are filled in all the same; unknown ones are null, never 0.
    """
    tables = groups, probes or Probes(), studies
    by_source = [(source, labels_from(source, index, *tables)) for source in settings.sources]
    ordered = sorted(by_source, key=lambda pair: not isinstance(pair[0], StudyGroupsSource))
    status = pc.coalesce(*(found["status"] for _, found in ordered), pa.scalar(LABELLED))
    columns = [found[name] for source, found in by_source for name in source.names]
    schema = weak_labels_table(settings.names).schema
    return pa.table([index["sop_instance"].cast(pa.string()), status, *columns], names=schema.names).cast(schema)


def unmapped_descriptions(index: pa.Table, groups: StudyGroups | None, rare: pa.ChunkedArray | None = None) -> pa.Table:
    """The descriptions that `groups` lacks (schema UNMAPPED_DESCRIPTIONS), the most frequent first.

    There are none without `groups`, since then no label comes from descriptions. Spellings that differ in case or
    spaces are one description, whatever field they are from; records without one count under an empty one. Records
    flagged in `rare`, whose descriptions must not be published, share the row TOO_RARE.
    """
    if groups is None:
        return UNMAPPED_DESCRIPTIONS.schema.empty_table()
    images: Counter[str] = Counter()
    patients: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    hidden = [False] * index.num_rows if rare is None else rare.to_pylist()
    columns = (index[name].to_pylist() for name in ("study_description", "patient", "described_by"))
    for description, patient, keyword, hide in zip(*columns, hidden, strict=True):
        if groups.groups_of(description) is None:
            shown = TOO_RARE if hide else normalized(description or "")
            images[shown] += 1
            patients[shown].add(patient)
            if keyword and not hide:
                fields[shown].add(keyword)
    rows = [
        {
            "study_description": description,
            "images": images[description],
            "patients": len(patients[description]),
            "described_by": _listed(fields[description]),
        }
        for description in sorted(images, key=lambda description: (-images[description], description))
    ]
    return pa.Table.from_pylist(rows, schema=UNMAPPED_DESCRIPTIONS.schema)


def _listed(keywords: Collection[str]) -> str | None:
    """The keywords in the order of DESCRIPTION_FIELDS; None if that is StudyDescription alone, or nothing."""
    listed = tuple(keyword for keyword in DESCRIPTION_FIELDS if keyword in keywords)
    return ", ".join(listed) or None if listed != STUDY_DESCRIPTION else None
