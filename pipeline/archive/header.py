"""A DICOM file's header: the allow-listed fields, each read on its own.

Belongs here: which elements are read, and reading them tolerantly. Not here: pseudonyms, pixels.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import FileDataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from pipeline.archive.quarantine import Reason, Rejected, Rejection
from pipeline.archive.reading import Unopened, quiet, read_elements, transfer_syntax

ULTRASOUND_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{part}"
    for part in (
        "3",  # US Multi-frame (retired)
        "3.1",  # US Multi-frame
        "6",  # US (retired)
        "6.1",  # US
        "6.2",  # Enhanced US Volume
    )
)

_LONGEST_TEXT = 256  # characters; every field read here is at most 64 by PS3.5 section 6.2, a value or several
_UID = re.compile(r"[0-9.]{1,64}")

_FIELDS = (
    "SOPInstanceUID",
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "Modality",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "Manufacturer",
    "ManufacturerModelName",
    "TransducerType",
    "TransducerData",
    "StudyDescription",
)
_TAGS = [Tag(field) for field in _FIELDS]


@dataclass(frozen=True, slots=True)
class Header:
    """The allow-listed fields of one ultrasound image file, raw: identifiers are not yet pseudonyms.

    None where a field is absent, empty or cannot be read. `rows` and `columns` in pixels, `frames` at least 1.
    """

    sop_instance: str
    series: str | None
    study: str | None
    patient_id: str | None
    issuer: str | None
    modality: str | None
    sop_class: str | None
    transfer_syntax: str | None
    photometric: str | None
    rows: int
    columns: int
    frames: int
    manufacturer: str | None
    model: str | None
    transducer_type: str | None
    transducer_data: str | None
    study_description: str | None


def examine(path: str) -> Header | Rejection | Unopened:
    """Read the header of the file at `path`; what is wrong with the file is a result, never an exception."""
    try:
        with quiet():
            return read_header(Path(path))
    except Rejected as rejected:
        return rejected.rejection
    except OSError as error:
        return Unopened.because(error)


def read_header(path: Path) -> Header:
    """The allow-listed fields of the ultrasound image at `path`; pixel data are not read.

    Raises `Rejected` where it is no DICOM file, no image or no ultrasound, and `OSError` where it cannot be opened.
    """
    with path.open("rb") as file:
        opened = read_elements(file, _TAGS, with_pixels=False)
    dataset = opened.dataset
    modality, sop_class = _text(dataset, "Modality"), _uid(dataset, "SOPClassUID")
    ultrasound = (modality or "").upper() == "US" or sop_class in ULTRASOUND_CLASSES
    if not opened.has_pixels:
        raise _without_pixels(dataset, modality, sop_class)
    if not ultrasound:
        raise Rejected(
            Reason.NOT_ULTRASOUND, "neither Modality (0008,0060) nor SOPClassUID (0008,0016) says ultrasound"
        )
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    if not rows or not columns:
        raise Rejected(Reason.UNREADABLE_HEADER, "Rows (0028,0010) or Columns (0028,0011) is missing or no number")
    return Header(
        sop_instance=_uid(dataset, "SOPInstanceUID") or _content(path),
        series=_uid(dataset, "SeriesInstanceUID"),
        study=_uid(dataset, "StudyInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        issuer=_text(dataset, "IssuerOfPatientID"),
        modality=modality,
        sop_class=sop_class,
        transfer_syntax=transfer_syntax(dataset),
        photometric=_text(dataset, "PhotometricInterpretation"),
        rows=rows,
        columns=columns,
        frames=max(_number(dataset, "NumberOfFrames") or 1, 1),
        manufacturer=_text(dataset, "Manufacturer"),
        model=_text(dataset, "ManufacturerModelName"),
        transducer_type=_text(dataset, "TransducerType"),
        transducer_data=_text(dataset, "TransducerData"),
        study_description=_text(dataset, "StudyDescription"),
    )


def _without_pixels(dataset: FileDataset, modality: str | None, sop_class: str | None) -> Rejected:
    """A file without the DICM prefix is DICOM only if it holds some field that images, reports and plans have.

    One with the prefix and none of those fields was cut off, unless its meta header says that it is something else,
    as a DICOMDIR's does.
    """
    if modality or sop_class or len(dataset):
        return Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")
    if dataset.preamble is None:
        return Rejected(Reason.NOT_DICOM, "no element of a DICOM image, report or directory")
    stored_class = dataset.file_meta.get("MediaStorageSOPClassUID")
    if not stored_class or stored_class in ULTRASOUND_CLASSES:
        return Rejected(Reason.UNREADABLE_HEADER, "the header breaks off")
    return Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")


def _value(dataset: FileDataset, field: str) -> Any:
    """The field's value, None where absent or not convertible: one bad field costs that field, not the file."""
    try:
        return dataset[field].value
    except Exception:
        return None


def _text(dataset: FileDataset, field: str) -> str | None:
    """The field as one printable line, several values joined by a backslash; None where nothing is left."""
    value = _value(dataset, field)
    if value is None:
        return None
    text = "\\".join(str(part) for part in value) if isinstance(value, MultiValue | list) else str(value)
    printable = "".join(character for character in text if character.isprintable())
    return printable.strip()[:_LONGEST_TEXT].strip() or None


def _uid(dataset: FileDataset, field: str) -> str | None:
    """The field where it is a UID in form; anything else could be text that no one allowed."""
    text = _text(dataset, field)
    return text if text and _UID.fullmatch(text) else None


def _number(dataset: FileDataset, field: str) -> int | None:
    try:
        return int(_value(dataset, field))
    except (TypeError, ValueError, OverflowError):
        return None


def _content(path: Path) -> str:
    """An identity for an instance without a UID: its bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
