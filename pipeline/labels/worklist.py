"""The radiologist's worklist: unmapped study descriptions with suggested groups and examples, as a CSV to fill in.

`weak_labels` counts unmapped descriptions; `study_groups` reads the CSV back.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.csv_files import NOT_REVIEWED, csv_text
from pipeline.labels.study_groups import (
    OPTIONAL,
    REQUIRED,
    StudyGroups,
    for_spreadsheet,
    normalized,
    printed_descriptions,
)
from pipeline.labels.suggestions import Suggester, Suggestions
from pipeline.labels.weak_labels import TOO_RARE
from pipeline.tables import UNMAPPED_DESCRIPTIONS

Name = TypeVar("Name", bound=Hashable)


def with_suggestions(unmapped: pa.Table, suggester: Suggester) -> pa.Table:
    """`unmapped` (the counts of `weak_labels.unmapped_descriptions`) with suggestions: schema UNMAPPED_DESCRIPTIONS."""
    suggested = [
        _shown(suggester.suggestions(description)) if description not in ("", TOO_RARE) else {}
        for description in unmapped["study_description"].to_pylist()
    ]
    rows = [row | cells for row, cells in zip(unmapped.to_pylist(), suggested, strict=True)]
    return pa.Table.from_pylist(rows, schema=UNMAPPED_DESCRIPTIONS.schema)


def _shown(found: Suggestions) -> dict[str, str | None]:
    """The cells of UNMAPPED_DESCRIPTIONS for the suggestions of a description."""
    if not found.ranked:
        return {"suggested_groups": None, "reason": found.none_because, "other_suggestions": None}
    best, *others = found.ranked
    listed = [f"{','.join(other.groups) or 'in no group'} ({other.reason})" for other in others]
    return {
        "suggested_groups": ",".join(best.groups),
        "reason": best.reason,
        "other_suggestions": "; ".join(listed) or None,
    }


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
    and the first suggestion; the mark means that the row is not reviewed and counts as absent. `notes` holds its
    reason and the other suggestions. Records without a description and the row TOO_RARE cannot be mapped and are left
    out.
    """
    cells = (
        (for_spreadsheet(row["study_description"]), *_to_review(row))
        for row in rows.to_pylist()
        if row["study_description"] not in ("", TOO_RARE)
    )
    return "\ufeff" + csv_text((*REQUIRED, *OPTIONAL), cells)


def _to_review(row: dict[str, str | None]) -> tuple[str, ...]:
    """The cells beside the description: groups, reviewer, reviewed_on and notes."""
    groups = f"{NOT_REVIEWED} {row['suggested_groups'] or ''}".strip()
    others = row["other_suggestions"] and f"or {row['other_suggestions']}"
    fields = row["described_by"] and f"from {row['described_by']}"
    return groups, "", "", "; ".join(filter(None, (row["reason"], others, fields)))


def facts_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a page shows of a row of UNMAPPED_DESCRIPTIONS beside its description, with names."""
    none = "none" if row["suggested_groups"] is None else "in no group"
    reason = f" ({row['reason']})" if row["reason"] else ""
    facts = (
        ("images", str(row["images"])),
        ("patients", str(row["patients"])),
        ("header field", row["described_by"]),
        ("suggestion", f"{row['suggested_groups'] or none}{reason}"),
        ("or", row["other_suggestions"]),
    )
    return [(name, fact) for name, fact in facts if fact]


def descriptions_of(index: pa.Table) -> dict[str, str]:
    """The normalized study description of each sop_instance of `index`; empty if it has none."""
    columns = (index[name].to_pylist() for name in ("sop_instance", "study_description"))
    return {instance: normalized(description or "") for instance, description in zip(*columns, strict=True)}


def example_images(
    name_of: Mapping[str, Name], images: pa.Table, names: Sequence[Name], count: int
) -> Mapping[Name, pa.Table]:
    """For each of `names` the first `count` rows of `images`, each of another patient.

    `name_of` maps sop_instance to the name on a worklist. Names without an image are absent.
    """
    chosen: dict[Name, dict[str, int]] = {name: {} for name in names}
    columns = (images[name].to_pylist() for name in ("sop_instance", "patient"))
    for row, (instance, patient) in enumerate(zip(*columns, strict=True)):
        name = name_of.get(instance)
        if name in chosen and len(chosen[name]) < count:
            chosen[name].setdefault(patient, row)
    return {name: images.take(list(rows.values())) for name, rows in chosen.items() if rows}
