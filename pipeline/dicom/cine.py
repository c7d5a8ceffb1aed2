"""The selected frames of one file, cropped to one common region.

A cine's geometry does not change, but single frames can be dark: all selected frames together determine the region.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image

from pipeline.dicom.colour_flow import has_colour_flow
from pipeline.dicom.crop import CropRegion, crop_frame, find_crop_region, whole_frame_region
from pipeline.dicom.grey import Frame, Grey
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.regions import COLOUR_FLOW
from pipeline.dicom.rejections import Reason, Rejected, Rejection
from pipeline.dicom.report_page import is_report_page

MAX_CACHED_BYTES: Final = 2**28
"""Limit on the decoded frames kept in memory, 256 MiB; others are decoded twice."""
NEAR_ONE_LEVEL: Final = 8
"""Grey levels by which compression and noise of a receiver spread one level."""
LEAST_SHOWN: Final = 0.005
"""Share of pixels that must differ by more from the most common level; with a probe on skin it is 0.25 to 1."""


@dataclass(frozen=True, slots=True)
class CroppedFrame:
    """Frame `number`, from 0, of a file: the full frame `grey`, and `pixels`, its part in `crop`."""

    number: int
    grey: Grey
    crop: CropRegion
    pixels: Grey


@dataclass(frozen=True)
class Cine:
    """Frames `numbers`, from 0, of `file`; up to `MAX_CACHED_BYTES` each is decoded once."""

    file: PixelFile
    numbers: tuple[int, ...]
    _cache: dict[int, Frame | Rejection] = field(default_factory=dict)

    def cropped(
        self, *, b_mode_only: bool = True, allow_uncropped: bool = True
    ) -> Iterator[CroppedFrame | tuple[int, Rejection]]:
        """Each frame cropped, or its number and the reason for its rejection.

        Ultrasound is rejected as colour flow if `b_mode_only`, and without a region smaller than the frame unless
        `allow_uncropped`.
        """
        crop: CropRegion | None = None
        for number in self.numbers:
            try:
                frame = self.frame(number)
                crop = crop or self.crop_region(b_mode_only)
                self._check(frame, crop, b_mode_only, allow_uncropped)
                pixels = crop_frame(frame.grey, crop)
                reject_blank(pixels)
                yield CroppedFrame(number, frame.grey, crop, pixels)
            except Rejected as rejected:
                yield number, rejected.rejection

    def frame(self, number: int) -> Frame:
        """Frame `number`; raises `Rejected` if it does not decode."""
        found = self._cache.get(number) or self._decode(number)
        if isinstance(found, Rejection):
            raise Rejected(found.reason, found.detail)
        return found

    def crop_region(self, b_mode_only: bool = True) -> CropRegion:
        """The insonated part of every frame; for modalities other than ultrasound the whole frame.

        At least one frame must decode. Raises `Rejected` (not_b_mode) if the regions of an ultrasound file state
        something other than tissue; unless `b_mode_only`, those of colour flow are ignored.
        """
        if not self.file.is_ultrasound:
            return whole_frame_region(next(self._greys()), self.file.spacing_mm)
        regions = tuple(region for region in self.file.regions if b_mode_only or region.data_type != COLOUR_FLOW)
        return find_crop_region(self._greys(), regions, self.file.spacing_mm)

    def _check(self, frame: Frame, crop: CropRegion, b_mode_only: bool, allow_uncropped: bool) -> None:
        """Raise `Rejected` for report pages, colour flow, and frames without a region smaller than the frame."""
        ultrasound, by_header = self.file.is_ultrasound, self.file.may_be_report_page
        if (ultrasound or by_header) and is_report_page(frame.grey, crop, by_header and ultrasound):
            raise Rejected(Reason.REPORT_PAGE, "text, tables or curves, and no tissue")
        if ultrasound and b_mode_only and frame.rgb is not None and has_colour_flow(frame.rgb, crop, frame.grey.shape):
            raise Rejected(Reason.NOT_B_MODE, "colours within the insonated area")
        if ultrasound and not allow_uncropped and crop.found_by == "whole":
            raise Rejected(Reason.NO_TISSUE, "no insonated area is found, and the training images have one")

    def _greys(self) -> Iterator[Grey]:
        """The frames that decode, without the report pages among several unless there is nothing else."""
        pages: list[int] = []
        others = False
        for number in self.numbers:
            with suppress(Rejected):
                grey = self.frame(number).grey
                if len(self.numbers) > 1 and self._is_page(grey):
                    pages.append(number)
                else:
                    others = True
                    yield grey
        if not others:
            yield from (self.frame(number).grey for number in pages)

    def _is_page(self, grey: Grey) -> bool:
        return is_report_page(grey, whole_frame_region(grey, None), self.file.may_be_report_page)

    def _decode(self, number: int) -> Frame | Rejection:
        found: Frame | Rejection
        try:
            found = self.file.frame(number)
        except Rejected as rejected:
            found = rejected.rejection
        if _size(found) + sum(map(_size, self._cache.values())) <= MAX_CACHED_BYTES:
            self._cache[number] = found
        return found


def reject_blank(pixels: Grey) -> None:
    """Raise `Rejected` (no_tissue) if a cropped frame is of one grey level, except for noise and specks.

    Such frames are equal or alike for many patients, and show none of them.
    """
    counts = np.array(Image.fromarray(pixels).histogram())
    most = int(counts.argmax())
    near = counts[max(0, most - NEAR_ONE_LEVEL) : most + NEAR_ONE_LEVEL + 1].sum()
    if pixels.size - near < LEAST_SHOWN * pixels.size:
        raise Rejected(Reason.NO_TISSUE, "the frame is of one grey level, or nearly so")


def _size(found: Frame | Rejection) -> int:
    if isinstance(found, Rejection):
        return 0
    return found.grey.nbytes + (0 if found.rgb is None else found.rgb.nbytes)
