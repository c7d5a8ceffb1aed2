"""From records to the images every method trains on.

Belongs here: the assets of the group `images`. Not here: decoding and caching (`pipeline.archive`, `pipeline.images`).
"""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa

from assets.step import step
from assets.tables import table_metadata, table_version
from pipeline import code_versions
from pipeline.archive.identifiers import exposed
from pipeline.archive.images import build_cache
from pipeline.cohort.pool import image_digest, label_digest, leaking_patients, pretraining_pool
from pipeline.files import digest, read_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import (
    DICOM_INDEX,
    IMAGES,
    PATIENT_SPLITS,
    REJECTED_FRAMES,
    pretraining_pool_table,
    weak_labels_table,
)
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

GROUP = "images"


def image_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`image_cache` with `rejected_frames`, and `pretraining_pool`."""
    return [_image_cache(recipe), _pretraining_pool(recipe)]


def _image_cache(recipe: Recipe) -> dg.AssetsDefinition:
    size = f"{recipe.images.height}x{recipe.images.width}"
    version = f"{code_versions.IMAGES}-{size}-{recipe.archive.frames_per_cine}"

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                "image_cache",
                deps=["dicom_index"],
                description=f"One row per image: a frame as grey uint8 pixels of {size}, in Parquet shards.",
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            ),
            dg.AssetSpec(
                "rejected_frames",
                deps=["dicom_index"],
                description="One row per selected frame that became no image, with its reason.",
                code_version=version,
                group_name=GROUP,
                kinds={"parquet"},
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "no_frame_lost", asset="image_cache", blocking=True, description="frames selected = images + rejected"
            )
        ],
        name="cache_images",
    )
    def cache_images(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        with step(context, tracking, recipe, {"size": size, **recipe.archive.model_dump()}) as here:
            place = store.open()
            index = DICOM_INDEX.read(place.tables)
            cache = build_cache(
                index, archive.path, place.private, place.images, recipe.images, recipe.archive, here.say
            )
            IMAGES.write(place.tables, cache.images)
            REJECTED_FRAMES.write(place.tables, cache.rejected)
            counts = {
                "frames": cache.frames,
                "images": cache.images.num_rows,
                "rejected": cache.rejected.num_rows,
            }
            yield here.made(
                "image_cache",
                table_version(cache.images),
                {**table_metadata(IMAGES, cache.images), **counts, "folder": cache.folder.name},
                metrics=counts,
                checks=[
                    dg.AssetCheckResult(
                        check_name="no_frame_lost",
                        passed=counts["frames"] == counts["images"] + counts["rejected"],
                        metadata=counts,
                    )
                ],
            )
            yield here.made(
                "rejected_frames", table_version(cache.rejected), table_metadata(REJECTED_FRAMES, cache.rejected)
            )

    return cache_images


def _pretraining_pool(recipe: Recipe) -> dg.AssetsDefinition:
    table = pretraining_pool_table(recipe.labels.names)
    blocking = {
        "no_patient_on_both_sides": "No patient has images in train and in val.",
        "no_test_image_in_pool": "No patient and no image of a task's test set is in the pool.",
        "no_identifier_in_tables": "No identifier of a sample of the archive's files occurs in an archive table.",
    }

    @dg.asset(
        name="pretraining_pool",
        deps=[
            "image_cache",
            "weak_labels",
            "patient_splits",
            "quarantine",
            *(f"{task}_images" for task in recipe.downstream.tasks),
        ],
        description="One row per image that every pretraining method trains or validates on, with split and labels.",
        code_version=f"{code_versions.COHORT}-{recipe.labels.missing}",
        group_name=GROUP,
        kinds={"parquet"},
        check_specs=[
            dg.AssetCheckSpec(name, asset="pretraining_pool", blocking=True, description=says)
            for name, says in blocking.items()
        ],
    )
    def pool(
        context: dg.AssetExecutionContext, store: StoreFolder, archive: Archive, tracking: Tracking
    ) -> Iterator[dg.MaterializeResult[None]]:
        with step(context, tracking, recipe, recipe.labels.model_dump()) as here:
            place = store.open()
            rows = pretraining_pool(
                IMAGES.read(place.tables),
                weak_labels_table(recipe.labels.names).read(place.tables),
                PATIENT_SPLITS.read(place.tables),
                recipe.labels,
            )
            table.write(place.tables, rows)
            counts = {f"images.{side}": rows["split"].to_pylist().count(side) for side in ("train", "val")}
            leaking = leaking_patients(rows)
            shared = shared_with_tests(rows, recipe, place)
            tables = [read_table(path) for path in sorted(place.tables.glob("*.parquet"))]
            identifiers = exposed(archive.path, place.private, tables)
            yield here.made(
                "pretraining_pool",
                digest(image_digest(rows), label_digest(rows))[:16],
                {
                    **table_metadata(table, rows),
                    **counts,
                    "image digest": image_digest(rows),
                    "label digest": label_digest(rows),
                },
                metrics=counts,
                checks=[
                    dg.AssetCheckResult(
                        check_name="no_patient_on_both_sides", passed=not leaking, metadata={"patients": leaking}
                    ),
                    dg.AssetCheckResult(
                        check_name="no_identifier_in_tables",
                        passed=identifiers == 0,
                        metadata={"identifiers": identifiers},
                    ),
                    dg.AssetCheckResult(
                        check_name="no_test_image_in_pool", passed=not any(shared.values()), metadata={"shared": shared}
                    ),
                ],
            )

    return pool


def shared_with_tests(pool: pa.Table, recipe: Recipe, store: Store) -> dict[str, int]:
    """Per task: how many test images share their patient or their pixels with the pool.

    A task whose images are not in the store yet is passed over: fine-tuning asks again.
    """
    shared = {}
    for task in recipe.downstream.tasks:
        path = store.experiment(recipe.name).task_images(task)
        if path.exists():
            shared[task] = count_shared(pool, read_table(path).select(["patient", "image_digest", "split"]))
    return shared


def count_shared(pool: pa.Table, task_images: pa.Table) -> int:
    """Test images of a task whose patient or pixels are in the pool."""
    patients = set(pool["patient"].to_pylist())
    pixels = set(pool["image_digest"].to_pylist())
    return sum(
        row["split"] == "test" and (row["patient"] in patients or row["image_digest"] in pixels)
        for row in task_images.to_pylist()
    )
