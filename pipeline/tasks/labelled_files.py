"""Images and masks of labelled sets, each read in a worker.

Belongs here: one file, DICOM or a picture, to what a manifest's row needs. Not here: manifests (`pipeline.cohort`).
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.dicom.cine import Cine
from pipeline.dicom.pixels import PixelFile, decode_image_file, is_dicom
from pipeline.dicom.png_jpeg import PngMask, decode_png_mask
from pipeline.dicom.reading import UnreadableFile, quiet
from pipeline.dicom.regions import CropRegion, Grey, whole_frame_region
from pipeline.dicom.rejections import Rejected, Rejection
from pipeline.dicom.tissue import crop_region_of_frame
from pipeline.tasks.seg_reader import Segments, read_segments


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image of a labelled set as grey, the part of it to keep, and the part where tissue is found.

    Of DICOM `modality` (US where none is stated) and `sop_instance`, the raw SOPInstanceUID; None of PNG and JPEG.
    """

    grey: Grey
    area: CropRegion
    tissue: CropRegion
    modality: str | None = None
    sop_instance: str | None = None


def read_labelled_image(path: str) -> LabelledImage | Rejection | UnreadableFile:
    """An image file of a labelled set; what is wrong with it is a result.

    A DICOM file is cut as the archive's are, but whatever its mode: a person has chosen it. A PNG or JPEG was prepared
    by somebody and is kept whole.
    """
    try:
        return _picture(Path(path))
    except Rejected as rejected:
        return rejected.rejection
    except OSError as error:
        return UnreadableFile.from_error(error)


def _picture(path: Path) -> LabelledImage:
    grey = decode_image_file(path)
    area = whole_frame_region(grey, None)
    with quiet(), path.open("rb") as file:
        if not is_dicom(file.read(132)):
            return LabelledImage(grey, area, crop_region_of_frame(grey, (), None))
        file.seek(0)
        opened = PixelFile.open(file)
        with suppress(Rejected):
            area = Cine(opened, (0,)).area(opened.regions)
        return LabelledImage(grey, area, area, opened.modality, opened.sop_instance)


def read_labelled_mask(path: str) -> PngMask | Segments | Rejection | UnreadableFile:
    """A mask file of a labelled set, a PNG or a DICOM SEG, told apart by content; what is wrong with it is a result."""
    try:
        content = Path(path).read_bytes()
        return read_segments(path) if is_dicom(content[:132]) else decode_png_mask(content)
    except Rejected as rejected:
        return rejected.rejection
    except OSError as error:
        return UnreadableFile.from_error(error)
