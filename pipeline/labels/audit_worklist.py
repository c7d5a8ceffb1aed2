"""The worklist of doubtful labels: studies whose pixels contradict their groups, as a table and a CSV to fill in.

`audit` finds them; `reviewed_studies` reads the CSV back.
"""

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.csv_files import NOT_REVIEWED, csv_text
from pipeline.labels.audit import Bits, Doubts
from pipeline.labels.reviewed_studies import OPTIONAL, REQUIRED, SHOWN
from pipeline.labels.sources import IN_NO_GROUP
from pipeline.labels.study_groups import for_spreadsheet
from pipeline.tables import DOUBTFUL_LABELS


def audited_images(images: pa.Table, weak_labels: pa.Table, index: pa.Table, groups: tuple[str, ...]) -> pa.Table:
    """The rows of `images` (IMAGES) whose groups are known, with their study and a column for each of `groups`.

    Records in no group are left out, as is a record without a study.
    """
    instances = images["sop_instance"]
    labels = weak_labels.take(pc.index_in(instances, value_set=weak_labels["sop_instance"]))
    records = index.take(pc.index_in(instances, value_set=index["sop_instance"]))
    known = pc.and_(pc.not_equal(labels["status"], IN_NO_GROUP), pc.is_valid(records["study"]))
    for group in groups:
        known = pc.and_(known, pc.is_valid(labels[group]))
    columns = [*images.columns, records["study"], *(labels[group] for group in groups)]
    return pa.table(columns, names=[*images.column_names, "study", *groups]).filter(known)


def doubtful_labels(
    found: Doubts, audited: pa.Table, index: pa.Table, groups: tuple[str, ...], reviewed: Collection[str]
) -> pa.Table:
    """The listed studies of `found` that are not `reviewed`: schema DOUBTFUL_LABELS, the highest score first.

    `audited` is as `audited_images` returns it, and `index` has the descriptions that may be shown.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, study in enumerate(audited["study"].to_pylist()):
        rows_of[study].append(row)
    texts = zip(index["study"].to_pylist(), index["study_description"].to_pylist(), strict=True)
    described = {study: text for study, text in texts if text}
    order = sorted(np.flatnonzero(found.listed).tolist(), key=lambda at: (-found.score[at], found.studies[at]))
    rows = [
        _row(found, at, audited.take(rows_of[found.studies[at]]), groups)
        | {"study_description": described.get(found.studies[at])}
        for at in order
        if found.studies[at] not in reviewed
    ]
    return pa.Table.from_pylist(rows, schema=DOUBTFUL_LABELS.schema)


def _row(found: Doubts, at: int, images: pa.Table, groups: tuple[str, ...]) -> dict[str, str | int | float]:
    """The study number `at` of `found`, whose `images` are as in `audited_images`."""
    doubtful, by_margin = found.margin[at] > 0, np.argsort(-found.margin[at], kind="stable")
    tagged = np.array([bool(pc.max(images[group]).as_py()) for group in groups])
    in_doubt = [int(group) for group in by_margin if doubtful[group]]
    return {
        "study": found.studies[at],
        "patient": images["patient"][0].as_py(),
        "in_doubt": ", ".join(groups[group] for group in in_doubt),
        "tags_say": _named(groups, tagged),
        "pixels_say": _named(groups, tagged ^ doubtful),
        "probability": round(float(found.probability[at, in_doubt[0]]), 3),
        "images": images.num_rows,
        "score": round(float(found.score[at]), 3),
    }


def _named(groups: tuple[str, ...], chosen: Bits) -> str:
    return ", ".join(group for group, one in zip(groups, chosen, strict=True) if one)


def worklist_csv(rows: pa.Table) -> str:
    """The worklist as CSV with the columns of reviewed studies, in the order of `rows` (DOUBTFUL_LABELS).

    It begins with a byte order mark, without which Excel reads UTF-8 as Windows-1252. `groups` holds a question mark
    and what the pixels say; the mark means that the row is not reviewed and counts as absent.
    """
    cells = (
        (
            row["study"],
            f"{NOT_REVIEWED} {row['pixels_say']}".strip(),
            *("" for _ in OPTIONAL),
            *(for_spreadsheet(str(row[name] or "")) for name in SHOWN),
        )
        for row in rows.to_pylist()
    )
    return "\ufeff" + csv_text((*REQUIRED, *OPTIONAL, *SHOWN), cells)
