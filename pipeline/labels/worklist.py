"""The radiologist's worklist: study descriptions nobody has mapped yet, with suggestions, as a CSV to fill in.

Belongs here: suggesting groups from reviewed descriptions, the CSV, which images are shown as examples. Not here:
counting what is not mapped (`weak_labels`), reading the CSV back (`study_groups`), pictures.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import fuzz, process

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

ALIKE = 65.0
"""Least similarity, of 100, of a suggestion. Of the 44 rows of Table A1, each looked up among the others, 43 pass and
23 of them get the right groups: a suggestion saves typing and replaces no reading."""


@dataclass(frozen=True)
class Suggestion:
    """The groups of the reviewed description most like another one, and how alike the two are, 0 to 100."""

    groups: Groups
    like: str
    similarity: float


def suggestion(description: str, reviewed: StudyGroups) -> Suggestion | None:
    """What the `reviewed` description most like `description` would mean; None where none is alike.

    Compared word by word, whatever their order (RapidFuzz's token_set_ratio). Of equally similar ones the first by
    name.
    """
    found = process.extractOne(
        normalized(description), sorted(reviewed.mapping), scorer=fuzz.token_set_ratio, score_cutoff=ALIKE
    )
    if found is None:
        return None
    like, similarity, _ = found
    return Suggestion(reviewed.mapping[like], like, similarity)


def with_suggestions(unmapped: pa.Table, reviewed: StudyGroups) -> pa.Table:
    """`unmapped` (the counts of `weak_labels.unmapped_descriptions`) with suggestions: schema UNMAPPED_DESCRIPTIONS."""
    rows = []
    for row in unmapped.to_pylist():
        found = None if row["study_description"] == TOO_RARE else suggestion(row["study_description"], reviewed)
        rows.append(
            row
            | {
                "suggested_groups": None if found is None else ",".join(found.groups),
                "like": None if found is None else found.like,
                "similarity": None if found is None else round(found.similarity),
            }
        )
    return pa.Table.from_pylist(rows, schema=UNMAPPED_DESCRIPTIONS.schema)


def publishable(reviewed: StudyGroups, index: pa.Table) -> StudyGroups:
    """The part of `reviewed` that may be shown: descriptions that `index` publishes, or that Table A1 prints.

    A mapping may hold descriptions that too few patients share; as what another one is like they would be published.
    """
    known = {normalized(text) for text in pc.unique(index["study_description"]).drop_null().to_pylist()}
    shown = known | printed_descriptions()
    return StudyGroups({text: groups for text, groups in reviewed.mapping.items() if text in shown})


def unused_mappings(reviewed: StudyGroups, index: pa.Table) -> list[str]:
    """Where the rows of `reviewed` stand that no record of `index` carries, as file and line, in their order there.

    Rows that Table A1 prints are none of them: a mapping that starts as its copy has many that an archive lacks.
    """
    carried = {normalized(text) for text in pc.unique(index["study_description"]).drop_null().to_pylist()}
    unused = reviewed.mapping.keys() - carried - printed_descriptions()
    return [place for description, place in reviewed.locations.items() if description in unused]


def worklist_csv(rows: pa.Table) -> str:
    """The worklist as CSV with the columns of the radiologist's table, in the order of `rows` (UNMAPPED_DESCRIPTIONS).

    It begins with a byte order mark, without which Excel takes UTF-8 for Windows-1252.

    `groups` holds a question mark and what is suggested: with the mark the row is not reviewed and counts as absent.
    Records without a description, and the row of those too rare to be published, cannot be mapped and are left out.
    """
    text = io.StringIO()
    text.write("\ufeff")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*REQUIRED, *OPTIONAL])
    for row in rows.to_pylist():
        if row["study_description"] not in ("", TOO_RARE):
            suggested = f"{NOT_REVIEWED} {row['suggested_groups'] or ''}".strip()
            writer.writerow([for_spreadsheet(row["study_description"]), suggested, "", ""])
    return text.getvalue()


def example_images(
    index: pa.Table, images: pa.Table, descriptions: Sequence[str], count: int
) -> Mapping[str, pa.Table]:
    """For each of `descriptions` up to `count` rows of `images`, each of another patient, in the order of `images`.

    `index` needs sop_instance and study_description. Descriptions without an image are absent.
    """
    told = dict(zip(index["sop_instance"].to_pylist(), index["study_description"].to_pylist(), strict=True))
    wanted = set(descriptions)
    chosen: dict[str, dict[str, int]] = {}
    for row, (instance, patient) in enumerate(
        zip(images["sop_instance"].to_pylist(), images["patient"].to_pylist(), strict=True)
    ):
        description = normalized(told.get(instance) or "")
        of_patients = chosen.setdefault(description, {}) if description in wanted else None
        if of_patients is not None and len(of_patients) < count:
            of_patients.setdefault(patient, row)
    return {description: images.take(list(rows.values())) for description, rows in chosen.items()}
