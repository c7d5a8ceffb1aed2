"""New images for a model that was trained before: read, cut and resized as its training images were.

Belongs here: one file's frames as a model's input, and the reason for each that is unlike what it has learnt from; the
header fields by which a mask refers to its image. Not here: the model, the table, writing masks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.archive.frames import reject_blank, reject_colour_flow
from pipeline.dicom.cine import Cine
from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.header import read_header
from pipeline.dicom.pixels import Frame, PixelFile, resize_grey, select_frames
from pipeline.dicom.reading import UnreadableFile, quiet, read_elements
from pipeline.dicom.regions import CropRegion, Grey
from pipeline.dicom.rejections import Reason, Rejected, Rejection
from pipeline.dicom.tissue import crop_frame

REFERENCE_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
REFERENCE_TEXTS: Final = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""What a mask must repeat of its image, to lie with the same patient and study (PS3.3 sections C.7.1 and C.7.2)."""

_TAGS: Final = frozenset(tag_of(keyword) for keyword in (*REFERENCE_UIDS, *REFERENCE_TEXTS))
_NEEDED: Final = frozenset(tag_of(keyword) for keyword in REFERENCE_UIDS)


@dataclass(frozen=True, slots=True)
class NewImage:
    """Frame `frame`, from 0, of a file that has `frames`.

    `pixels` is height x width, the model's input in grey levels; `area` is the part of the full frame, which has
    `shape` (rows, columns), that they show.
    """

    frame: int
    frames: int
    pixels: Grey
    area: CropRegion
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FlaggedFrame:
    """A frame that is not for this model, and why; `frame` and `frames` are None where no frame was reached."""

    frame: int | None
    frames: int | None
    why: Rejection


@dataclass(frozen=True, slots=True)
class NewFile:
    """What a file holds for a model, at least one entry; `reference` as `read_reference` gives it, where asked for."""

    images: tuple[NewImage | FlaggedFrame, ...]
    reference: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NewImageReader:
    """Makes a model's input, `height` x `width` pixels, of files; can be sent to a worker.

    `modalities` are those it has learnt from. `whole_frames` says whether it has learnt from images of which nothing
    was cut away: where it has not, a frame in which no tissue is found is unlike them. `for_masks` asks for references.
    """

    height: int
    width: int
    modalities: tuple[str, ...]
    whole_frames: bool
    frames_per_cine: int
    for_masks: bool

    def __call__(self, path: str) -> NewFile | UnreadableFile:
        """The frames of the file at `path`; each fault becomes a `FlaggedFrame`, and costs its own frame only."""
        try:
            with quiet(), Path(path).open("rb") as file:
                return self._read(file)
        except Rejected as rejected:
            return flagged_file(rejected.rejection)
        except OSError as error:
            return UnreadableFile.from_error(error)
        except MemoryError:
            return flagged_file(Rejection(Reason.OVER_LIMITS, "reading asks for more memory than a worker may hold"))

    def _read(self, file: BinaryIO) -> NewFile:
        size = file.seek(0, 2)
        read_header(file, size, self.modalities)
        reference = read_reference(file, size) if self.for_masks else {}
        return NewFile(tuple(self._images(PixelFile.open(file))), reference)

    def _images(self, file: PixelFile) -> Iterator[NewImage | FlaggedFrame]:
        cine = Cine(file, tuple(select_frames(file.frames, self.frames_per_cine)))
        area: CropRegion | None = None
        for number in cine.numbers:
            try:
                frame = cine.frame(number)
                area = area or cine.area(file.regions)
                cine.reject_report_page(frame.grey, area)
                if file.is_ultrasound:
                    self._refuse_unlike(frame, area)
                yield self._image(number, file.frames, frame.grey, area)
            except Rejected as rejected:
                yield FlaggedFrame(number, file.frames, rejected.rejection)

    def _refuse_unlike(self, frame: Frame, area: CropRegion) -> None:
        reject_colour_flow(frame, area)
        if area.found_by == "whole" and not self.whole_frames:
            raise Rejected(
                Reason.NO_TISSUE, "no insonated area is found, and the model has learnt from such areas alone"
            )

    def _image(self, number: int, frames: int, grey: Grey, area: CropRegion) -> NewImage:
        cut = crop_frame(grey, area)
        reject_blank(cut)
        pixels = resize_grey(cut, self.height, self.width)
        return NewImage(number, frames, pixels, area, (grey.shape[0], grey.shape[1]))


def flagged_file(why: Rejection) -> NewFile:
    """A file of which no frame was reached."""
    return NewFile((FlaggedFrame(None, None, why),), {})


def read_reference(file: BinaryIO, size: int) -> dict[str, str]:
    """The fields of `REFERENCE_UIDS` and `REFERENCE_TEXTS` that the DICOM file of `size` bytes states, raw.

    They name the patient: they belong into a mask for the clinic that the image came from, and nowhere else. Raises
    `Rejected` (unreadable_header) where one of the UIDs is missing, so that nothing could refer to the image.
    """
    opened = read_elements(file, size, _TAGS, _NEEDED)
    fields = Fields(opened.elements, opened.encodings)
    uids = {keyword: fields.uid(keyword) for keyword in REFERENCE_UIDS}
    for keyword, value in uids.items():
        if not value:
            raise Rejected(Reason.UNREADABLE_HEADER, f"{keyword} is missing, so that no mask can refer to the image")
    stated = uids | {keyword: fields.identifier(keyword) for keyword in REFERENCE_TEXTS}
    return {keyword: value for keyword, value in stated.items() if value}
