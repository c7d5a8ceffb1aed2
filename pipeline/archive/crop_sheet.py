"""A picture for people: frames before and after they were cut to the tissue.

Belongs here: drawing the mosaic, and making illegible in it what was cut away. Not here: choosing frames, the cutting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.dicom.crop import CropRegion
from pipeline.dicom.grey import Grey

MOST_PAIRS: Final = 24
"""Pairs in a sheet; further ones are left out."""
MOSAIC: Final = 24
"""Blocks across a frame to which what lies outside the area is averaged. Names are written there, in letters of a
fiftieth of the width or less: a block holds two or more of them."""

_TILE = 220  # pixels, both sides, of one picture
_CAPTION = 18
_ACROSS = 2  # pairs in a row: what Dagster's page shows without scrolling sideways


@dataclass(frozen=True, slots=True)
class Pair:
    """A frame as decoded, the area that was kept, the cut-out, and how the frame is named (a file id, never a path)."""

    before_HW: Grey
    area: CropRegion
    after_HW: Grey
    caption: str


def crop_sheet(pairs: Sequence[Pair], path: Path) -> None:
    """Write a PNG mosaic of up to 24 pairs to `path`: before on the left, after on the right, how it was found below.

    In the picture before, all that lies outside the kept area is averaged to coarse blocks.
    """
    shown = pairs[:MOST_PAIRS]
    rows = max(1, -(-len(shown) // _ACROSS))
    sheet = Image.new("L", (_ACROSS * 2 * _TILE, rows * (_TILE + _CAPTION)), 40)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for number, pair in enumerate(shown):
        left, top = number % _ACROSS * 2 * _TILE, number // _ACROSS * (_TILE + _CAPTION)
        for side, picture in enumerate((_illegible_outside(pair.before_HW, pair.area), pair.after_HW)):
            tile = Image.fromarray(picture)
            tile.thumbnail((_TILE - 4, _TILE - 4))
            sheet.paste(tile, (left + side * _TILE + 2, top + 2))
        draw.text((left + 2, top + _TILE), f"{pair.caption}  {pair.area.found_by}", fill=255, font=font)
    if not shown:
        draw.text((2, 2), "no images", fill=255, font=font)
    sheet.save(path, format="PNG")


def _illegible_outside(grey_HW: Grey, area: CropRegion) -> Grey:
    """The frame with the kept area as it is, and everything else averaged to blocks."""
    height, width = grey_HW.shape
    across = min(MOSAIC, width)
    down = max(1, height * across // width)
    coarse = Image.fromarray(grey_HW).resize((across, down), Image.Resampling.BOX)
    shown = np.array(coarse.resize((width, height), Image.Resampling.NEAREST))
    box = np.s_[area.top : area.bottom, area.left : area.right]
    shown[box] = np.where(True if area.inside is None else area.inside, grey_HW[box], shown[box])
    return shown
