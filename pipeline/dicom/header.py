"""Read the allow-listed fields of a DICOM header, and check that the file is complete.

Not here: pseudonyms (`pipeline.privacy.identity`).
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final

from pydicom.uid import UID

from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.frame_count import count_encapsulated_frames, count_native_frames, native_length
from pipeline.dicom.parse import read_elements
from pipeline.dicom.parsed_file import UNDEFINED, ParsedFile
from pipeline.dicom.quiet import quiet
from pipeline.dicom.rejections import Reason, Rejected
from pipeline.label_fields import DESCRIPTION_FIELDS, NUMBER_FIELDS, TEXT_FIELDS

ULTRASOUND = "US"
"""Modality (0008,0060) of ultrasound."""
ULTRASOUND_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{part}" for part in ("3", "3.1", "6", "6.1", "6.2"))
"""SOP classes: ultrasound multi-frame (retired, current), ultrasound (retired, current), enhanced volume."""

_UIDS = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
_NUMBERS = ("Rows", "Columns", "NumberOfFrames")
_TEXTS = {
    "photometric": "PhotometricInterpretation",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "transducer_type": "TransducerType",
    "transducer_data": "TransducerData",
}
_OTHERS = ("PatientID", "IssuerOfPatientID", "BurnedInAnnotation", "SamplesPerPixel", "BitsAllocated")
_LABEL_TAGS: Final = {tag_of(field): field for field in (*TEXT_FIELDS, *NUMBER_FIELDS)}
_READ: Final = (*_UIDS, *_NUMBERS, *_TEXTS.values(), *_OTHERS, *DESCRIPTION_FIELDS)
_TAGS: Final = frozenset({*_LABEL_TAGS, *map(tag_of, _READ)})
_NEEDED: Final = frozenset(tag_of(field) for field in ("Modality", "Rows", "Columns"))
_MOST_FRAMES = 2**31 - 1  # NumberOfFrames is an integer string of that range at most, PS3.5 section 6.2


@dataclass(frozen=True, slots=True)
class Header:
    """The allow-listed fields of one image file, raw: identifiers are not yet pseudonyms.

    A field is None if it is absent, empty or unreadable; `unreadable_fields` are the keywords of the unreadable ones.
    `rows` and `columns` in pixels, `frames` at least 1. `descriptions` has the stated fields of DESCRIPTION_FIELDS in
    `pipeline.label_fields`, by keyword, and `for_labels` those of the other lists there, by column. `burned_in`:
    BurnedInAnnotation is YES.
    """

    sop_instance: str
    series: str | None
    study: str | None
    patient_id: str | None
    issuer: str | None
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
    descriptions: Mapping[str, str]
    burned_in: bool
    for_labels: Mapping[str, str | float]
    unreadable_fields: tuple[str, ...]


OTHER = "other"
"""Replaces a code that the standard does not list, since such a field could contain any text."""
MODALITIES: Final = frozenset(
    (  # noqa: SIM905 - words
        "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DMS DG DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL "
        "IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG "
        "RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF STAIN "
        "TEXTUREMAP TG US VA XA XAPROTOCOL XC"
    ).split()
)
"""Modality (0008,0060), defined terms of PS3.3 C.7.3.1.1.1."""


def is_ultrasound(modality: str | None, sop_class: str | None) -> bool:
    """Whether Modality (0008,0060) or SOPClassUID (0008,0016) states ultrasound."""
    return (modality or "").upper() == ULTRASOUND or sop_class in ULTRASOUND_CLASSES


def read_header(file: BinaryIO, size: int, modalities: Collection[str]) -> Header:
    """The allow-listed fields of the image in `file`, seekable, of `size` bytes; no pixel is decoded.

    `modalities` are the accepted values of Modality (0008,0060); ultrasound is also recognised by its SOP class.
    Raises `Rejected` if it is no DICOM file, no image or of another modality, if its header breaks off or exceeds the
    limits, or if it is shorter than its own encoding states, and `OSError` if it cannot be read.
    """
    parsed = read_elements(file, size, _TAGS, _NEEDED)
    fields = Fields(parsed.elements, parsed.encodings)
    modality, sop_class = fields.text("Modality"), fields.uid("SOPClassUID")
    if not parsed.pixels:
        raise _without_pixels(parsed, modality or sop_class)
    if not _is_accepted(modalities, modality, sop_class):
        raise _rejected_modality(modalities)
    rows, columns, frames = (fields.number(name) for name in _NUMBERS)
    if not rows or not columns:
        raise Rejected(Reason.UNREADABLE_HEADER, "Rows (0028,0010) or Columns (0028,0011) is missing or no number")
    texts = {name: fields.text(keyword) for name, keyword in _TEXTS.items()}
    stated = min(max(frames or 1, 1), _MOST_FRAMES)
    frames = _frames_there(parsed, fields, rows * columns, stated, texts["photometric"])
    if not frames:
        raise Rejected(Reason.INCOMPLETE, "the pixel data are shorter than the header or their own encoding states")
    return Header(
        sop_instance=fields.uid("SOPInstanceUID") or _content_digest(file),
        series=fields.uid("SeriesInstanceUID"),
        study=fields.uid("StudyInstanceUID"),
        patient_id=fields.identifier("PatientID"),
        issuer=fields.identifier("IssuerOfPatientID"),
        sop_class=sop_class,
        transfer_syntax=parsed.transfer_syntax,
        rows=rows,
        columns=columns,
        frames=frames,
        descriptions=_descriptions(fields),
        burned_in=fields.yes("BurnedInAnnotation"),
        for_labels=_for_labels(parsed, fields, MODALITIES.union(modalities)),
        unreadable_fields=tuple(sorted(fields.unreadable)),
        **texts,
    )


def _is_accepted(modalities: Collection[str], modality: str | None, sop_class: str | None) -> bool:
    if ULTRASOUND in modalities and is_ultrasound(modality, sop_class):
        return True
    return (modality or "").upper() in modalities


def _rejected_modality(modalities: Collection[str]) -> Rejected:
    if set(modalities) == {ULTRASOUND}:
        detail = "neither Modality (0008,0060) nor SOPClassUID (0008,0016) states ultrasound"
        return Rejected(Reason.NOT_ULTRASOUND, detail)
    return Rejected(Reason.OTHER_MODALITY, f"Modality (0008,0060) is none of {', '.join(sorted(modalities))}")


def _for_labels(parsed: ParsedFile, fields: Fields, modalities: Collection[str]) -> dict[str, str | float]:
    """The stated fields for labels: numbers only if valid, a modality outside `modalities` as `OTHER`."""
    stated: dict[str, str | float] = {}
    for tag in _LABEL_TAGS.keys() & parsed.elements.keys():
        keyword = _LABEL_TAGS[tag]
        if keyword in NUMBER_FIELDS:
            if len(numbers := fields.decimals(keyword)) == 1:
                stated[NUMBER_FIELDS[keyword].column] = numbers[0]
        elif text := fields.text(keyword):
            known = keyword != "Modality" or text in modalities
            stated[TEXT_FIELDS[keyword].column] = text if known else OTHER
    return stated


def _descriptions(fields: Fields) -> dict[str, str]:
    """The stated fields of descriptions, by keyword; one with empty values alone is not stated."""
    read = {"text": fields.text, "codes": fields.code_meanings}
    found = {keyword: read[how](keyword) or "" for keyword, how in DESCRIPTION_FIELDS.items()}
    return {keyword: text for keyword, text in found.items() if text.strip("\\ ")}


def _without_pixels(parsed: ParsedFile, modality_or_class: str | None) -> Rejected:
    """Why a file has no pixels.

    Without the DICM prefix it is DICOM only if it has some field of images, reports and plans. With the prefix and none
    of those fields it was cut off, unless its meta header states another kind of file, such as a DICOMDIR.
    """
    if modality_or_class or parsed.elements:
        return Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")
    if not parsed.has_preamble:
        return Rejected(Reason.NOT_DICOM, "no element of a DICOM image, report or directory")
    if not parsed.media_class or parsed.media_class in ULTRASOUND_CLASSES:
        return Rejected(Reason.UNREADABLE_HEADER, "the header breaks off")
    return Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")


def _frames_there(parsed: ParsedFile, fields: Fields, size: int, frames: int, photometric: str | None) -> int:
    """The number of `frames` that are there, by the file's length and its own encoding; 0 if it breaks off."""
    samples, bits = fields.number("SamplesPerPixel"), fields.number("BitsAllocated")
    if _is_encapsulated(parsed.transfer_syntax):
        return count_encapsulated_frames(parsed, frames)
    if parsed.pixel_element.length != UNDEFINED and (samples is None or bits is None):
        return frames
    values = size * (samples or 1)
    return count_native_frames(parsed, frames, lambda count: native_length(values, bits or 8, photometric, count))


@lru_cache(256)
def _is_encapsulated(syntax: str) -> bool:
    with quiet():
        try:
            return UID(syntax).is_encapsulated
        except ValueError:  # no transfer syntax: the encoding is unknown
            return True


def _content_digest(file: BinaryIO) -> str:
    """The identity of an instance without a UID: a digest of its bytes."""
    file.seek(0)
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]
