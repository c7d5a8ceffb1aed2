"""Images and masks of labelled sets, each read in a worker.

Belongs here: one file, DICOM or a picture, to what a manifest's row needs. Not here: manifests (`pipeline.cohort`).
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.dicom.areas import Area, Grey, whole_frame
from pipeline.dicom.cine import Cine
from pipeline.dicom.pictures import MaskPicture, decode_mask
from pipeline.dicom.pixels import PixelFile, decode_image_file, is_dicom
from pipeline.dicom.quarantine import Rejected, Rejection
from pipeline.dicom.reading import Unopened, quiet
from pipeline.dicom.tissue import tissue_area
from pipeline.tasks.segments import Segments, read_segments


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """An image of a labelled set as grey, the part of it to keep, and the part where tissue is found.

    Of DICOM `modality` (US where none is stated) and `sop_instance`, the raw SOPInstanceUID; None of PNG and JPEG.
    """

    grey: Grey
    area: Area
    tissue: Area
    modality: str | None = None
    sop_instance: str | None = None


def labelled_picture(path: str) -> LabelledPicture | Rejection | Unopened:
    """An image file of a labelled set; what is wrong with it is a result.

    A DICOM file is cut as the archive's are, but whatever its mode: a person has chosen it. A PNG or JPEG was prepared
    by somebody and is kept whole.
    """
    try:
        return _picture(Path(path))
    except Rejected as rejected:
        return rejected.rejection
    except OSError as error:
        return Unopened.because(error)


def _picture(path: Path) -> LabelledPicture:
    grey = decode_image_file(path)
    area = whole_frame(grey, None)
    with quiet(), path.open("rb") as file:
        if not is_dicom(file.read(132)):
            return LabelledPicture(grey, area, tissue_area(grey, (), None))
        file.seek(0)
        opened = PixelFile.open(file)
        with suppress(Rejected):
            area = Cine(opened, (0,)).area(opened.regions)
        return LabelledPicture(grey, area, area, opened.modality, opened.sop_instance)


def labelled_mask(path: str) -> MaskPicture | Segments | Rejection | Unopened:
    """A mask file of a labelled set, a PNG or a DICOM SEG, told apart by content; what is wrong with it is a result."""
    try:
        content = Path(path).read_bytes()
        return read_segments(path) if is_dicom(content[:132]) else decode_mask(content)
    except Rejected as rejected:
        return rejected.rejection
    except OSError as error:
        return Unopened.because(error)
