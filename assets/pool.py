"""The pretraining pool and its labels.

Not here: which images are in the pool (`pipeline.cohort.pool`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from assets import privacy
from assets.catalog import COHORT
from assets.failures import HOOKS
from assets.labels import MappingVersion
from assets.leaks import near_pool_hint, near_pool_metadata
from assets.pictures import picture_url
from assets.step import Step, step
from assets.tables import markdown_table, table_metadata
from pipeline import code_versions
from pipeline.cohort.patient_aliases import sides_by_name
from pipeline.cohort.pool import (
    FEWEST_PATIENTS,
    label_balance,
    patients_on_both_sides,
    pool_shortage,
    pretraining_pool,
    rare_labels,
    studies_on_both_sides,
)
from pipeline.images.cache import cache_folder
from pipeline.locks import tables_lock
from pipeline.privacy.training_exposure import record_training_set
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import image_digest, label_digest, pretraining_pool_table
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.tasks.pool_overlap import Overlap

_CHECKS = [
    dg.AssetCheckSpec(
        "no_patient_on_both_sides",
        asset="pretraining_pool",
        blocking=True,
        description="No patient, study or series has images in train and in val.",
    ),
    dg.AssetCheckSpec(
        "no_test_image_in_pool",
        asset="pretraining_pool",
        blocking=True,
        description="No patient and no image of a task's test set is in the pool, equal or nearly equal.",
    ),
    privacy.spec("pretraining_pool"),
    dg.AssetCheckSpec(
        "pool_can_train",
        asset="pretraining_pool",
        description="The pool has training and validation images; without them training refuses to start.",
    ),
    dg.AssetCheckSpec(
        "labels_are_balanced",
        asset="pool_labels",
        description=f"Each label is carried, and lacked, by at least {FEWEST_PATIENTS} training patients and "
        "one validation patient.",
    ),
]


@dataclass(frozen=True)
class _Pool:
    """What a run of `pool_images` has written, and what its checks found."""

    rows: pa.Table
    shortage: str
    torn: list[str]
    """Studies and series with images in train and in val."""
    overlaps: "Mapping[str, Overlap]"
    sheet: Path


def pool_assets(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetsDefinition]:
    """`pretraining_pool` and `pool_labels`."""

    @dg.multi_asset(hooks=HOOKS, specs=_specs(recipe, mapping), check_specs=_CHECKS, name="pool_images")
    def pool(
        context: dg.AssetExecutionContext,
        store: StoreFolder,
        archive: Archive,
        tracking: Tracking,
        dicom_index: pa.Table,
        image_cache: pa.Table,
        weak_labels: pa.Table,
        patient_splits: pa.Table,
    ) -> Iterator[dg.MaterializeResult[None]]:
        inputs = dicom_index, image_cache, weak_labels, patient_splits
        with step(context, tracking, recipe, recipe.labels.model_dump()) as here:
            opened = store.open()
            with here.holding(tables_lock(opened, here.log), *inputs) as current:
                found = _write_pool(opened, archive.key(opened.private), recipe, *current)
            yield _pretraining_pool(here, found, opened, archive, recipe)
            yield _pool_labels(here, found.rows, recipe)

    return [pool]


def _specs(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetSpec]:
    size = f"{recipe.images.height}x{recipe.images.width}"
    version = f"{code_versions.COHORT}-{recipe.labels.missing}-{size}"
    tasks = [f"{task}_images" for task in recipe.downstream.tasks]
    return [
        dg.AssetSpec(
            "pretraining_pool",
            deps=["dicom_index", "image_cache", "labelled_records", "patient_splits", "quarantine", *tasks],
            description="One row per image that every pretraining method trains or validates on, with its split. "
            "Why others are not in it: quarantine, labelled_records.",
            code_version=f"{version}-{mapping.membership}",
            group_name=COHORT,
            kinds={"parquet"},
        ),
        dg.AssetSpec(
            "pool_labels",
            deps=["pretraining_pool", "weak_labels"],
            description="The labels of the pool's images, as columns of its table: for the methods that learn "
            "from labels. New labels for the same images leave the encoders of other methods unchanged.",
            code_version=f"{version}-{mapping.meaning}",
            group_name=COHORT,
            kinds={"parquet"},
        ),
    ]


def _write_pool(
    store: Store,
    key: bytes,
    recipe: Recipe,
    index: pa.Table,
    images: pa.Table,
    labels: pa.Table,
    splits: pa.Table,
) -> _Pool:
    """Write the pool's table, its patients and its contact sheet; compare it with the tasks."""
    from pipeline.cohort.contact_sheet import contact_sheet
    from pipeline.tasks.pool_overlap import pool_overlaps

    tables, names = store.experiment(recipe.name).tables, recipe.labels.names
    rows = pretraining_pool(images, labels, splits, recipe.labels)
    pretraining_pool_table(names).write(tables, rows, recipe)
    sides = sides_by_name(rows, index, store.private)
    record_training_set(store.private, image_digest(rows), sides, sides)
    first, *others = (source.names for source in recipe.labels.sources)
    sheet, cache = tables / "contact_sheet.png", cache_folder(store.images, recipe.images, recipe.archive)
    contact_sheet(rows, cache, first, others[0] if others else (), sheet)
    torn = studies_on_both_sides(rows, index)
    return _Pool(
        rows, pool_shortage(rows, images, labels), torn, pool_overlaps(rows, recipe, key, earlier=store), sheet
    )


