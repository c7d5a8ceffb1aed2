"""Detect colour flow in a frame's crop region by its pixels."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.dicom.crop import CropRegion

_Floats = npt.NDArray[np.float32]
_Mask = npt.NDArray[np.bool_]

BRIGHT: Final = 48
"""Below this level, colour is noise."""
COLOURED: Final = 0.25
"""Saturation, 0 to 1, from which a pixel is coloured; a grey image that went through JPEG as colour has none."""
COLOUR_SHARE, LEAST_COLOURED = 0.01, 0.004
"""Colour flow has more than these shares of the bright pixels, and of all pixels, in colour. Real flow has 0.1 to 0.4
and 0.04 to 0.11; highlighted rows of a table on an otherwise black image have 0.1 and 0.003."""
WEAK_TINT, OFF_TINT, HIGHLIGHT = 0.1, 0.35, 192
"""A median saturation from which a frame is tinted; the distance from the tint that is another colour; the level from
which a tint may fade to white."""
WIDEST_STROKE: Final = 6
"""Pixels of the full frame: narrower colour is a letter, a line or a caliper."""
SAMPLES: Final = 60_000
"""Approximate number of pixels that are examined."""


def has_colour_flow(rgb_hwC: npt.NDArray[np.uint8], crop: CropRegion, shape_HW: tuple[int, int]) -> bool:
    """Whether the crop region shows colour flow; `rgb_hwC` is the frame of `shape_HW` or a reduced copy of it.

    Only colour other than the frame's one tint (sepia, blue), and wider than text and drawings, counts. Flow of one hue
    that fills the whole region looks like a tint.
    """
    colours, inside, step = _samples(rgb_hwC, crop, shape_HW)
    peak = colours.max(axis=0)
    bright = inside & (peak > BRIGHT)
    if not bright.any():
        return False
    solid = ndimage.minimum_filter(bright & _off_tint(colours, peak, bright), max(2, round(WIDEST_STROKE / step)))
    return bool(np.count_nonzero(solid) > max(COLOUR_SHARE * np.count_nonzero(bright), LEAST_COLOURED * inside.sum()))


def _off_tint(colours_Chw: _Floats, peak_hw: _Floats, bright_hw: _Mask) -> _Mask:
    """Which pixels have a colour other than the frame's greys or its one tint."""
    red, green, blue = colours_Chw
    peak = np.maximum(peak_hw, 1)
    # Hue and saturation as a point in the plane: a grey lies at the origin, a pure colour at the distance 1.
    across, up = (red - (green + blue) / 2) / peak, (green - blue) * np.float32(3**0.5 / 2) / peak
    middle = np.median(across[bright_hw]), np.median(up[bright_hw])
    tint, saturation = np.hypot(*middle), np.hypot(across, up)
    if tint < WEAK_TINT:
        return np.asarray(saturation > COLOURED, np.bool_)
    # Tinted maps grow pale in their highlights: that is no second colour.
    pale = (peak >= HIGHLIGHT) & (saturation < tint)
    return np.asarray((np.hypot(across - middle[0], up - middle[1]) > OFF_TINT) & ~pale, np.bool_)


def _samples(rgb_hwC: npt.NDArray[np.uint8], crop: CropRegion, shape_HW: tuple[int, int]) -> tuple[_Floats, _Mask, int]:
    """A grid of about `SAMPLES` pixels: colours as three planes, which are insonated, the step in the full frame."""
    factor = max(1, round(shape_HW[0] / rgb_hwC.shape[0]))
    box = rgb_hwC[crop.top // factor : -(-crop.bottom // factor), crop.left // factor : -(-crop.right // factor)]
    every = max(1, round((box.shape[0] * box.shape[1] / SAMPLES) ** 0.5))
    box = box[::every, ::every]
    inside = np.ones(box.shape[:2], np.bool_)
    if crop.inside is not None:
        mask = crop.inside[:: factor * every, :: factor * every][: box.shape[0], : box.shape[1]]
        inside[:] = False
        inside[: mask.shape[0], : mask.shape[1]] = mask
    return np.ascontiguousarray(np.moveaxis(box, 2, 0), np.float32), inside, factor * every
