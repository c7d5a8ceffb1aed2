"""Read new DICOM files as a trained model's input: cropped and resized like its training images.

Frames unlike the training images are flagged with a reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.dicom.cine import Cine, CroppedFrame
from pipeline.dicom.crop import CropRegion
from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.grey import Grey, resize_grey
from pipeline.dicom.header import read_header
from pipeline.dicom.parse import read_elements
from pipeline.dicom.pixel_file import PixelFile, select_frames
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile, outcome_of

REFERENCE_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
REFERENCE_TEXTS: Final = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Fields that a mask repeats from its image, so that both belong to one patient and study (PS3.3 C.7.1 and C.7.2)."""

_TAGS: Final = frozenset(tag_of(keyword) for keyword in (*REFERENCE_UIDS, *REFERENCE_TEXTS))
_NEEDED: Final = frozenset(tag_of(keyword) for keyword in REFERENCE_UIDS)


@dataclass(frozen=True, slots=True)
class NewImage:
    """Frame `frame`, from 0, of a file that has `frames`.

    `pixels` is height x width, the model's input in grey levels; they show the part `crop` of the full frame, which has
    `shape` (rows, columns).
    """

    frame: int
    frames: int
    pixels: Grey
    crop: CropRegion
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FlaggedFrame:
    """A frame that is not suitable for the model, and why; `frame` and `frames` are None for a whole file."""

    frame: int | None
    frames: int | None
    why: Rejection


@dataclass(frozen=True, slots=True)
class NewFile:
    """The frames of a file, at least one entry, and its `reference` as of `read_reference`, if requested."""

    images: tuple[NewImage | FlaggedFrame, ...]
    reference: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NewImageReader:
    """Read files as a model's input, `height` x `width` pixels; can be sent to a worker.

    `modalities` are those of the training images. `whole_frames`: some training images were not cropped; otherwise a
    frame without detected tissue is flagged. `for_masks` requests references.
    """

    height: int
    width: int
    modalities: tuple[str, ...]
    whole_frames: bool
    frames_per_cine: int
    for_masks: bool

    def __call__(self, path: str) -> NewFile | UnreadableFile:
        """The frames of the file at `path`; a fault flags its own frame only."""
        read = outcome_of(lambda: self._read(Path(path)))
        return flagged_file(read) if isinstance(read, Rejection) else read

    def _read(self, path: Path) -> NewFile:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            read_header(file, size, self.modalities)
            reference = read_reference(file, size) if self.for_masks else {}
            return NewFile(self._images(PixelFile.open(file)), reference)

    def _images(self, file: PixelFile) -> tuple[NewImage | FlaggedFrame, ...]:
        cine = Cine(file, tuple(select_frames(file.frames, self.frames_per_cine)))
        return tuple(self._image(found, file.frames) for found in cine.cropped(allow_uncropped=self.whole_frames))

    def _image(self, found: CroppedFrame | tuple[int, Rejection], frames: int) -> NewImage | FlaggedFrame:
        if not isinstance(found, CroppedFrame):
            return FlaggedFrame(found[0], frames, found[1])
        pixels = resize_grey(found.pixels, self.height, self.width)
        return NewImage(found.number, frames, pixels, found.crop, (found.grey.shape[0], found.grey.shape[1]))


def flagged_file(why: Rejection) -> NewFile:
    """A file whose frames were not read."""
    return NewFile((FlaggedFrame(None, None, why),), {})


def read_reference(file: BinaryIO, size: int) -> dict[str, str]:
    """The stated fields of `REFERENCE_UIDS` and `REFERENCE_TEXTS` of a DICOM file of `size` bytes, raw.

    They identify the patient: use them only in a mask for the clinic that owns the image. Raises `Rejected`
    (unreadable_header) if one of the UIDs is missing, since nothing could refer to the image.
    """
    parsed = read_elements(file, size, _TAGS, _NEEDED)
    fields = Fields(parsed.elements, parsed.encodings)
    uids = {keyword: fields.uid(keyword) for keyword in REFERENCE_UIDS}
    for keyword, value in uids.items():
        if not value:
            raise Rejected(Reason.UNREADABLE_HEADER, f"{keyword} is missing, so that no mask can refer to the image")
    stated = uids | {keyword: fields.identifier(keyword) for keyword in REFERENCE_TEXTS}
    return {keyword: value for keyword, value in stated.items() if value}
