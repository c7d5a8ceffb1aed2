"""Near-duplicates in Dagster: what a check of them says, and what a reviewer gets.

Belongs here: the sentence, the private worklist and its picture, what was found before. Not here: the pairs
(`pipeline.cohort.leaks`), the assets whose checks these are.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.pictures import picture_url
from pipeline.files import digest, read_json, write_json, write_text
from pipeline.recipe import Recipe
from pipeline.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from pipeline.cohort.leaks import Leak

NAMED = 5
"""Pairs that a sentence names."""

Pixels = Callable[[Sequence[int]], "NDArray[np.uint8]"]
"""The images of some rows of a table, N x height x width."""


def uncleared(store: Store, leaks: "Collection[Leak]") -> "list[Leak]":
    """The pairs that no reviewer has cleared."""
    from pipeline.cohort.leaks import cleared_pairs

    cleared = cleared_pairs(store.private) if leaks else frozenset()
    return [leak for leak in leaks if leak.pair not in cleared]


def told(leaks: "Sequence[Leak]", recipe: Recipe, name: str) -> str:
    """Which pairs they are, where they can be seen and what to do; `name` is that of `shown`."""
    from pipeline.cohort.leaks import CLEARED, WORKLISTS

    named = ", ".join(leak.pair for leak in leaks[:NAMED]) + (", …" if len(leaks) > NAMED else "")
    return (
        f"pairs {named}: look at private/experiments/{recipe.name}/{WORKLISTS}/{name}.png in the store; give images of "
        f"one patient to one side, or name pairs that are not the same in private/{CLEARED}, with the columns of "
        f"{name}.csv there"
    )


def shown(
    store: Store, recipe: Recipe, name: str, leaks: "Sequence[Leak]", pixels: Pixels, others: Pixels
) -> dict[str, Any]:
    """Write the worklist of the pairs and their picture to the private folder; returns metadata, with a small picture.

    The small picture shows images as high as letters in them cannot be read.
    """
    from pipeline.cohort.leaks import WORKLISTS, worklist
    from pipeline.cohort.pair_sheet import LARGE, MOST, SMALL, pair_sheet

    folder = store.private_of(recipe.name) / WORKLISTS
    table, picture, small = (folder / f"{name}{ending}" for ending in (".csv", ".png", "_small.png"))
    if not leaks:
        for path in (table, picture, small):
            path.unlink(missing_ok=True)
        return {"near-duplicates": 0}
    write_text(table, worklist(leaks))
    drawn = leaks[:MOST]
    first, second = pixels([leak.row for leak in drawn]), others([leak.other_row for leak in drawn])
    captions = [f"{leak.pair} {leak.similarity:.2f}" for leak in drawn]
    pairs = list(zip(captions, first, second, strict=True))
    pair_sheet(pairs, picture, LARGE)
    pair_sheet(pairs, small, SMALL)
    sheet = dg.MetadataValue.md(f"![pairs]({picture_url(small)})")
    where = table.relative_to(store.root).as_posix()
    return {"near-duplicates": len(leaks), "side by side": sheet, "to fill in": where}


def task_pixels(images: "Callable[[], pa.Table]", recipe: Recipe) -> Pixels:
    """The images of a task's table by row."""
    import numpy as np

    def pixels(rows: Sequence[int]) -> "NDArray[np.uint8]":
        content = b"".join(images()["image"].take(rows).to_pylist())
        return np.frombuffer(content, np.uint8).reshape(-1, recipe.images.height, recipe.images.width)

    return pixels


def cached_pixels(images: "pa.Table", folder: Path) -> Pixels:
    """The images of a table of cached images by row."""
    from pipeline.images.cache import load_pixels

    return lambda rows: load_pixels(folder, images.take(rows))


def near_pool(store: Store, recipe: Recipe, task: str, images: "pa.Table", pool: "pa.Table") -> "list[Leak]":
    """The near-duplicates of a task's test images in the pool; kept beside the task's images until one changes."""
    from pipeline.cohort.leaks import Leak, pool_leaks
    from pipeline.cohort.similarity import MIN_SIMILARITY
    from pipeline.images.cache import cache_folder
    from pipeline.tables import image_digest

    kept = store.experiment(recipe.name).task_images(task).with_suffix(".near_pool.json")
    sides = images["image_digest"].to_pylist(), images["split"].to_pylist()
    key = digest(1, MIN_SIMILARITY, *sides, image_digest(pool))
    known = read_json(kept) if kept.is_file() else {}
    if known.get("key") == key:
        return [Leak(**leak) for leak in known["pairs"]]
    found = pool_leaks(task, images, pool, cache_folder(store.images, recipe.images, recipe.archive))
    write_json(kept, {"key": key, "pairs": [vars(leak) for leak in found]})
    return found
