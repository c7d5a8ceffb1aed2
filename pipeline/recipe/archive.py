"""The section `archive`: which DICOM files are read, and how."""

from typing import Annotated

from pydantic import Field

from pipeline.settings import Count, Settings

ModalityCode = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")]
"""A value of Modality (0008,0060), PS3.3 section C.7.3.1.1.1."""


class Archive(Settings):
    """How the archive is read."""

    modalities: Annotated[tuple[ModalityCode, ...], Field(min_length=1)] = ("US",)
    """Instances of these modalities become records; all others are rejected."""
    frames_per_cine: Count = 1
    """How many frames of a multi-frame instance become images, evenly spaced."""
    b_mode_only: bool = True
    """Leave out frames of colour Doppler and other modes of ultrasound."""
    description_patients: Count = 5
    """Minimum number of patients who share a study description before it is published; rarer ones stay private."""
