"""Studies whose pixels contradict their study groups: the worklist of doubtful labels, made by a job of its own."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.catalog import DOUBTFUL, REVIEW
from assets.failures import HOOKS
from assets.labels import EXAMPLES, ILLUSTRATED, MappingVersion
from assets.pictures import example_urls
from assets.step import Context, Materializations, step
from assets.tables import markdown_table, size_and_columns, table_version
from assets.worklists import to_fill_in, write_pictures
from pipeline import code_versions
from pipeline.cohort.patient_links import (
    PatientSets,
    canonical_patients,
    linked_patients,
    merge_overlapping,
    tied_patients,
)
from pipeline.files import write_text
from pipeline.images.cache import cache_folder, load_pixels
from pipeline.labels.reviewed_studies import reviewed_studies
from pipeline.locks import tables_lock
from pipeline.privacy.descriptions import with_rare_descriptions
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import DOUBTFUL_LABELS, IMAGES
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

WORKLIST = "doubtful_labels.csv"
TO_FILL_IN = (
    "Copy `doubtful_labels.csv` from the same folder into the folder that SONOTAG_STUDY_GROUPS names.",
    "Correct `groups`, and delete the question mark; to confirm the tags, copy them from `tags_say`.",
    "Press *Reload definitions* (Lineage), launch `ingest` again, then `audit`: reviewed studies leave the list.",
)
ABOUT = "Studies whose pixels contradict their groups, the most doubtful first. A row shows images of one study alone."
_CHUNK = 4096
"""Images whose pixels are in memory at a time."""


def doubtful_labels_asset(recipe: Recipe, mapping: Path, version: MappingVersion) -> dg.AssetsDefinition:
    """`doubtful_labels`: the worklist as a table, and in the private folder as a CSV to fill in."""

    @dg.asset(
        hooks=HOOKS,
        name=DOUBTFUL,
        description="The worklist of doubtful labels: one row per study whose pixels contradict its study groups by "
        "models of other patients, the most doubtful first; a suggestion, not a review.",
        code_version=f"{code_versions.AUDIT}-{version.meaning}",
        group_name=REVIEW,
        kinds={"parquet", "csv"},
    )
    def doubtful(
        context: Context,
        store: StoreFolder,
        archive: Archive,
        tracking: Tracking,
        dicom_index: pa.Table,
        image_cache: pa.Table,
        near_duplicates: pa.Table,
        weak_labels: pa.Table,
    ) -> Materializations:
        inputs = dicom_index, image_cache, near_duplicates, weak_labels
        with step(context, store, tracking, recipe) as here:
            with here.holding(tables_lock(here.store, here.log), *inputs) as (index, images, similar, labels):
                links = _links(here.store, index, images, similar)
                rows, private, audited = _worklist(here.store, recipe, mapping, index, images, labels, links)
                DOUBTFUL_LABELS.write(here.store.experiment(recipe.name).tables, rows)
                _write_page(here.store, recipe, archive, private, audited, index)
            counts = {"audited studies": len(set(audited["study"].to_pylist())), "audited images": audited.num_rows}
            yield here.made(
                DOUBTFUL,
                table_version(rows),
                {
                    **size_and_columns(DOUBTFUL_LABELS, rows),
                    **counts,
                    "for the reviewer": dg.MetadataValue.md(_illustrated(here.store, recipe, rows, audited)),
                    "to fill in": to_fill_in(DOUBTFUL, recipe, TO_FILL_IN),
                    "groups to choose from": ", ".join(recipe.labels.groups) or "none: no label is from descriptions",
                },
                metrics={DOUBTFUL: rows.num_rows, **counts},
            )

    return doubtful


def _links(store: Store, index: pa.Table, images: pa.Table, similar: pa.Table) -> PatientSets:
    """The sets of patients that must not be on both sides of a fold."""
    from pipeline.cohort.leak_review import cleared_pairs
    from pipeline.cohort.leaks import similar_patients

    alike = similar_patients(similar, cleared_pairs(store.private))
    return merge_overlapping([*tied_patients(index), *linked_patients(images), *alike])


def _worklist(
    store: Store,
    recipe: Recipe,
    mapping: Path,
    published: pa.Table,
    images: pa.Table,
    labels: pa.Table,
    links: PatientSets,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The worklist as it may be published, the whole one, and the audited images; writes the whole as a private CSV."""
    from pipeline.labels.audit import doubts, out_of_fold
    from pipeline.labels.audit_worklist import audited_images, doubtful_labels, worklist_csv

    groups, one = recipe.labels.groups, canonical_patients(links)
    audited = audited_images(images, labels, published, groups).slice(0, None if groups else 0)
    tags = np.array([audited[group].to_numpy() for group in groups], float).reshape(len(groups), audited.num_rows).T
    persons = [one.get(patient, patient) for patient in audited["patient"].to_pylist()]
    chances = out_of_fold(_features(store, recipe, audited), tags, persons)
    found = doubts(chances, tags, audited["study"].to_pylist())
    index, _ = with_rare_descriptions(store.private, published)
    reviewed = reviewed_studies(mapping, recipe.labels).with_groups
    private, shown = (doubtful_labels(found, audited, one, groups, reviewed) for one in (index, published))
    write_text(store.private_of(recipe.name) / WORKLIST, worklist_csv(private))
    return shown, private, audited


def _write_page(
    store: Store, recipe: Recipe, archive: Archive, rows: pa.Table, audited: pa.Table, index: pa.Table
) -> None:
    """Write `doubtful_labels.html` beside the CSV: its studies with pictures."""
    facts = ("in_doubt", "tags_say", "pixels_say", "study_description", "images")
    shown = [
        (row["study"], row["study"], [(name.replace("_", " "), str(row[name] or "")) for name in facts])
        for row in rows.to_pylist()
    ]
    study_of = dict(zip(audited["sop_instance"].to_pylist(), audited["study"].to_pylist(), strict=True))
    images = audited.select(IMAGES.schema.names)
    at = images.column_names.index("patient")
    each = images.set_column(at, "patient", images["sop_instance"])  # else one picture of each patient is shown
    about = [ABOUT, f"Groups to choose from: {', '.join(recipe.labels.groups)}."]
    write_pictures(
        store, recipe, archive, DOUBTFUL, about, TO_FILL_IN, shown, study_of, index, each.cast(IMAGES.schema)
    )


def _features(store: Store, recipe: Recipe, audited: pa.Table) -> np.ndarray:
    from pipeline.labels.pixel_features import pixel_features

    folder = cache_folder(store.images, recipe.images, recipe.archive)
    chunks = (audited.slice(start, _CHUNK) for start in range(0, audited.num_rows, _CHUNK))
    return np.array([pixel_features(grey) for rows in chunks for grey in load_pixels(folder, rows)])


def _illustrated(store: Store, recipe: Recipe, rows: pa.Table, audited: pa.Table) -> str:
    """The worklist as a Markdown table with pictures of each study."""
    shown = rows.slice(0, ILLUSTRATED)
    studies = shown["study"].to_pylist()
    pictures = example_urls(store, recipe, _first_images(audited, studies))
    return markdown_table(shown, [pictures.get(study, []) for study in studies])


def _first_images(audited: pa.Table, studies: Sequence[str]) -> dict[str, pa.Table]:
    """The first EXAMPLES images of each of `studies`."""
    of_study = audited["study"].to_pylist()
    rows: dict[str, list[int]] = {study: [] for study in studies}
    for row, study in enumerate(of_study):
        if study in rows and len(rows[study]) < EXAMPLES:
            rows[study].append(row)
    return {study: audited.take(found) for study, found in rows.items()}
