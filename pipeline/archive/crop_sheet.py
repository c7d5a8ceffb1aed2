"""Draws the crop sheet: frames before and after cropping, with everything outside the crop made illegible."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.dicom.crop import CropRegion
from pipeline.dicom.grey import Grey

MAX_PREVIEWS: Final = 24
"""Previews on a sheet; further ones are left out."""
MOSAIC: Final = 24
"""Blocks across a frame to which everything outside the crop is averaged. Names there have letters of at most a
fiftieth of the width, so that a block covers two or more."""

_TILE = 220  # pixels, both sides, of one picture
_CAPTION = 18
_ACROSS = 2  # previews in a row: fits Dagster's page without scrolling sideways


@dataclass(frozen=True, slots=True)
class CropPreview:
    """A frame as decoded, its crop region, the cropped frame, and a caption (a file id, never a path)."""

    before_HW: Grey
    crop: CropRegion
    after_HW: Grey
    caption: str


def crop_sheet(previews: Sequence[CropPreview], path: Path) -> None:
    """Write a PNG of up to 24 previews to `path`: before on the left, after on the right, the cropping method below.

    The picture before shows everything outside the crop as coarse blocks.
    """
    drawn = previews[:MAX_PREVIEWS]
    rows = max(1, -(-len(drawn) // _ACROSS))
    sheet = Image.new("L", (_ACROSS * 2 * _TILE, rows * (_TILE + _CAPTION)), 40)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for number, preview in enumerate(drawn):
        left, top = number % _ACROSS * 2 * _TILE, number // _ACROSS * (_TILE + _CAPTION)
        for side, picture in enumerate((_illegible_outside(preview.before_HW, preview.crop), preview.after_HW)):
            tile = Image.fromarray(picture)
            tile.thumbnail((_TILE - 4, _TILE - 4))
            sheet.paste(tile, (left + side * _TILE + 2, top + 2))
        draw.text((left + 2, top + _TILE), f"{preview.caption}  {preview.crop.found_by}", fill=255, font=font)
    if not drawn:
        draw.text((2, 2), "no images", fill=255, font=font)
    sheet.save(path, format="PNG")


def _illegible_outside(grey_HW: Grey, crop: CropRegion) -> Grey:
    """The frame with everything outside the crop averaged to blocks."""
    height, width = grey_HW.shape
    across = min(MOSAIC, width)
    down = max(1, height * across // width)
    coarse = Image.fromarray(grey_HW).resize((across, down), Image.Resampling.BOX)
    blurred = np.array(coarse.resize((width, height), Image.Resampling.NEAREST))
    box = np.s_[crop.top : crop.bottom, crop.left : crop.right]
    blurred[box] = np.where(True if crop.inside is None else crop.inside, grey_HW[box], blurred[box])
    return blurred
