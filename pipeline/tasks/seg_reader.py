"""Read a DICOM segmentation (SEG, PS3.3 section A.51): its frames with their segments and source images.

Not here: what a segment's label means to a task (`class_masks`), writing a SEG (`pipeline.prediction.seg_writer`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from pipeline.dicom.encapsulated import MAX_FRAME_BYTES
from pipeline.dicom.rejections import Reason, Rejected, rejecting

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One frame of a SEG: `mask`, rows x columns, of the segment `number` with the name `label`.

    `instances` are the SOPInstanceUIDs of its source images, `frames` the numbers of their frames, from 1; both may be
    empty.
    """

    number: int
    label: str
    mask: Mask
    instances: frozenset[str]
    frames: frozenset[int]


@dataclass(frozen=True, slots=True)
class Segments:
    """The frames of a SEG, and all instances that it refers to."""

    frames: tuple[SegmentFrame, ...]
    instances: frozenset[str]

    def of_first_frame(self, sop_instance: str | None) -> tuple[SegmentFrame, ...]:
        """The masks of the first frame of the image `sop_instance`, or all of them if the image has no UID.

        Raises `Rejected` if the SEG refers only to other images, or has several frames of a segment for this one.
        """
        if sop_instance and self.instances and sop_instance not in self.instances:
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "it refers to another image")
        chosen = tuple(
            frame
            for frame in self.frames
            if (not sop_instance or not frame.instances or sop_instance in frame.instances)
            and (not frame.frames or 1 in frame.frames)
        )
        if len({frame.number for frame in chosen}) < len(chosen):
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "it holds several frames of one segment for this image")
        return chosen


def read_segments(file: BinaryIO) -> Segments:
    """The binary segments of a DICOM SEG in memory. Raises `Rejected`."""
    with rejecting():
        return _segments(dcmread(file))


def _segments(read: Dataset) -> Segments:
    if read.get("SOPClassUID") != SegmentationStorage:
        raise Rejected(Reason.NOT_AN_IMAGE, "it is DICOM, but no segmentation")
    if read.get("SegmentationType") != "BINARY":
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "its SegmentationType (0062,0001) is not BINARY")
    if read.Rows * read.Columns * int(read.NumberOfFrames) > MAX_FRAME_BYTES:
        raise Rejected(Reason.OVER_LIMITS, "its header states more pixels than the limits allow")
    return Segments(tuple(_frames(read)), frozenset(_values(read, "ReferencedSOPInstanceUID")))


def _frames(read: Dataset) -> Iterator[SegmentFrame]:
    labels = {int(segment.SegmentNumber): str(segment.SegmentLabel) for segment in read.SegmentSequence}
    masks = read.pixel_array.astype(np.bool_).reshape(-1, read.Rows, read.Columns)
    shared = read.SharedFunctionalGroupsSequence[0]
    for mask, group in zip(masks, read.PerFrameFunctionalGroupsSequence, strict=True):
        # A SEG of one segment may state it once for all frames.
        named = group if "SegmentIdentificationSequence" in group else shared
        number = int(named.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        instances = frozenset(_values(group, "ReferencedSOPInstanceUID"))
        frames = frozenset(int(frame) for frame in _values(group, "ReferencedFrameNumber"))
        yield SegmentFrame(number, labels[number], mask, instances, frames)


def _values(read: Dataset, keyword: str) -> Iterator[Any]:
    """The values of all elements with that keyword, also within sequences."""
    for element in read.iterall():
        if element.keyword == keyword and element.value is not None:
            yield from element.value if element.VM > 1 else [element.value]
