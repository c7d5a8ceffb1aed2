"""A picture for people: what the pool holds, a few images of every pair of labels.

Belongs here: choosing the images, drawing the sheet. Not here: the pool itself, frames before and after the cut
(`archive.crop_sheet`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from pipeline.images.cache import load_pixels

MOST: Final = 4
"""Images of one pair of labels."""

_WIDTH, _HEIGHT = 150, 100  # pixels of one picture
_MARGIN, _CAPTION, _GAP = 84, 18, 12


def contact_sheet(pool: pa.Table, folder: Path, rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Write a PNG to `path`: for every label of `rows` (groups) and of `columns` (probes), images that carry both.

    Without `columns`, images that carry the row's label. `pool` has the columns of `pretraining_pool_table`, `folder`
    is its image cache. At most MOST images of a pair, each of another patient, the first ones in the pool's order: the
    same pool gives the same sheet. Labels are named, images and patients are not. Raises `UserError` where the cache
    does not hold the pool.
    """
    cells = [
        (row, column, _chosen(pool, group, probe))
        for row, group in enumerate(rows)
        for column, probe in enumerate(columns or (None,))
    ]
    wanted = sorted({number for _, _, numbers in cells for number in numbers})
    pixels = load_pixels(folder, pool.take(wanted)) if wanted else np.empty((0, 1, 1), np.uint8)
    sheet = _empty_sheet(rows, columns)
    for row, column, numbers in cells:
        for place, number in enumerate(numbers):
            corner = _left(column) + place * _WIDTH, _CAPTION + row * _HEIGHT
            sheet.paste(_tile(pixels[wanted.index(number)]), corner)
    sheet.save(path, format="PNG")


def _chosen(pool: pa.Table, row: str, column: str | None) -> list[int]:
    """Up to MOST images that carry both labels, of different patients, as rows of the pool."""
    first: dict[str, int] = {}
    labels = zip(pool[row].to_pylist(), pool[column or row].to_pylist(), pool["patient"].to_pylist(), strict=True)
    for number, (one, other, patient) in enumerate(labels):
        if one and other:
            first.setdefault(patient, number)
    return list(first.values())[:MOST]


def _left(column: int) -> int:
    return _MARGIN + column * (MOST * _WIDTH + _GAP)


def _empty_sheet(rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """The sheet without its pictures: the names of rows and columns."""
    sheet = Image.new("L", (_left(max(1, len(columns))) - _GAP, _CAPTION + len(rows) * _HEIGHT), 24)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for column, name in enumerate(columns):
        draw.text((_left(column) + 2, 3), name, fill=255, font=font)
    for row, name in enumerate(rows):
        draw.text((3, _CAPTION + row * _HEIGHT + _HEIGHT // 2 - 5), name, fill=255, font=font)
    return sheet


def _tile(grey_HW: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey_HW).resize((_WIDTH - 2, _HEIGHT - 2), Image.Resampling.BOX)
