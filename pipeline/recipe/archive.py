"""The section `archive`: which DICOM files are read, and how."""

from typing import Annotated, Final

from pydantic import Field

from pipeline.label_fields import DESCRIPTION_FIELDS
from pipeline.settings import Count, EachOnce, Settings, one_of

ModalityCode = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")]
"""A value of Modality (0008,0060), PS3.3 section C.7.3.1.1.1."""
STUDY_DESCRIPTION: Final = ("StudyDescription",)
"""The default of `descriptions`. Recipes with it are recorded without the field, as those of earlier versions."""


class Archive(Settings):
    """How the archive is read."""

    modalities: Annotated[tuple[ModalityCode, ...], Field(min_length=1)] = ("US",)
    """Instances of these modalities become records; all others are rejected."""
    frames_per_cine: Count = 1
    """How many frames of a multi-frame instance become images, evenly spaced."""
    b_mode_only: bool = True
    """Leave out frames of colour Doppler and other modes of ultrasound."""
    descriptions: Annotated[
        tuple[Annotated[str, one_of(DESCRIPTION_FIELDS)], ...],
        Field(min_length=1, exclude_if=STUDY_DESCRIPTION.__eq__),
        EachOnce,
    ] = STUDY_DESCRIPTION
    """Keywords of the fields that describe a study, in order: of each record, the first one that is stated counts."""
    description_patients: Count = 5
    """Minimum number of patients who share a study description before it is published; rarer ones stay private."""