def _pretraining_pool(
    here: Step, found: _Pool, store: Store, archive: Archive, recipe: Recipe
) -> dg.MaterializeResult[None]:
    rows = found.rows
    counts = {f"images.{side}": rows["split"].to_pylist().count(side) for side in ("train", "val")}
    return here.made(
        "pretraining_pool",
        image_digest(rows)[:16],
        {
            **table_metadata(pretraining_pool_table(recipe.labels.names), rows),
            **counts,
            "image digest": image_digest(rows),
            "by label": dg.MetadataValue.md(f"![images by label]({picture_url(found.sheet)})"),
        },
        metrics=counts,
        files=[found.sheet],
        checks=[
            _no_patient_on_both_sides(patients_on_both_sides(rows), found.torn),
            privacy.no_identifier_exposed(archive.folder, store, recipe),
            _can_train(found.shortage, counts),
            _no_test_image(found, store, recipe),
        ],
    )


def _no_patient_on_both_sides(patients: list[str], torn: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="no_patient_on_both_sides",
        passed=not patients and not torn,
        description=f"{len(patients)} patients and {len(torn)} studies or series have images in train and in val",
        metadata={"patients": ", ".join(patients) or "none", "studies and series": ", ".join(torn) or "none"},
    )


def _can_train(shortage: str, counts: Mapping[str, int]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="pool_can_train",
        passed=not shortage,
        severity=dg.AssetCheckSeverity.WARN,
        description=shortage or f"{counts['images.train']} training and {counts['images.val']} validation images",
        metadata=dict(counts),
    )


def _no_test_image(found: _Pool, store: Store, recipe: Recipe) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {}
    for task, overlap in found.overlaps.items():
        pairs = near_pool_metadata(store, recipe, task, overlap.near, found.rows)
        metadata |= {f"shared with {task}": overlap.count} | {f"{name}: {task}": pairs[name] for name in pairs}
    shared = sum(overlap.count for overlap in found.overlaps.values())
    hints = "".join(near_pool_hint(overlap.near, recipe, task) for task, overlap in found.overlaps.items())
    return dg.AssetCheckResult(
        check_name="no_test_image_in_pool",
        passed=not shared,
        description=f"{shared} test images share patient or pixels with the pool.{hints}",
        metadata=metadata,
    )


def _pool_labels(here: Step, rows: pa.Table, recipe: Recipe) -> dg.MaterializeResult[None]:
    balance = label_balance(rows, recipe.labels.names)
    rare = rare_labels(balance)
    return here.made(
        "pool_labels",
        label_digest(rows)[:16],
        {
            "dagster/row_count": rows.num_rows,
            "label digest": label_digest(rows),
            "patients per label": dg.MetadataValue.md(markdown_table(balance)),
        },
        checks=[
            dg.AssetCheckResult(
                check_name="labels_are_balanced",
                passed=not rare,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"too few patients with or without: {', '.join(rare)}"
                if rare
                else "every label has enough",
                metadata={"labels": len(rare)},
            )
        ],
    )
