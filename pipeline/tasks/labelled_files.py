"""Read one image or mask file of a labelled set, DICOM or PNG or JPEG, in a worker, and report faults to the user."""

from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pipeline.archive.workers import Failed
from pipeline.dicom.cine import Cine
from pipeline.dicom.crop import CropRegion, crop_region_of_frame, whole_frame_region
from pipeline.dicom.grey import Grey
from pipeline.dicom.image_files import PngMask, decode_image_file, decode_png_mask, is_dicom
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Rejected, Rejection, UnreadableFile, outcome_of
from pipeline.errors import UserError
from pipeline.tasks.seg_reader import Segments, read_segments


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image of a labelled set as grey, the part of it to keep, and the part that shows tissue.

    `modality` (US if none is stated) and `sop_instance` (SOPInstanceUID, raw) are those of DICOM, None of PNG and JPEG.
    """

    grey: Grey
    crop: CropRegion
    tissue: CropRegion
    modality: str | None = None
    sop_instance: str | None = None


def read_labelled_image(path: str) -> LabelledImage | Rejection | UnreadableFile:
    """An image file of a labelled set, or why it cannot be used.

    A DICOM file is cropped like the archive's, but its mode is not checked: a person has chosen it. A PNG or JPEG is
    kept whole, since it was prepared.
    """
    return outcome_of(lambda: _read_image(Path(path)))


def _read_image(path: Path) -> LabelledImage:
    grey = decode_image_file(path)
    crop = whole_frame_region(grey, None)
    with path.open("rb") as file:
        if not is_dicom(file.read(132)):
            return LabelledImage(grey, crop, crop_region_of_frame(grey, (), None))
        opened = PixelFile.open(file)
        with suppress(Rejected):
            crop = Cine(opened, (0,)).crop_region()
        return LabelledImage(grey, crop, crop, opened.modality, opened.sop_instance)


def read_labelled_mask(path: str) -> PngMask | Segments | Rejection | UnreadableFile:
    """A mask file of a labelled set, PNG or DICOM SEG by its content, or why it cannot be used."""
    return outcome_of(lambda: _read_mask(Path(path).read_bytes()))


def _read_mask(content: bytes) -> PngMask | Segments:
    return read_segments(BytesIO(content)) if is_dicom(content) else decode_png_mask(content)


Failure = Rejection | UnreadableFile | Failed


def read_error(failure: Failure, location: str, field: str) -> UserError:
    """The error of a file that a worker could not read, named in the column `field` at `location`."""
    if isinstance(failure, UnreadableFile):
        return UserError(f"{location}: {field} cannot be opened: {failure.why}.")
    rejection = failure.rejection if isinstance(failure, Failed) else failure
    return UserError(f"{location}: {field} cannot be read: {rejection.detail}.")
