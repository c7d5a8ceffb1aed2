"""What a frame's regions state, and the part of a frame to keep.

Belongs here: the words that reading and cutting share. Not here: finding the tissue (`tissue`), reading (`pixels`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
"""A grey image, height x width, 0 black to 255 white."""


@dataclass(frozen=True, slots=True)
class UltrasoundRegion:
    """One item of SequenceOfUltrasoundRegions (0018,6011), PS3.3 section C.8.5.5; None where absent or unreadable.

    `x0`, `y0`, `x1`, `y1` are RegionLocationMinX0 and so on: columns and rows from 0, the last ones included.
    `delta_x` and `delta_y` are PhysicalDeltaX and Y per pixel, in `units_x` and `units_y` (3 is centimetres).
    """

    spatial_format: int | None
    data_type: int | None
    flags: int | None
    x0: int | None
    y0: int | None
    x1: int | None
    y1: int | None
    units_x: int | None
    units_y: int | None
    delta_x: float | None
    delta_y: float | None


@dataclass(frozen=True, slots=True)
class CropRegion:
    """The part of a frame that is kept: rows `top` to `bottom`, columns `left` to `right`, the ends not included.

    `inside` is True where a pixel of that box is insonated, None where all of it is. Spacings are millimetres between
    neighbouring rows and columns of the full frame, None where the file does not state them.
    """

    top: int
    bottom: int
    left: int
    right: int
    inside: npt.NDArray[np.bool_] | None
    found_by: Literal["regions", "detected", "whole"]
    row_spacing_mm: float | None
    column_spacing_mm: float | None


def whole_frame_region(grey_HW: Grey, spacing_mm: tuple[float, float] | None) -> CropRegion:
    """All of a frame; `spacing_mm` is (row, column), None where it is not known."""
    height, width = grey_HW.shape
    return CropRegion(0, height, 0, width, None, "whole", *(spacing_mm or (None, None)))
