"""Write a predicted mask as a DICOM segmentation (SEG) that refers to its image.

Not here: reading a SEG (`pipeline.tasks.seg_reader`).
"""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UltrasoundImageStorage

from pipeline.dicom.quiet import quiet
from pipeline.files import atomic_replace
from pipeline.prediction.new_images import REFERENCE_TEXTS, REFERENCE_UIDS

MANUFACTURER = "sonotag"
SERIES_NUMBER = 900
"""Of the masks in their images' study: higher than those of scanners."""
MAX_CHARACTERS = 64
"""Of a long string, PS3.5 section 6.2."""

_DATE = re.compile("[0-9]{8}")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_SEX = re.compile("[MFO]")
_UNUSABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that no single text has: the separator of values, controls, and those that UTF-8 cannot encode."""


@dataclass(frozen=True)
class MaskWriter:
    """Write the masks of the model `name`, whose digest is `version`, for a task with `classes`.

    The same image and model give the same UIDs, so that an archive stores a repeated mask once.
    """

    name: str
    version: str
    classes: Sequence[str]

    def write(
        self,
        path: Path,
        classes_HW: npt.NDArray[np.uint8],
        reference: Mapping[str, str],
        frame: int,
        frames: int,
        number: int,
    ) -> None:
        """Write `classes_HW`, class numbers of the full frame `frame` (from 0) of `frames`, as a SEG to `path`.

        The SEG belongs to the study and patient of `reference` (`new_images.read_reference`), whose invalid values are
        left out. `number` is InstanceNumber, from 1. There is a segment per foreground class, even if it is empty.
        """
        with quiet():
            made = self._segmentation(classes_HW, reference, frame, number)
            _refer(made, reference["SOPClassUID"], frame + 1 if frames > 1 else None)
            made.SpecificCharacterSet = "ISO_IR 192"
            made.PatientOrientation = ""  # required, and unknown: type 2C, PS3.3 section C.7.6.1
            with atomic_replace(path) as temporary:
                made.save_as(temporary, enforce_file_format=True)

    def _segmentation(
        self, classes_HW: npt.NDArray[np.uint8], reference: Mapping[str, str], frame: int, number: int
    ) -> Segmentation:
        return Segmentation(
            source_images=[_image(reference, classes_HW.shape)],
            pixel_array=classes_HW[np.newaxis],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[self._segment(value) for value in range(1, len(self.classes))],
            series_instance_uid=_uid("series", reference["SeriesInstanceUID"], self.version),
            series_number=SERIES_NUMBER,
            sop_instance_uid=_uid("instance", reference["SOPInstanceUID"], self.version, str(frame)),
            instance_number=number,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=self.version,
            device_serial_number=self.version,
            content_description=_text(self.name),
            series_description=_text(f"{MANUFACTURER}: {self.name}"),
            omit_empty_frames=False,
        )

    def _segment(self, value: int) -> SegmentDescription:
        """The segment of a class; its code is only tissue, since classes are user-defined."""
        return SegmentDescription(
            segment_number=value,
            segment_label=_text(self.classes[value]),
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=_text(self.name), family=codes.DCM.ArtificialIntelligence, version=self.version
            ),
        )


def _uid(*parts: str) -> str:
    """A UID derived from `parts` (PS3.5 section B.2)."""
    content = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=content, version=5).int}"


def _image(reference: Mapping[str, str], shape_HW: tuple[int, ...]) -> Dataset:
    """A single-frame ultrasound image for highdicom, which rejects cines and retired classes; `_refer` corrects it."""
    image = Dataset()
    for keyword in (*REFERENCE_UIDS, *REFERENCE_TEXTS):
        setattr(image, keyword, _valid(keyword, reference.get(keyword, "")))
    image.SOPClassUID, image.Modality = UltrasoundImageStorage, "US"
    image.Rows, image.Columns = shape_HW
    return image


def _valid(keyword: str, value: str) -> str:
    """`value`, or nothing if it is invalid in a SEG, which must not fail for its image's birth date.

    Values longer than PS3.5 section 6.2 allows are kept: archives are full of them.
    """
    if _UNUSABLE.search(value):
        return ""
    match dictionary_VR(keyword):
        case "DA":
            return value if _is_date(value) else ""
        case "TM":
            return value if _TIME.fullmatch(value) else ""
        case "CS":
            return value if _SEX.fullmatch(value) else ""
        case _:
            return value


def _is_date(text: str) -> bool:
    """Whether `text` is a calendar day as YYYYMMDD."""
    try:
        return bool(_DATE.fullmatch(text) and date(int(text[:4]), int(text[4:6]), int(text[6:])))
    except ValueError:
        return False


def _text(name: str) -> str:
    """A name from a recipe as a DICOM long string."""
    return " ".join(_UNUSABLE.sub(" ", name).split())[:MAX_CHARACTERS]


def _refer(made: Segmentation, sop_class: str, frame: int | None) -> None:
    """Set the image's class and, for a cine, the frame number, from 1, in all references of `made`."""
    for element in made.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = sop_class
    if frame is not None:
        for group in made.PerFrameFunctionalGroupsSequence:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame
