"""Near-duplicates for a reviewer: a worklist and a picture of the pairs in the private folder.

Not here: finding the pairs (`leaks`), drawing them (`pair_sheet`).
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.cohort.leaks import CLEARED, WORKLISTS, Leak, cleared_pairs, worklist
from pipeline.cohort.pair_sheet import LARGE, MOST, SMALL, pair_sheet
from pipeline.files import write_text
from pipeline.images.cache import load_pixels
from pipeline.recipe.images import Images
from pipeline.store import Store

NAMED: Final = 5
"""Pairs that a sentence names."""

Pixels = Callable[[Sequence[int]], NDArray[np.uint8]]
"""The images of some rows of a table, N x height x width."""


def uncleared(store: Store, leaks: Collection[Leak]) -> list[Leak]:
    """The pairs that no reviewer has cleared."""
    cleared = cleared_pairs(store.private) if leaks else frozenset()
    return [leak for leak in leaks if leak.pair not in cleared]


def review_hint(leaks: Sequence[Leak], recipe: str, name: str) -> str:
    """Description of the pairs: their review file, their picture, what to do; `name` is that of `write_review`."""
    named = ", ".join(leak.pair for leak in leaks[:NAMED]) + (", …" if len(leaks) > NAMED else "")
    return (
        f"pairs {named}: look at private/experiments/{recipe}/{WORKLISTS}/{name}.png in the store; give images of "
        f"one patient to one side, or name pairs that are not the same in private/{CLEARED}, with the columns of "
        f"{name}.csv there"
    )


def write_review(folder: Path, name: str, leaks: Sequence[Leak], pixels: Pixels, others: Pixels) -> tuple[Path, Path]:
    """Write the worklist and the picture of the pairs to `folder`, or remove them if there are no pairs.

    Returns the worklist and a small picture, in which letters cannot be read.
    """
    table, picture, small = (folder / f"{name}{ending}" for ending in (".csv", ".png", "_small.png"))
    if not leaks:
        for path in (table, picture, small):
            path.unlink(missing_ok=True)
        return table, small
    write_text(table, worklist(leaks))
    drawn = leaks[:MOST]
    first, second = pixels([leak.row for leak in drawn]), others([leak.other_row for leak in drawn])
    captions = [f"{leak.pair} {leak.similarity:.2f}" for leak in drawn]
    pairs = list(zip(captions, first, second, strict=True))
    pair_sheet(pairs, picture, LARGE)
    pair_sheet(pairs, small, SMALL)
    return table, small


def task_pixels(images: Callable[[], pa.Table], size: Images) -> Pixels:
    """The images of a task's table by row."""

    def pixels(rows: Sequence[int]) -> NDArray[np.uint8]:
        content = b"".join(images()["image"].take(rows).to_pylist())
        return np.frombuffer(content, np.uint8).reshape(-1, size.height, size.width)

    return pixels


def cached_pixels(images: pa.Table, folder: Path) -> Pixels:
    """The images of a table of cached images by row."""
    return lambda rows: load_pixels(folder, images.take(rows))
