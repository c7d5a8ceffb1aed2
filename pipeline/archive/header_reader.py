"""Reads an archive file's header in a worker, and makes its index row, under pseudonyms, in the main process."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydicom.pixels.common import PhotometricInterpretation
from pydicom.uid import UID

from pipeline.archive.location import is_remote
from pipeline.archive.source import ArchiveFile, open_file, stat
from pipeline.archive.zips import SEPARATOR, Member, is_zip, members
from pipeline.dicom.grey import frames_digest
from pipeline.dicom.header import OTHER, Header, read_header
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile, outcome_of
from pipeline.privacy.identity import number_pseudonym, patient_draw, pseudonym, with_issuer

_MOVED = Rejection(Reason.STILL_BEING_WRITTEN, "its size or time changed while it was read")

_PHOTOMETRIC: Final = frozenset(str(one.value) for one in PhotometricInterpretation)
_UNCHANGED: Final = (
    *("rows", "columns", "frames", "manufacturer", "model", "transducer_type", "transducer_data"),
    "burned_in",
)
_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode

Row = dict[str, Any]
"""RECORD_FIELDS of `listing`, `draw` and `number`."""


@dataclass(frozen=True, slots=True)
class Zip:
    """The file is a zip: its members are files of their own."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class HeaderReader:
    """Reads headers of images of `modalities` from files of `archive`; can be sent to a worker."""

    archive: str
    modalities: tuple[str, ...]

    def __call__(self, file: ArchiveFile) -> Header | Zip | Rejection | UnreadableFile:
        """The content of the file, with raw identifiers, since a worker has no key; or why there is none."""
        found = outcome_of(lambda: self.read(file))
        if isinstance(found, UnreadableFile):
            return found
        try:
            now = self._current(file)
        except OSError as error:
            return UnreadableFile.from_error(error)
        if now is None:
            return UnreadableFile(True, "it vanished")
        return found if now == file else _MOVED

    def _current(self, file: ArchiveFile) -> ArchiveFile | None:
        """The file's present state; remote objects and members of a zip are not checked, they are replaced whole."""
        if is_remote(self.archive) or SEPARATOR in file.path:
            return file
        return stat(self.archive, file.path)

    def read(self, file: ArchiveFile) -> Header | Zip:
        """The content of the file. Raises `Rejected`, and `OSError` if it cannot be read."""
        with open_file(self.archive, file.path) as opened:
            head = opened.read(132)
            opened.seek(0)
            if is_zip(head) and head[128:] != b"DICM":
                if SEPARATOR in file.path:
                    raise Rejected(Reason.UNREADABLE_CONTAINER, "a zip within a zip")
                return Zip(tuple(members(opened)))
            return read_header(opened, file.size, self.modalities)


def digest_pixels(archive: str, path: str) -> str | UnreadableFile | None:
    """In a worker: the digest of all frames of a file as decoded, None if they do not decode."""

    def read() -> str:
        with open_file(archive, path) as opened:
            return frames_digest(frame.grey for frame in PixelFile.open(opened).each_frame())

    found = outcome_of(read)
    return None if isinstance(found, Rejection) else found


def read_patient_id(archive: str, modalities: tuple[str, ...], file: ArchiveFile) -> tuple[str, str | None] | None:
    """In a worker: PatientID and issuer, raw; None if the file is unreadable or states none."""
    header = outcome_of(lambda: HeaderReader(archive, modalities).read(file))
    return (header.patient_id, header.issuer) if isinstance(header, Header) and header.patient_id else None


def index_row(header: Header, key: bytes) -> Row:
    """The index row of `header`, with pseudonyms made with `key`."""
    patient_from, identity = patient_identity(header)
    return {
        "sop_instance": pseudonym(key, "sop_instance", header.sop_instance),
        "series": pseudonym(key, "series", header.series) if header.series else None,
        "study": pseudonym(key, "study", header.study) if header.study else None,
        "patient": pseudonym(key, "patient", identity),
        "patient_from": patient_from,
        "sop_class": _known_uid(header.sop_class, "SOP Class"),
        "transfer_syntax": _known_uid(header.transfer_syntax, "Transfer Syntax"),
        "photometric": header.photometric if header.photometric in _PHOTOMETRIC else header.photometric and OTHER,
        **{field: getattr(header, field) for field in _UNCHANGED},
        "for_labels": _as_json(header.for_labels),
        # Texts, even if a worker that a hostile file controls sends something else.
        "descriptions": _as_json({keyword: str(text) for keyword, text in header.descriptions.items()}),
        "unreadable_fields": ",".join(header.unreadable_fields),
        "draw": patient_draw(identity),
        "number": number_pseudonym(key, header.patient_id) if header.patient_id else None,
    }


@lru_cache(1024)
def _known_uid(uid: str | None, kind: str) -> str | None:
    """`uid` if the standard lists it as one of that kind, else `OTHER`; None if there is none."""
    return uid if uid is None or UID(uid).type == kind else OTHER


def patient_identity(header: Header) -> tuple[str, str]:
    """The field that identifies the patient, and the raw identity from which the pseudonym is made.

    PatientID (0010,0020) with its issuer (0010,0021) if stated, else the study, else the series, else nothing: images
    without any of them count as one patient, so that no split can separate them.
    """
    if header.patient_id:
        return "patient_id", with_issuer(header.patient_id, header.issuer)
    if header.study:
        return "study", f"study\\{header.study}"
    if header.series:
        return "series", f"series\\{header.series}"
    return "nothing", "nothing\\"
