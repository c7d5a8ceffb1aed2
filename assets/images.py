"""The image cache, the frames that became no image, and near-duplicates across patients.

Not here: decoding and caching (`pipeline.archive`, `pipeline.images`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from assets.failures import HOOKS
from assets.pictures import picture_url
from assets.step import Step, step
from assets.tables import counts_table, table_metadata, table_version
from pipeline import code_versions
from pipeline.cohort.images_across_split import reject_linking_images
from pipeline.locks import archive_lock
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import IMAGES, NEAR_DUPLICATES, REJECTED_FRAMES
from resources.archive import Archive
from resources.store import StoreFolder
from resources.tracking import Tracking

if TYPE_CHECKING:
    from pipeline.archive.cache_builder import Cache

GROUP = "images"
SAMPLES = 24
"""Images on the crop sheet."""
CUT_BY = {
    "regions": "the ultrasound regions that the header names",
    "detected": "found in the pixels, since the header does not say",
    "whole": "nothing was cut away",
}
"""How the insonated area of an image was found."""
_NO_FRAME_LOST = dg.AssetCheckSpec(
    "no_frame_lost", asset="image_cache", blocking=True, description="frames selected = images + rejected"
)


@dataclass(frozen=True)
class _Cached:
    """What a run of `cache_images` has written."""

    cache: "Cache"
    images: pa.Table
    rejected: pa.Table
    similar: pa.Table
    sheet: Path


def image_assets(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`image_cache` with `rejected_frames` and `near_duplicates`."""

    @dg.multi_asset(hooks=HOOKS, specs=_specs(recipe), check_specs=[_NO_FRAME_LOST], name="cache_images")
    def cache_images(
        context: dg.AssetExecutionContext,
        store: StoreFolder,
        archive: Archive,
        tracking: Tracking,
        dicom_index: pa.Table,
    ) -> Iterator[dg.MaterializeResult[None]]:
        params = {"size": _size(recipe), **recipe.archive.model_dump()}
        with step(context, tracking, recipe, params) as here:
            opened = store.open()
            with here.holding(archive_lock(opened, here.log), dicom_index) as (index,):
                found = _cache(here, opened, archive, index, recipe)
            yield _image_cache(here, found)
            for name, table, rows in (
                ("rejected_frames", REJECTED_FRAMES, found.rejected),
                ("near_duplicates", NEAR_DUPLICATES, found.similar),
            ):
                yield here.made(name, table_version(rows), table_metadata(table, rows), {name: rows.num_rows})

    return [cache_images]


def _size(recipe: Recipe) -> str:
    return f"{recipe.images.height}x{recipe.images.width}"


def _specs(recipe: Recipe) -> list[dg.AssetSpec]:
    archive, size = recipe.archive, _size(recipe)
    of_archive = f"{archive.frames_per_cine}-{archive.b_mode_only}-{'-'.join(archive.modalities)}"
    descriptions = {
        "image_cache": f"One row per image: a frame's insonated area as grey pixels of {size}, in Parquet shards.",
        "rejected_frames": "One row per selected frame that became no image, with its reason.",
        "near_duplicates": "One row per pair of images of different patients that are nearly the same.",
    }
    return [
        dg.AssetSpec(
            name,
            deps=["dicom_index"],
            description=description,
            code_version=f"{code_versions.IMAGES}-{size}-{of_archive}",
            group_name=GROUP,
            kinds={"parquet"},
        )
        for name, description in descriptions.items()
    ]


def _cache(here: Step, store: Store, archive: Archive, index: pa.Table, recipe: Recipe) -> _Cached:
    """Bring the cache up to date with the index, and write the tables of its images."""
    from pipeline.archive.cache_builder import build_cache
    from pipeline.archive.crop_sheet import crop_previews, crop_sheet
    from pipeline.cohort.leaks import archive_pairs

    folder, private, settings = archive.folder, store.private, recipe.archive
    key = archive.key(private)
    cache = build_cache(index, folder, private, key, store.images, recipe.images, settings, here.log)
    images, rejected = reject_linking_images(cache.images, cache.rejected, index, earlier=store)
    similar = archive_pairs(images, cache.folder)
    sheet = cache.folder / "crop_sheet.png"
    crop_sheet(crop_previews(images, index, folder, private, settings.frames_per_cine, SAMPLES), sheet)
    tables = store.experiment(recipe.name).tables
    IMAGES.write(tables, images, recipe)
    REJECTED_FRAMES.write(tables, rejected)
    NEAR_DUPLICATES.write(tables, similar)
    return _Cached(cache, images, rejected, similar, sheet)


def _image_cache(here: Step, found: _Cached) -> dg.MaterializeResult[None]:
    images = found.images
    counts = {"frames": found.cache.frames, "images": images.num_rows, "rejected": found.rejected.num_rows}
    cut = {row["values"]: row["counts"] for row in images["cropped_by"].value_counts().to_pylist()}
    return here.made(
        "image_cache",
        table_version(images),
        {
            **table_metadata(IMAGES, images),
            **counts,
            "files decoded": found.cache.decoded,
            "cropped by": counts_table("cut by", cut, CUT_BY),
            "folder": found.cache.folder.name,
            "before and after": dg.MetadataValue.md(f"![before and after]({picture_url(found.sheet)})"),
        },
        metrics=counts,
        files=[found.sheet],
        checks=[
            dg.AssetCheckResult(
                check_name="no_frame_lost",
                passed=counts["frames"] == counts["images"] + counts["rejected"],
                description="{frames} frames: {images} images, {rejected} rejected".format(**counts),
                metadata=counts,
            ),
        ],
    )
