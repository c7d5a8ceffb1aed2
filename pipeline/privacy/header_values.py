"""Reads the identifying elements of one DICOM file, for the search for identifiers.

Trusts nothing that the index states: pydicom reads the elements, from a list that is independent of `dicom.header`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pipeline.dicom.parse import looks_like_dicom
from pipeline.dicom.quiet import quiet

IDENTIFYING: Final = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames"),
    *("OtherPatientIDsSequence", "PatientBirthName", "PatientAddress", "InsurancePlanIdentification"),
    *("PatientMotherBirthName", "MedicalRecordLocator", "PatientTelephoneNumbers", "ResponsiblePerson"),
    *("AccessionNumber", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "StationName"),
    *("PhysiciansOfRecord", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName"),
    *("DeviceSerialNumber", "StudyID", "RequestingPhysician", "AdmissionID", "RequestAttributesSequence"),
    *("RequestedProcedureID", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"),
    *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
)
"""Elements that name a person, visit, institution or file, of those that PS3.15 Table E.1-1 removes or replaces."""

_DEVICE = ("Manufacturer", "ManufacturerModelName")
_SETTINGS = (
    *("BodyPartExamined", "ScanningSequence", "ConvolutionKernel", "TransducerData"),
    *("PatientPosition", "ViewPosition", "TransducerType"),
)
_CODES = ("ProcedureCodeSequence", "AnatomicRegionSequence")  # described by the meanings of their codes


@dataclass(frozen=True, slots=True)
class HeaderValues:
    """(keyword, value) of a file's identifying elements, and the texts in it that are or may be published.

    Publishing `devices` (maker and model) excuses an equal value of any element; publishing `settings`, into which
    people can write, excuses an equal folder name alone. `description` is what may be published as study_description.
    """

    identifying: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    settings: tuple[str, ...]
    description: str


def read_header_values(file: BinaryIO, descriptions: Sequence[str]) -> HeaderValues | None:
    """The values in `file`, described by the first of the fields `descriptions` that it states.

    None if it is not DICOM, cannot be read or has no identifying value.
    """
    wanted = [*IDENTIFYING, *_DEVICE, *_SETTINGS, *descriptions]
    try:
        with quiet():
            if not looks_like_dicom(file.read(132)):
                return None
            file.seek(0)
            dataset = pydicom.dcmread(_Unnamed(file), stop_before_pixels=True, force=True, specific_tags=wanted)
            identifying = tuple(pair for keyword in IDENTIFYING for pair in _values(dataset, keyword))
            devices, settings = (
                tuple(value for keyword in keywords for _, value in _values(dataset, keyword))
                for keywords in (_DEVICE, _SETTINGS)
            )
            stated = (" ".join(_described(dataset, keyword)) for keyword in descriptions)
            description = next((text for text in stated if text.strip()), "")
    except Exception:
        return None  # truncated or hostile: the caller counts the files that were read
    return HeaderValues(identifying, devices, settings, description) if identifying else None


class _Unnamed:
    """A file without the attribute `name`, which pydicom reads of every buffered reader; a zip's member has none."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _described(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an element that describes the study; of a code sequence, the meanings of its codes."""
    if keyword not in _CODES:
        return [value for _, value in _values(dataset, keyword)]
    try:
        return [value for item in dataset.get(keyword) or () for _, value in _values(item, "CodeMeaning")]
    except Exception:
        return []  # one bad field loses that field


def _values(dataset: Dataset, keyword: str) -> list[tuple[str, str]]:
    """(keyword, value) for each value of an element, also in the items of a sequence; none if it is unreadable."""
    try:
        if keyword not in dataset or (element := dataset[keyword]).value is None:
            return []
        if element.VR == "SQ":
            return [pair for item in element.value for inner in IDENTIFYING for pair in _values(item, inner)]
        several = element.value if isinstance(element.value, MultiValue) else [element.value]
        return [(keyword, str(value)) for value in several]
    except Exception:
        return []  # one bad field loses that field
