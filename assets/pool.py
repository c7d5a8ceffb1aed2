"""The pretraining pool and its labels; `pipeline.cohort.pool` decides which images are in it."""

from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets.catalog import COHORT
from assets.failures import HOOKS
from assets.labels import MappingVersion
from assets.pictures import picture_url
from assets.step import Context, Materializations, Step, step
from assets.tables import markdown_table, table_metadata
from pipeline import code_versions
from pipeline.cohort.patient_aliases import sides_by_name
from pipeline.cohort.pool import label_balance, pretraining_pool
from pipeline.images.cache import cache_folder
from pipeline.locks import tables_lock
from pipeline.privacy.training_exposure import record_training_set
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import image_digest, label_digest, pretraining_pool_table
from resources.store import StoreFolder
from resources.tracking import Tracking


def pool_assets(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetsDefinition]:
    """`pretraining_pool` and `pool_labels`."""

    @dg.multi_asset(hooks=HOOKS, specs=_specs(recipe, mapping), name="pool_images")
    def pool(
        context: Context,
        store: StoreFolder,
        tracking: Tracking,
        dicom_index: pa.Table,
        image_cache: pa.Table,
        weak_labels: pa.Table,
        patient_splits: pa.Table,
    ) -> Materializations:
        inputs = dicom_index, image_cache, weak_labels, patient_splits
        with step(context, store, tracking, recipe, recipe.labels.model_dump()) as here:
            with here.holding(tables_lock(here.store, here.log), *inputs) as current:
                rows, sheet = _write_pool(here.store, recipe, *current)
            yield _pretraining_pool(here, rows, sheet, recipe)
            yield _pool_labels(here, rows, recipe)

    return [pool]


def _specs(recipe: Recipe, mapping: MappingVersion) -> list[dg.AssetSpec]:
    size = f"{recipe.images.height}x{recipe.images.width}"
    version = f"{code_versions.COHORT}-{recipe.labels.missing}-{size}"
    tasks = [f"{task}_images" for task in recipe.downstream.tasks]
    spec = partial(dg.AssetSpec, group_name=COHORT, kinds={"parquet"})
    return [
        spec(
            "pretraining_pool",
            deps=["dicom_index", "image_cache", "labelled_records", "patient_splits", "quarantine", *tasks],
            description="One row per image that every pretraining method trains or validates on, with its split. "
            "Why others are not in it: quarantine, labelled_records.",
            code_version=f"{version}-{mapping.membership}",
        ),
        spec(
            "pool_labels",
            deps=["pretraining_pool", "weak_labels"],
            description="The labels of the pool's images, as columns of its table: for the methods that learn "
            "from labels. New labels for the same images leave the encoders of other methods unchanged.",
            code_version=f"{version}-{mapping.meaning}",
        ),
    ]


def _write_pool(
    store: Store, recipe: Recipe, index: pa.Table, images: pa.Table, labels: pa.Table, splits: pa.Table
) -> tuple[pa.Table, Path]:
    """Write the pool's table, its patients and its contact sheet; returns the table and the sheet's path."""
    from pipeline.cohort.contact_sheet import contact_sheet

    tables, names = store.experiment(recipe.name).tables, recipe.labels.names
    rows = pretraining_pool(images, labels, splits, recipe.labels)
    pretraining_pool_table(names).write(tables, rows, recipe)
    sides = sides_by_name(rows, index, store.private)
    record_training_set(store.private, image_digest(rows), sides, sides)
    first, *others = (source.names for source in recipe.labels.sources)
    sheet, cache = tables / "contact_sheet.png", cache_folder(store.images, recipe.images, recipe.archive)
    contact_sheet(rows, cache, first, others[0] if others else (), sheet)
    return rows, sheet


def _pretraining_pool(here: Step, rows: pa.Table, sheet: Path, recipe: Recipe) -> dg.MaterializeResult[None]:
    counts = {f"images.{side}": rows["split"].to_pylist().count(side) for side in ("train", "val")}
    return here.made(
        "pretraining_pool",
        image_digest(rows)[:16],
        {
            **table_metadata(pretraining_pool_table(recipe.labels.names), rows),
            **counts,
            "image digest": image_digest(rows),
            "by label": dg.MetadataValue.md(f"![images by label]({picture_url(sheet)})"),
        },
        metrics=counts,
        files=[sheet],
    )


def _pool_labels(here: Step, rows: pa.Table, recipe: Recipe) -> dg.MaterializeResult[None]:
    balance = label_balance(rows, recipe.labels.names)
    return here.made(
        "pool_labels",
        label_digest(rows)[:16],
        {
            "dagster/row_count": rows.num_rows,
            "label digest": label_digest(rows),
            "patients per label": dg.MetadataValue.md(markdown_table(balance)),
        },
    )
