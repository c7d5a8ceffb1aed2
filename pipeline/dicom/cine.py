"""The selected frames of one file, and the one area that they show together.

A cine's geometry does not change, but single frames can be dark: all selected frames decide together what is kept.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pipeline.dicom.pixels import Frame, PixelFile
from pipeline.dicom.regions import CropRegion, Grey, UltrasoundRegion, whole_frame_region
from pipeline.dicom.rejections import Reason, Rejected, Rejection
from pipeline.dicom.report_page import is_report_page
from pipeline.dicom.tissue import find_crop_region

HELD: Final = 2**28
"""Bytes of decoded frames that are kept at most, 256 MiB; what does not fit is decoded twice."""


@dataclass(frozen=True)
class Cine:
    """Frames `numbers`, from 0, of `file`; each is decoded once where they fit into `HELD` bytes."""

    file: PixelFile
    numbers: tuple[int, ...]
    _held: dict[int, Frame | Rejection] = field(default_factory=dict)

    def frame(self, number: int) -> Frame:
        """Frame `number`; raises `Rejected` where it does not decode."""
        found = self._held.get(number) or self._decoded(number)
        if isinstance(found, Rejection):
            raise Rejected(found.reason, found.detail)
        return found

    def area(self, regions: tuple[UltrasoundRegion, ...]) -> CropRegion:
        """The part to keep of every frame: what is insonated, and of another modality than ultrasound all of it.

        At least one frame has to decode. Raises `Rejected` (not_b_mode) where `regions` say that an ultrasound file
        shows something else than tissue.
        """
        if self.file.is_ultrasound:
            return find_crop_region(self._greys(), regions, self.file.spacing_mm)
        return whole_frame_region(next(self._greys()), self.file.spacing_mm)

    def reject_report_page(self, grey: Grey, area: CropRegion) -> None:
        """Raise `Rejected` (report_page) where `area` of a frame is a report page.

        Of another modality than ultrasound, only where the header says that it may be one.
        """
        of_capture = self.file.may_be_report_page
        if (self.file.is_ultrasound or of_capture) and is_report_page(
            grey, area, of_capture and self.file.is_ultrasound
        ):
            raise Rejected(Reason.REPORT_PAGE, "text, tables or curves, and no tissue")

    def _greys(self) -> Iterator[Grey]:
        """The frames that decode; of several without report pages, if others are left."""
        pages: list[int] = []
        others = False
        for number in self.numbers:
            with suppress(Rejected):
                grey = self.frame(number).grey
                if len(self.numbers) > 1 and is_report_page(
                    grey, whole_frame_region(grey, None), self.file.may_be_report_page
                ):
                    pages.append(number)
                else:
                    others = True
                    yield grey
        if not others:
            yield from (self.frame(number).grey for number in pages)

    def _decoded(self, number: int) -> Frame | Rejection:
        found: Frame | Rejection
        try:
            found = self.file.frame(number)
        except Rejected as rejected:
            found = rejected.rejection
        if _size(found) + sum(map(_size, self._held.values())) <= HELD:
            self._held[number] = found
        return found


def _size(found: Frame | Rejection) -> int:
    if isinstance(found, Rejection):
        return 0
    return found.grey.nbytes + (0 if found.rgb is None else found.rgb.nbytes)
