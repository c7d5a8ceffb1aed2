"""A row's mask, PNG or DICOM SEG, as the class numbers of its task.

Belongs here: what stored values and segments mean, and the sentence for those that mean nothing. Not here: decoding
(`pipeline.tasks.labelled_files`), bringing a mask to size (`manifests`).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.archive.workers import Failed
from pipeline.dicom.png_jpeg import PngMask
from pipeline.dicom.rejections import Rejected, Rejection, UnreadableFile
from pipeline.errors import UserError
from pipeline.tasks.labelled_files import LabelledImage
from pipeline.tasks.seg_reader import Segments

ClassNumbers = npt.NDArray[np.uint8]
MaskRead = PngMask | Segments | Rejection | UnreadableFile | Failed

_NAMED: Final = 5  # values that a message names


def class_numbers(place: str, read: MaskRead, picture: LabelledImage, classes: Sequence[str]) -> ClassNumbers:
    """The class of each pixel of `picture`, height x width.

    Raises `UserError`, which begins with `place`, where the mask cannot be read or is not one of `picture`.
    """
    match read:
        case UnreadableFile():
            raise UserError(f"{place}: mask cannot be opened: {read.why}.")
        case Failed():
            raise UserError(f"{place}: mask cannot be read: {read.rejection.detail}.")
        case Rejection():
            raise UserError(f"{place}: mask cannot be read: {read.detail}.")
        case PngMask():
            _check_size(place, read.values.shape, picture.grey.shape)
            return _of_values(place, read, len(classes))
        case Segments():
            return _of_segments(place, read, picture, classes)


def _check_size(place: str, mask_HW: tuple[int, ...], image_HW: tuple[int, ...]) -> None:
    if mask_HW != image_HW:
        mask, image = (f"{height}x{width}" for height, width in (mask_HW, image_HW))
        raise UserError(f"{place}: mask is {mask} pixels, its image {image}.")


def _of_values(place: str, mask: PngMask, count: int) -> ClassNumbers:
    """The values where they are class numbers; of two classes the brightest value means 1."""
    if count == 2 and any(set(mask.levels) <= {0, white} for white in (mask.white, 255)):
        return (mask.values > 0).astype(np.uint8)
    if mask.levels[-1] < count:
        return mask.values.astype(np.uint8)
    allowed = set(range(count)) | ({mask.white} if count == 2 else set())
    strange = [level for level in mask.levels if level not in allowed] or list(mask.levels)
    named = ", ".join(map(str, strange[:_NAMED])) + (f" and {len(strange) - _NAMED} more" * (len(strange) > _NAMED))
    white = f" (or 0 and {mask.white} alone)" if count == 2 else ""
    raise UserError(
        f"{place}: mask holds the values {named}; allowed are 0 to {count - 1}{white}. {_cause(mask, count)}"
    )


def _cause(mask: PngMask, count: int) -> str:
    """What is likely to have happened to a mask with values that are no classes, and what to do."""
    if count > 2 and set(mask.levels) <= {0, mask.white, 255}:
        return "It looks like a mask of one class in white: write the number of its class instead."
    if len(mask.levels) > 2 * count:
        return (
            "So many values come from edges that were blended, by JPEG or by resizing with smoothing: export it as PNG "
            "without smoothing."
        )
    if len(mask.levels) <= count and mask.levels[-1] >= mask.white // 2:
        return f"The classes look spread over 0 to {mask.white} to be seen: write their numbers instead."
    return "Either the recipe names too few classes, or edges were blended: export class numbers without smoothing."


def _of_segments(place: str, read: Segments, picture: LabelledImage, classes: Sequence[str]) -> ClassNumbers:
    """Class numbers, by the segments' labels: numbers are given out anew by every program that writes a SEG."""
    try:
        frames = read.of_first_frame(picture.sop_instance)
    except Rejected as rejected:
        raise UserError(f"{place}: mask cannot be used: {rejected.rejection.detail}.") from None
    values = np.zeros(picture.grey.shape, np.uint8)
    taken = np.zeros(picture.grey.shape, np.bool_)
    for frame in frames:
        _check_size(place, frame.mask.shape, values.shape)
        value = _class_of(place, frame.number, frame.label, classes)
        if (frame.mask & taken & (values != value)).any():
            raise UserError(f"{place}: mask has segments of different classes that overlap.")
        values[frame.mask] = value
        taken |= frame.mask
    return values


def _class_of(place: str, number: int, label: str, classes: Sequence[str]) -> int:
    """The class that a segment's label names, whatever its case and the spaces around it."""
    names = [name.casefold() for name in classes]
    if label.strip().casefold() not in names:
        raise UserError(f"{place}: mask: the label of segment {number} is none of {', '.join(classes)}.")
    return names.index(label.strip().casefold())
