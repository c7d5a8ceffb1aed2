"""The part of a frame to keep: its tissue, by the file's regions, otherwise by the pixels."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pipeline.dicom.grey import Grey
from pipeline.dicom.regions import UltrasoundRegion
from pipeline.dicom.rejections import Reason, Rejected
from pipeline.dicom.tissue import NEARLY_ALL, detect_tissue

SMALLEST_SIDE: Final = 0.05
"""A tissue region with a shorter side, as a share of the frame's, is taken for an error of the writer."""

_Box = tuple[int, int, int, int]  # top, bottom, left, right; half-open
_FoundBy = Literal["regions", "detected", "whole"]
_Spacing = tuple[float, float]  # row, column; millimetres


@dataclass(frozen=True, slots=True)
class CropRegion:
    """The part of a frame that is kept: rows `top` to `bottom`, columns `left` to `right`, half-open.

    `inside` is True for the insonated pixels of that box, None if all are. Spacings are millimetres between
    neighbouring rows and columns of the full frame, None if unknown.
    """

    top: int
    bottom: int
    left: int
    right: int
    inside: npt.NDArray[np.bool_] | None
    found_by: _FoundBy
    row_spacing_mm: float | None
    column_spacing_mm: float | None


def whole_frame_region(grey_HW: Grey, spacing_mm: _Spacing | None) -> CropRegion:
    """All of a frame; `spacing_mm` is (row, column), None if unknown."""
    height, width = grey_HW.shape
    return CropRegion(0, height, 0, width, None, "whole", *(spacing_mm or (None, None)))


def crop_frame(grey_HW: Grey, crop: CropRegion) -> Grey:
    """The box of `crop` as an image of its own, black outside the insonated area."""
    box = grey_HW[crop.top : crop.bottom, crop.left : crop.right]
    return box.copy() if crop.inside is None else box * crop.inside


def crop_region_of_frame(
    grey_HW: Grey, regions: tuple[UltrasoundRegion, ...], spacing_mm: _Spacing | None
) -> CropRegion:
    """The part of one frame that shows tissue; see `find_crop_region`."""
    return find_crop_region((grey_HW,), regions, spacing_mm)


def find_crop_region(
    greys_HW: Iterable[Grey], regions: tuple[UltrasoundRegion, ...], spacing_mm: _Spacing | None
) -> CropRegion:
    """The part of a file's frames, at least one, that shows tissue.

    From usable `regions`: the box around all two-dimensional tissue regions, black between them. Otherwise from the
    pixels: the convex hull of the largest textured, filled parts (text, rulers and grey bars are neither), the union
    over all frames. In doubt (dark frames, little tissue, or nearly all of the frame) the whole frame.

    `spacing_mm` is (row, column) as PixelSpacing states it; the regions' own spacing takes precedence.
    Raises `Rejected` (not_b_mode) if the regions state colour flow, or a spectrum or M-mode without tissue in two
    dimensions.
    """
    tissue = [region for region in regions if region.is_tissue]
    _check_b_mode(regions, tissue)
    frames = iter(greys_HW)
    first_HW = next(frames)
    boxes = {region: box for region in tissue if (box := _box(region, first_HW.shape))}
    spacing = _stated_spacing(boxes) or _usable(spacing_mm)
    # A region of the whole screen, as some vendors write it, does not locate the tissue.
    if boxes and not any(_size(box) / first_HW.size > NEARLY_ALL for box in boxes.values()):
        stated_HW = np.zeros(first_HW.shape, np.bool_)
        for top, bottom, left, right in boxes.values():
            stated_HW[top:bottom, left:right] = True
        return _bounding(stated_HW, "regions", spacing)
    inside_HW = detect_tissue(chain((first_HW,), frames))
    return whole_frame_region(first_HW, spacing) if inside_HW is None else _bounding(inside_HW, "detected", spacing)


def _check_b_mode(regions: tuple[UltrasoundRegion, ...], tissue: list[UltrasoundRegion]) -> None:
    """Raise `Rejected` for colour flow on the tissue, and for frames that hold other ultrasound but no tissue."""
    flow = [region for region in regions if region.is_colour_flow]
    if any(region.overlaps(other) for region in flow for other in tissue) or (flow and not tissue):
        raise Rejected(Reason.NOT_B_MODE, "its regions state colour flow")
    # ECG traces, grey bars and graphics alone mean nothing: a vendor that lists them need not list the image.
    if not tissue and any(region.is_m_mode_or_spectrum for region in regions):
        raise Rejected(Reason.NOT_B_MODE, "its regions state M-mode or spectrum, and no tissue in two dimensions")


def _box(region: UltrasoundRegion, shape_HW: tuple[int, ...]) -> _Box | None:
    """The region's pixels within the frame; None if it is implausible."""
    if region.x0 is None or region.y0 is None or region.x1 is None or region.y1 is None:
        return None
    height, width = shape_HW
    top, bottom = max(region.y0, 0), min(region.y1 + 1, height)
    left, right = max(region.x0, 0), min(region.x1 + 1, width)
    if bottom - top <= SMALLEST_SIDE * height or right - left <= SMALLEST_SIDE * width:
        return None
    # Frames that were scaled down after the regions were written have them mostly outside: clipped, they would cut
    # the tissue. One row or column too many is common, and a frame cut at one side keeps most of its region.
    stated = (region.y1 + 1 - region.y0) * (region.x1 + 1 - region.x0)
    box = top, bottom, left, right
    return box if _size(box) * 2 > stated else None


def _size(box: _Box) -> int:
    return (box[1] - box[0]) * (box[3] - box[2])


def _stated_spacing(boxes: dict[UltrasoundRegion, _Box]) -> _Spacing | None:
    """Millimetres between rows and columns, of the largest region that states centimetres on both axes."""
    for region, _ in sorted(boxes.items(), key=lambda pair: -_size(pair[1])):
        if region.is_in_centimetres and region.delta_x and region.delta_y:
            # A negative delta counts upwards or leftwards.
            return _usable((abs(region.delta_y) * 10, abs(region.delta_x) * 10))
    return None


def _usable(spacing_mm: _Spacing | None) -> _Spacing | None:
    return spacing_mm if spacing_mm and all(0 < side < np.inf for side in spacing_mm) else None


def _bounding(inside_HW: npt.NDArray[np.bool_], found_by: _FoundBy, spacing: _Spacing | None) -> CropRegion:
    """The box around a mask of the whole frame."""
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    inside = inside_HW[top:bottom, left:right]
    mask = None if inside.all() else inside
    return CropRegion(top, bottom, left, right, mask, found_by, *(spacing or (None, None)))
