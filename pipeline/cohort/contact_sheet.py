"""The contact sheet of the pool: a few images of every pair of labels as one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from pipeline.images.cache import load_pixels

MOST: Final = 4
"""Maximum number of images of one pair of labels."""

_WIDTH, _HEIGHT = 150, 100  # pixels of one picture
_MARGIN, _CAPTION, _GAP = 84, 18, 12


def contact_sheet(pool: pa.Table, folder: Path, rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Write a PNG to `path`: for every label of `rows` (groups) and of `columns` (probes), images with both labels.

    Without `columns`, images with the row's label. `pool` has the columns of `pretraining_pool_table`, `folder` is its
    image cache. Each pair shows its first MOST images of different patients, so that the same pool gives the same
    sheet. Captions name labels, neither images nor patients. Raises `UserError` if the cache does not hold the pool.
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
        for slot, number in enumerate(numbers):
            corner = _left(column) + slot * _WIDTH, _CAPTION + row * _HEIGHT
            sheet.paste(_tile(pixels[wanted.index(number)]), corner)
    sheet.save(path, format="PNG")


def _chosen(pool: pa.Table, row: str, column: str | None) -> list[int]:
    """Rows of the pool of up to MOST images with both labels, of different patients."""
    first: dict[str, int] = {}
    labels = zip(pool[row].to_pylist(), pool[column or row].to_pylist(), pool["patient"].to_pylist(), strict=True)
    for number, (one, other, patient) in enumerate(labels):
        if one and other:
            first.setdefault(patient, number)
    return list(first.values())[:MOST]


def _left(column: int) -> int:
    return _MARGIN + column * (MOST * _WIDTH + _GAP)


def _empty_sheet(rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """The sheet with the names of rows and columns, without images."""
    sheet = Image.new("L", (_left(max(1, len(columns))) - _GAP, _CAPTION + len(rows) * _HEIGHT), 24)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for column, name in enumerate(columns):
        draw.text((_left(column) + 2, 3), name, fill=255, font=font)
    for row, name in enumerate(rows):
        draw.text((3, _CAPTION + row * _HEIGHT + _HEIGHT // 2 - 5), name, fill=255, font=font)
    return sheet


def _tile(grey_HW: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey_HW).resize((_WIDTH - 2, _HEIGHT - 2), Image.Resampling.BOX)
