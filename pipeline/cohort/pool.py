"""The pretraining pool, on which every method trains: images joined with labels and split."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.label_fields import POOLED
from pipeline.labels.sources import UNMAPPED
from pipeline.recipe.labels import Labels
from pipeline.tables import missing_sides, pretraining_pool_table


def pretraining_pool(images: pa.Table, weak_labels: pa.Table, splits: pa.Table, settings: Labels) -> pa.Table:
    """The pool (schema `pretraining_pool_table(settings.names)`), sorted by instance and frame.

    `settings.missing` "exclude" takes labelled images only; "mask" also takes images with unknown labels, as null, but
    none that a reviewer assigned to no group. The pool may lack training or validation images (`missing_sides`), in
    which case pretraining refuses it.
    """
    labels = _matched(images["sop_instance"], weak_labels, "sop_instance")
    sides = _matched(images["patient"], splits, "patient")
    status = labels["status"]
    taken = pc.equal(status, "labelled") if settings.missing == "exclude" else pc.not_equal(status, "in_no_group")
    columns = [*(images[name] for name in POOLED), sides["split"], *(labels[n] for n in settings.names)]
    schema = pretraining_pool_table(settings.names).schema
    pool = pa.table(columns, names=schema.names).filter(taken).cast(schema)
    return pool.sort_by([("sop_instance", "ascending"), ("frame", "ascending")])


def _matched(values: pa.ChunkedArray, table: pa.Table, by: str) -> pa.Table:
    """The row of `table` for each of `values`; raises `UserError` if one is missing."""
    rows = pc.index_in(values, value_set=table[by])
    if rows.null_count:
        raise UserError(f"{rows.null_count} images have no row by {by} in the tables: run the job `ingest` again.")
    return table.take(rows)


def pool_shortage(pool: pa.Table, images: pa.Table, weak_labels: pa.Table) -> str:
    """What the pool lacks for training, why, and what to do; empty if it has training and validation images."""
    sides = missing_sides(pool)
    if not sides:
        return ""
    counts = Counter(_matched(images["sop_instance"], weak_labels, "sop_instance")["status"].to_pylist()).most_common()
    found = ", ".join(f"{count} {status}" for status, count in counts) or "none"
    return f"no {' and no '.join(sides)} image; of {images.num_rows} images: {found}. {_advice(counts)}"


def _advice(counts: list[tuple[str, int]]) -> str:
    """How to add images to the pool, by the most frequent status."""
    if not counts:
        return "The asset quarantine lists why no frame of the archive became an image."
    if counts[0][0] == UNMAPPED:
        return (
            "Fill in unmapped_descriptions.csv in the store's private folder (asset of that name), put it into the "
            "folder that SONOTAG_STUDY_GROUPS names, and run `ingest` again."
        )
    return (
        "Add images of more patients (those who share a study or an image count as one), or set labels.missing: mask "
        "in the recipe, which keeps images without labels."
    )


def patients_on_both_sides(pool: pa.Table) -> list[str]:
    """Pseudonyms of patients with images in train and in val, sorted; a valid pool has none."""
    return sorted(_on_both_sides(pool["patient"], pool["split"]))


def studies_on_both_sides(pool: pa.Table, index: pa.Table) -> list[str]:
    """Pseudonyms of studies and series of `index` (DICOM_INDEX) with images in train and in val, sorted."""
    rows = index.take(pc.index_in(pool["sop_instance"], value_set=index["sop_instance"]))
    return sorted(value for name in ("study", "series") for value in _on_both_sides(rows[name], pool["split"]))


def _on_both_sides(values: pa.ChunkedArray, sides: pa.ChunkedArray) -> list[str]:
    """The distinct values other than null that occur with both sides."""
    counts = pa.table({"value": values, "side": sides}).group_by("value").aggregate([("side", "count_distinct")])
    return list(counts["value"].filter(pc.greater(counts["side_count_distinct"], 1)).drop_null().to_pylist())


FEWEST_PATIENTS = 5
"""Training patients with, and without, a label; from fewer a network learns the patients, not the label."""


def rare_labels(balance: pa.Table) -> list[str]:
    """Labels of `label_balance` with too few patients: FEWEST_PATIENTS in train and one in val, with and without."""
    return [
        row["label"]
        for row in balance.to_pylist()
        if min(row["train with"], row["train without"]) < FEWEST_PATIENTS
        or not row["val with"]
        or not row["val without"]
    ]


def label_balance(pool: pa.Table, labels: tuple[str, ...]) -> pa.Table:
    """Numbers of patients on each side who have an image with a label, and of those who have one without it.

    Columns label, train with, train without, val with, val without. Unknown labels (null) count for neither.
    """
    columns = {
        f"{side} {word}": (side, value) for side in ("train", "val") for word, value in (("with", 1), ("without", 0))
    }
    rows = []
    for label in labels:
        found = pool.group_by(["split", label]).aggregate([("patient", "count_distinct")])
        keys = zip(found["split"].to_pylist(), found[label].to_pylist(), strict=True)
        counts = dict(zip(keys, found["patient_count_distinct"].to_pylist(), strict=True))
        rows.append({"label": label, **{name: counts.get(key, 0) for name, key in columns.items()}})
    return pa.Table.from_pylist(rows)
