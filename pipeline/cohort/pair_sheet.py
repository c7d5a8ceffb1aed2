"""Contact sheets of near-duplicates, the two images of each pair side by side."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.files import atomic_replace

MOST: Final = 40
"""Maximum number of pairs on a sheet."""
LARGE, SMALL = 200, 48
"""Heights of an image in pixels: for the reviewer, and too small for burned-in text to be legible."""

_CAPTION, _GAP, _ACROSS = 14, 10, 3


def pair_sheet(
    pairs: Sequence[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]], path: Path, height: int
) -> None:
    """Write a PNG to `path`, whole or not at all: caption and images, `height` pixels high, of the first MOST pairs.

    Images are grey, shape (H, W).
    """
    shown = pairs[:MOST]
    width = max([120, *(round(height * image.shape[1] / image.shape[0]) for _, *both in shown for image in both)])
    cell_W, cell_H = 2 * width + _GAP, height + _CAPTION + _GAP
    sheet = Image.new("L", (min(_ACROSS, max(1, len(shown))) * cell_W, max(1, -(-len(shown) // _ACROSS)) * cell_H), 24)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for number, (caption, *both) in enumerate(shown):
        left, top = number % _ACROSS * cell_W, number // _ACROSS * cell_H
        draw.text((left + 2, top + 2), caption, fill=255, font=font)
        for side, image in enumerate(both):
            sheet.paste(_tile(image, height), (left + side * width, top + _CAPTION))
    content = BytesIO()
    sheet.save(content, format="PNG")
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _tile(image: npt.NDArray[np.uint8], height: int) -> Image.Image:
    """The image resized to `height`, two pixels narrower as a gap."""
    width = round(height * image.shape[1] / image.shape[0])
    return Image.fromarray(image).resize((max(1, width - 2), height), Image.Resampling.BILINEAR)
