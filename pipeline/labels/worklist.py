"""The radiologist's worklist: unmapped study descriptions with suggested groups and examples, as a CSV to fill in.

`weak_labels` counts unmapped descriptions; `study_groups` reads the CSV back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import fuzz, process

from pipeline.csv_files import csv_text
from pipeline.labels.study_groups import (
    NOT_REVIEWED,
    OPTIONAL,
    REQUIRED,
    Groups,
    StudyGroups,
    for_spreadsheet,
    normalized,
    printed_descriptions,
)
from pipeline.labels.weak_labels import TOO_RARE
from pipeline.tables import UNMAPPED_DESCRIPTIONS

MIN_SIMILARITY = 65.0
"""Minimum similarity of a suggestion, of 100. Of the 44 rows of Table A1, each looked up among the others, 43 get a
suggestion and 23 the right one: suggestions save typing, not reading."""


@dataclass(frozen=True)
class Suggestion:
    """The groups of the most similar reviewed description, and the similarity, 0 to 100."""

    groups: Groups
    like: str
    similarity: float


def suggestion(description: str, reviewed: StudyGroups) -> Suggestion | None:
    """The groups of the `reviewed` description most similar to `description`; None if none is similar.

    The comparison ignores the order of words (RapidFuzz's token_set_ratio). Of equally similar ones the first by name.
    """
    found = process.extractOne(
        normalized(description), sorted(reviewed.mapping), scorer=fuzz.token_set_ratio, score_cutoff=MIN_SIMILARITY
    )
    if found is None:
        return None
    like, similarity, _ = found
    return Suggestion(reviewed.mapping[like], like, similarity)


def with_suggestions(unmapped: pa.Table, reviewed: StudyGroups) -> pa.Table:
    """`unmapped` (the counts of `weak_labels.unmapped_descriptions`) with suggestions: schema UNMAPPED_DESCRIPTIONS."""
    rows = unmapped.to_pylist()
    for row in rows:
        found = None if row["study_description"] == TOO_RARE else suggestion(row["study_description"], reviewed)
        if found is not None:
            row["suggested_groups"], row["like"] = ",".join(found.groups), found.like
            row["similarity"] = round(found.similarity)
    return pa.Table.from_pylist(rows, schema=UNMAPPED_DESCRIPTIONS.schema)


def publishable(reviewed: StudyGroups, index: pa.Table) -> StudyGroups:
    """The part of `reviewed` that suggestions may show: descriptions that `index` or Table A1 publishes.

    A mapping may hold descriptions that too few patients share, which a suggestion would publish.
    """
    known = {normalized(text) for text in pc.unique(index["study_description"]).drop_null().to_pylist()}
    shown = known | printed_descriptions()
    return StudyGroups({text: groups for text, groups in reviewed.mapping.items() if text in shown})


def unused_mappings(reviewed: StudyGroups, index: pa.Table) -> list[str]:
    """File and line of the rows of `reviewed` whose description no record of `index` has, in their order.

    Rows of Table A1 are left out: a mapping that starts as its copy has many that an archive lacks.
    """
    carried = {normalized(text) for text in pc.unique(index["study_description"]).drop_null().to_pylist()}
    unused = reviewed.mapping.keys() - carried - printed_descriptions()
    return [location for description, location in reviewed.locations.items() if description in unused]


def worklist_csv(rows: pa.Table) -> str:
    """The worklist as CSV with the columns of the radiologist's table, in the order of `rows` (UNMAPPED_DESCRIPTIONS).

    It begins with a byte order mark, without which Excel reads UTF-8 as Windows-1252. `groups` holds a question mark
    and the suggestion; the mark means that the row is not reviewed and counts as absent. Records without a description
    and the row TOO_RARE cannot be mapped and are left out.
    """
    cells = (
        (for_spreadsheet(row["study_description"]), f"{NOT_REVIEWED} {row['suggested_groups'] or ''}".strip(), "", "")
        for row in rows.to_pylist()
        if row["study_description"] not in ("", TOO_RARE)
    )
    return "\ufeff" + csv_text((*REQUIRED, *OPTIONAL), cells)


def example_images(
    index: pa.Table, images: pa.Table, descriptions: Sequence[str], count: int
) -> Mapping[str, pa.Table]:
    """For each of `descriptions` the first `count` rows of `images`, each of another patient.

    `index` needs sop_instance and study_description. Descriptions without an image are absent.
    """
    description_of = dict(zip(index["sop_instance"].to_pylist(), index["study_description"].to_pylist(), strict=True))
    chosen: dict[str, dict[str, int]] = {description: {} for description in descriptions}
    columns = (images[name].to_pylist() for name in ("sop_instance", "patient"))
    for row, (instance, patient) in enumerate(zip(*columns, strict=True)):
        of_patients = chosen.get(normalized(description_of.get(instance) or ""), {})
        if len(of_patients) < count:
            of_patients.setdefault(patient, row)
    return {description: images.take(list(rows.values())) for description, rows in chosen.items() if rows}
