"""Map a mask's stored values or segments, PNG or DICOM SEG, to the class numbers of its task."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.dicom.image_files import PngMask
from pipeline.dicom.rejections import Rejected
from pipeline.errors import UserError
from pipeline.tasks.labelled_files import LabelledImage
from pipeline.tasks.seg_reader import Segments

ClassNumbers = npt.NDArray[np.uint8]

_MAX_NAMED: Final = 5  # values in a message


def class_numbers(
    location: str, mask: PngMask | Segments, image: LabelledImage, classes: Sequence[str]
) -> ClassNumbers:
    """The class of each pixel of `image`, height x width. Raises `UserError` with `location` if `mask` does not fit."""
    if isinstance(mask, Segments):
        return _of_segments(location, mask, image, classes)
    _check_size(location, mask.values.shape, image.grey.shape)
    return _of_values(location, mask, len(classes))


def _check_size(location: str, mask_HW: tuple[int, ...], image_HW: tuple[int, ...]) -> None:
    if mask_HW != image_HW:
        mask, image = (f"{height}x{width}" for height, width in (mask_HW, image_HW))
        raise UserError(f"{location}: mask is {mask} pixels, its image {image}.")


def _of_values(location: str, mask: PngMask, count: int) -> ClassNumbers:
    """The values as class numbers; with two classes white means 1."""
    if count == 2 and any(set(mask.levels) <= {0, white} for white in (mask.white, 255)):
        return (mask.values > 0).astype(np.uint8)
    if mask.levels[-1] < count:
        return mask.values.astype(np.uint8)
    allowed = set(range(count)) | ({mask.white} if count == 2 else set())
    invalid = [level for level in mask.levels if level not in allowed] or list(mask.levels)
    more = f" and {len(invalid) - _MAX_NAMED} more" * (len(invalid) > _MAX_NAMED)
    named = ", ".join(map(str, invalid[:_MAX_NAMED])) + more
    white = f" (or 0 and {mask.white} alone)" if count == 2 else ""
    raise UserError(
        f"{location}: mask holds the values {named}; allowed are 0 to {count - 1}{white}. {_cause(mask, count)}"
    )


def _cause(mask: PngMask, count: int) -> str:
    """The probable cause of values that are no classes, and the remedy."""
    if count > 2 and set(mask.levels) <= {0, mask.white, 255}:
        return "It looks like a mask of one class in white: store the number of that class instead."
    if len(mask.levels) > 2 * count:
        return (
            "So many values come from blended edges, by JPEG or by resizing with smoothing: export it as PNG without "
            "smoothing."
        )
    if len(mask.levels) <= count and mask.levels[-1] >= mask.white // 2:
        return f"The classes look scaled to 0 to {mask.white} for display: store their numbers instead."
    return "Either the recipe has too few classes, or edges were blended: export class numbers without smoothing."


def _of_segments(location: str, mask: Segments, image: LabelledImage, classes: Sequence[str]) -> ClassNumbers:
    """Class numbers by the segments' labels, since every program numbers segments in its own way."""
    try:
        frames = mask.of_first_frame(image.sop_instance)
    except Rejected as rejected:
        raise UserError(f"{location}: mask cannot be used: {rejected.rejection.detail}.") from None
    values = np.zeros(image.grey.shape, np.uint8)
    taken = np.zeros(image.grey.shape, np.bool_)
    for frame in frames:
        _check_size(location, frame.mask.shape, values.shape)
        value = _class_of(location, frame.number, frame.label, classes)
        if (frame.mask & taken & (values != value)).any():
            raise UserError(f"{location}: mask has segments of different classes that overlap.")
        values[frame.mask] = value
        taken |= frame.mask
    return values


def _class_of(location: str, number: int, label: str, classes: Sequence[str]) -> int:
    """The class with a segment's label, regardless of case and surrounding spaces."""
    names = [name.casefold() for name in classes]
    if label.strip().casefold() not in names:
        raise UserError(f"{location}: mask: the label of segment {number} is none of {', '.join(classes)}.")
    return names.index(label.strip().casefold())
