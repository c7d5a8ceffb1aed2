"""Metadata of a check of near-duplicates: a small picture of the pairs, and the location of the worklist."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from assets.pictures import picture_url
from pipeline.files import read_table
from pipeline.images.cache import cache_folder
from pipeline.recipe import Recipe
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.cohort.leak_review import Pixels
    from pipeline.cohort.leaks import Leak


def review_metadata(
    store: Store, recipe: Recipe, name: str, leaks: "Sequence[Leak]", pixels: "Pixels", others: "Pixels"
) -> dict[str, Any]:
    """Write the files called `name` for a reviewer of the pairs (`write_review`); returns them as metadata."""
    from pipeline.cohort.leak_review import WORKLISTS, write_review

    table, small = write_review(store.private_of(recipe.name) / WORKLISTS, name, leaks, pixels, others)
    if not leaks:
        return {"near-duplicates": 0}
    return {
        "near-duplicates": len(leaks),
        "side by side": dg.MetadataValue.md(f"![pairs]({picture_url(small)})"),
        "to fill in": table.relative_to(store.root).as_posix(),
    }


def near_pool_metadata(
    store: Store, recipe: Recipe, task: str, near: "Sequence[Leak]", pool: pa.Table
) -> dict[str, Any]:
    """`review_metadata` of a task's test images that are nearly in the pool."""
    from pipeline.cohort.leak_review import cached_pixels, task_pixels

    path = store.experiment(recipe.name).task_images(task)  # which exists if there are pairs
    cached = cached_pixels(pool, cache_folder(store.images, recipe.images, recipe.archive))
    return review_metadata(
        store, recipe, f"{task}_pool", near, task_pixels(lambda: read_table(path), recipe.images), cached
    )


def near_pool_hint(near: "Sequence[Leak]", recipe: Recipe, task: str) -> str:
    """The part of a sentence on test images in the pool that is about those nearly in it; empty if there are none."""
    from pipeline.cohort.leak_review import review_hint

    if not near:
        return ""
    return f" {len({leak.row for leak in near})} of them nearly, {review_hint(near, recipe.name, f'{task}_pool')}."
