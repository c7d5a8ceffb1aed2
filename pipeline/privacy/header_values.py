"""Reads the identifying elements of one DICOM file, for the search for identifiers.

Trusts nothing that the index states: pydicom reads the elements, from a list that is independent of `dicom.header`.
"""

from dataclasses import dataclass
from typing import BinaryIO, Final

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pipeline.dicom.parse import looks_like_dicom
from pipeline.dicom.quiet import quiet

IDENTIFYING: Final = (
    0x00100010,  # PatientName
    0x00100020,  # PatientID
    0x00100021,  # IssuerOfPatientID
    0x00100030,  # PatientBirthDate
    0x00101000,  # OtherPatientIDs
    0x00101001,  # OtherPatientNames
    0x00101002,  # OtherPatientIDsSequence
    0x00101005,  # PatientBirthName
    0x00101040,  # PatientAddress
    0x00101050,  # InsurancePlanIdentification
    0x00101060,  # PatientMotherBirthName
    0x00101090,  # MedicalRecordLocator
    0x00102154,  # PatientTelephoneNumbers
    0x00102297,  # ResponsiblePerson
    0x00080050,  # AccessionNumber
    0x00080080,  # InstitutionName
    0x00080081,  # InstitutionAddress
    0x00080090,  # ReferringPhysicianName
    0x00081010,  # StationName
    0x00081048,  # PhysiciansOfRecord
    0x00081050,  # PerformingPhysicianName
    0x00081060,  # NameOfPhysiciansReadingStudy
    0x00081070,  # OperatorsName
    0x00181000,  # DeviceSerialNumber
    0x00200010,  # StudyID
    0x00321032,  # RequestingPhysician
    0x00380010,  # AdmissionID
    0x00400275,  # RequestAttributesSequence
    0x00401001,  # RequestedProcedureID
    0x00402016,  # PlacerOrderNumberImagingServiceRequest
    0x00402017,  # FillerOrderNumberImagingServiceRequest
    0x00080018,  # SOPInstanceUID
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
    0x00200052,  # FrameOfReferenceUID
)
"""Elements that name a person, visit, institution or file, of those that PS3.15 Table E.1-1 removes or replaces."""

_DEVICE = (0x00080070, 0x00081090)  # Manufacturer, ManufacturerModelName
_SETTINGS = (
    0x00180015,  # BodyPartExamined
    0x00180020,  # ScanningSequence
    0x00181210,  # ConvolutionKernel
    0x00185010,  # TransducerData
    0x00185100,  # PatientPosition
    0x00185101,  # ViewPosition
    0x00186031,  # TransducerType
)
_DESCRIPTION = 0x00081030


@dataclass(frozen=True, slots=True)
class HeaderValues:
    """(keyword, value) of a file's identifying elements, and the texts in it that are or may be published.

    Publishing `devices` (maker and model) excuses an equal value of any element; publishing `settings`, into which
    people can write, excuses an equal folder name alone.
    """

    identifying: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    settings: tuple[str, ...]
    description: str


def read_header_values(file: BinaryIO) -> HeaderValues | None:
    """The values in `file`; None if it is not DICOM, cannot be read or has no identifying value."""
    wanted = [*IDENTIFYING, *_DEVICE, *_SETTINGS, _DESCRIPTION]
    try:
        with quiet():
            if not looks_like_dicom(file.read(132)):
                return None
            file.seek(0)
            dataset = pydicom.dcmread(_Unnamed(file), stop_before_pixels=True, force=True, specific_tags=wanted)
            identifying = tuple(pair for tag in IDENTIFYING for pair in _values(dataset, tag))
            devices, settings = (
                tuple(value for tag in tags for _, value in _values(dataset, tag)) for tags in (_DEVICE, _SETTINGS)
            )
            description = " ".join(value for _, value in _values(dataset, _DESCRIPTION))
    except Exception:
        return None  # truncated or hostile: the caller counts the files that were read
    return HeaderValues(identifying, devices, settings, description) if identifying else None


class _Unnamed:
    """A file without the attribute `name`, which pydicom reads of every buffered reader; a zip's member has none."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _values(dataset: Dataset, tag: int) -> list[tuple[str, str]]:
    """(keyword, value) for each value of an element, also in the items of a sequence; none if it is unreadable."""
    try:
        element = dataset.get(tag)
        if element is None or element.value is None:
            return []
        if element.VR == "SQ":
            return [pair for item in element.value for inner in IDENTIFYING for pair in _values(item, inner)]
        several = element.value if isinstance(element.value, MultiValue) else [element.value]
        return [(keyword_for_tag(tag), str(value)) for value in several]
    except Exception:
        return []  # one bad field loses that field
