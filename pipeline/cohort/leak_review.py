"""Near-duplicates for a reviewer: a worklist and a picture of the pairs, and the pairs that the reviewer has cleared.

Not here: finding the pairs (`leaks`).
"""

import re
from collections.abc import Callable, Collection, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.cohort.leaks import Leak
from pipeline.csv_files import csv_text, read_csv
from pipeline.errors import UserError
from pipeline.files import atomic_replace, write_text
from pipeline.images.cache import load_pixels
from pipeline.recipe.images import Images
from pipeline.store import Store

WORKLISTS: Final = "near_duplicates"
"""The private folder with a table and a contact sheet of each check's pairs."""
CLEARED: Final = "not_the_same.csv"
"""The private table in which a reviewer clears pairs whose images are not of one picture or patient."""
COLUMNS: Final = ("pair", "likeness", "first", "second", "reviewer", "reviewed_on")
MOST: Final = 40
"""Maximum number of pairs on a sheet."""
LARGE, SMALL = 200, 48
"""Heights of an image in pixels: for the reviewer, and too small for burned-in text to be legible."""
NAMED: Final = 5
"""Pairs that a sentence names."""

_PAIR: Final = re.compile("[a-p]{12}")
_CAPTION, _GAP, _ACROSS = 14, 10, 3  # pixels, pixels, pairs in a row of the sheet

Pixels = Callable[[Sequence[int]], NDArray[np.uint8]]
"""The images of some rows of a table, N x height x width."""
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""The first and the second images of pairs, each N x height x width."""


def cleared_pairs(private: Path) -> frozenset[str]:
    """The pairs that a reviewer has cleared; empty without a table.

    Rows without a reviewer are not reviewed. Raises `UserError`, naming line and field, for incomplete rows.
    """
    path = private / CLEARED
    if not path.is_file():
        return frozenset()
    cleared = set()
    for row in read_csv("Table", path, ("pair", "reviewer", "reviewed_on"), ("likeness", "first", "second")):
        if not row.cells["reviewer"] and not row.cells["reviewed_on"]:
            continue
        for column in ("pair", "reviewer", "reviewed_on"):
            if not row.cells[column]:
                raise UserError(f"{row.location}: {column} is empty.")
        try:
            date.fromisoformat(row.cells["reviewed_on"])
        except ValueError:
            raise UserError(f"{row.location}: reviewed_on is not a date such as 2026-05-31.") from None
        if not _PAIR.fullmatch(row.cells["pair"]):
            raise UserError(f"{row.location}: pair is not an id of 12 letters from a to p.")
        cleared.add(row.cells["pair"])
    return frozenset(cleared)


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
    write_text(table, _worklist(leaks))
    drawn = leaks[:MOST]
    images = pixels([leak.row for leak in drawn]), others([leak.other_row for leak in drawn])
    _pair_sheet(drawn, images, picture, LARGE)
    _pair_sheet(drawn, images, small, SMALL)
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


def _worklist(leaks: Sequence[Leak]) -> str:
    """The pairs as a CSV in which a reviewer clears a pair by name and date."""
    return csv_text(COLUMNS, ((leak.pair, f"{leak.similarity:.3f}", leak.first, leak.second, "", "") for leak in leaks))


def _pair_sheet(leaks: Sequence[Leak], images: Pair, path: Path, height: int) -> None:
    """Write a PNG to `path`: for each of `leaks` a caption above its two images, `height` pixels high."""
    shown_W = round(height * images[0].shape[2] / images[0].shape[1])
    width = max(120, shown_W)  # room for the caption
    cell_W, cell_H = 2 * width + _GAP, height + _CAPTION + _GAP
    sheet = Image.new("L", (min(_ACROSS, len(leaks)) * cell_W, -(-len(leaks) // _ACROSS) * cell_H), 24)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for number, (leak, *both) in enumerate(zip(leaks, *images, strict=True)):
        left, top = number % _ACROSS * cell_W, number // _ACROSS * cell_H
        draw.text((left + 2, top + 2), f"{leak.pair} {leak.similarity:.2f}", fill=255, font=font)
        for side, image in enumerate(both):
            tile = Image.fromarray(image).resize((max(1, shown_W - 2), height), Image.Resampling.BILINEAR)
            sheet.paste(tile, (left + side * width, top + _CAPTION))
    with atomic_replace(path) as temporary:
        sheet.save(temporary, format="PNG")
