"""The image cache, the frames that became no image, and near-duplicates across patients."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from assets.failures import HOOKS
from assets.pictures import picture_url
from assets.step import Context, Materializations, Step, none_lost, step
from assets.tables import counts_table, table_metadata, table_version
from pipeline import code_versions
from pipeline.cohort.images_across_split import reject_linking_images
from pipeline.locks import archive_lock
from pipeline.recipe import Recipe
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
        context: Context, store: StoreFolder, archive: Archive, tracking: Tracking, dicom_index: pa.Table
    ) -> Materializations:
        params = {"size": _size(recipe), **recipe.archive.model_dump()}
        with step(context, store, tracking, recipe, params) as here:
            with here.holding(archive_lock(here.store, here.log), dicom_index) as (index,):
                found = _cache(here, archive, index, recipe)
            yield _image_cache(here, found)
            for table, rows in ((REJECTED_FRAMES, found.rejected), (NEAR_DUPLICATES, found.similar)):
                metrics = {table.name: rows.num_rows}
                yield here.made(table.name, table_version(rows), table_metadata(table, rows), metrics)

    return [cache_images]


def _size(recipe: Recipe) -> str:
    return f"{recipe.images.height}x{recipe.images.width}"


def _specs(recipe: Recipe) -> list[dg.AssetSpec]:
    archive, size = recipe.archive, _size(recipe)
    of_archive = f"{archive.frames_per_cine}-{archive.b_mode_only}-{'-'.join(archive.modalities)}"
    version = f"{code_versions.IMAGES}-{size}-{of_archive}"
    spec = partial(dg.AssetSpec, deps=["dicom_index"], code_version=version, group_name=GROUP, kinds={"parquet"})
    cached = f"One row per image: a frame's insonated area as grey pixels of {size}, in Parquet shards."
    similar = "One row per pair of images of different patients that are nearly the same."
    return [
        spec("image_cache", description=cached),
        spec("rejected_frames", description="One row per selected frame that became no image, with its reason."),
        spec("near_duplicates", description=similar),
    ]


def _cache(here: Step, archive: Archive, index: pa.Table, recipe: Recipe) -> _Cached:
    """Bring the cache up to date with the index, and write the tables of its images."""
    from pipeline.archive.cache_builder import build_cache
    from pipeline.archive.crop_sheet import FrameSource, crop_previews, crop_sheet
    from pipeline.cohort.leaks import archive_pairs

    store, folder, settings = here.store, archive.folder, recipe.archive
    private = store.private
    key = archive.key(private)
    cache = build_cache(index, folder, private, key, store.images, recipe.images, settings, here.log)
    images, rejected = reject_linking_images(cache.images, cache.rejected, index, earlier=store)
    similar = archive_pairs(images, cache.folder)
    sheet = cache.folder / "crop_sheet.png"
    source = FrameSource(index, folder, private, settings.frames_per_cine)
    crop_sheet(crop_previews(images, source, SAMPLES), sheet)
    tables = store.experiment(recipe.name).tables
    IMAGES.write(tables, images, recipe)
    REJECTED_FRAMES.write(tables, rejected)
    NEAR_DUPLICATES.write(tables, similar)
    return _Cached(cache, images, rejected, similar, sheet)


def _image_cache(here: Step, found: _Cached) -> dg.MaterializeResult[None]:
    images = found.images
    counts = {"frames": found.cache.frames, "images": images.num_rows, "rejected": found.rejected.num_rows}
    return here.made(
        "image_cache",
        table_version(images),
        {
            **table_metadata(IMAGES, images),
            **counts,
            "files decoded": found.cache.decoded,
            "cropped by": counts_table("cut by", Counter(images["cropped_by"].to_pylist()), CUT_BY),
            "folder": found.cache.folder.name,
            "before and after": dg.MetadataValue.md(f"![before and after]({picture_url(found.sheet)})"),
        },
        metrics=counts,
        files=[found.sheet],
        checks=[none_lost("no_frame_lost", counts)],
    )
