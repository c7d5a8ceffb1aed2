"""A predicted mask as a DICOM segmentation (SEG) that refers to its image.

Belongs here: writing one. Not here: predicting it, reading one (`pipeline.tasks.seg_reader`).
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

MAKER = "sonotag"
SERIES_NUMBER = 900
"""Of the masks within their images' study: beyond those that scanners give out."""
LONGEST = 64
"""Characters of a long string, PS3.5 section 6.2."""

_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_SEX = re.compile("[MFO]")
_UNUSABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Signs that no single text holds: the separator of several values, controls, what UTF-8 cannot encode."""


@dataclass(frozen=True)
class MaskWriter:
    """Writes masks that one model has made: `name` says which, `version` is a digest of it, `classes` are the task's.

    Made twice, of one image by one model, a mask has the same UIDs, so that an archive that gets both holds one.
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

        `reference` is the image's (`new_images.read_reference`): the SEG lies in its study, with its patient.
        What a SEG cannot carry of it is left out. `number` is InstanceNumber, from 1. There is a segment per
        foreground class, empty ones too.
        """
        with quiet():
            made = self._segmentation(classes_HW, reference, frame, number)
            _refer(made, reference["SOPClassUID"], frame + 1 if frames > 1 else None)
            made.SpecificCharacterSet = "ISO_IR 192"
            made.PatientOrientation = ""  # must be there, and is not known: type 2C, PS3.3 section C.7.6.1
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
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=self.version,
            device_serial_number=self.version,
            content_description=_text(self.name),
            series_description=_text(f"{MAKER}: {self.name}"),
            omit_empty_frames=False,
        )

    def _segment(self, value: int) -> SegmentDescription:
        """What a class is called; the standard's codes say no more than tissue, since tasks are a user's own."""
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
    """A UID that the same parts give again (PS3.5 section B.2)."""
    content = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=content, version=5).int}"


def _image(reference: Mapping[str, str], shape_HW: tuple[int, ...]) -> Dataset:
    """What highdicom must know of the image: always one frame of a kind that it knows; `_refer` mends what differs.

    It takes cines and kinds of images that are retired for errors.
    """
    image = Dataset()
    for keyword in (*REFERENCE_UIDS, *REFERENCE_TEXTS):
        setattr(image, keyword, _valid(keyword, reference.get(keyword, "")))
    image.SOPClassUID, image.Modality = UltrasoundImageStorage, "US"
    image.Rows, image.Columns = shape_HW
    return image


def _valid(keyword: str, value: str) -> str:
    """`value`, or nothing where no SEG can carry it: a SEG must not fail for its image's birth date.

    Longer values than PS3.5 section 6.2 allows are carried as they are: archives are full of them.
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
    """Whether `text` is a day of the calendar as YYYYMMDD."""
    try:
        return len(text) == 8 and text.isascii() and text.isdecimal() and bool(date(*_parts(text)))
    except ValueError:
        return False


def _parts(day: str) -> tuple[int, int, int]:
    return int(day[:4]), int(day[4:6]), int(day[6:])


def _text(name: str) -> str:
    """A name from a recipe as a long string of DICOM."""
    return " ".join(_UNUSABLE.sub(" ", name).split())[:LONGEST]


def _refer(made: Segmentation, sop_class: str, frame: int | None) -> None:
    """Make the references say of which kind the image is and, of a cine, which frame, from 1, was looked at."""
    for element in made.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = sop_class
    if frame is not None:
        for group in made.PerFrameFunctionalGroupsSequence:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame
