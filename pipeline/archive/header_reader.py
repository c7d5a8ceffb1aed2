"""One file of the archive, looked at in a worker: its header, a rejection, or a zip's members.

Belongs here: what leaves the worker, and a raw header to a row under pseudonyms, where the key is. Not here: parsing
(`header`), tables (`scan`).
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydicom.pixels.common import PhotometricInterpretation
from pydicom.uid import UID

from pipeline.archive.source import SEPARATOR, Listed, Member, is_remote, is_zip, members, open_file, stat
from pipeline.dicom.header import OTHER, Header, read_header
from pipeline.dicom.image_files import pixel_digest
from pipeline.dicom.quiet import quiet
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile
from pipeline.privacy.identity import number_pseudonym, patient_draw, pseudonym, with_issuer

_MOVED = Rejection(Reason.STILL_BEING_WRITTEN, "its size or time changed while it was read")

_PHOTOMETRIC: Final = frozenset(str(one.value) for one in PhotometricInterpretation)
_as_json = json.JSONEncoder(sort_keys=True).encode

Row = dict[str, Any]
"""RECORD_FIELDS of `listing`, `draw` and `number`."""


@dataclass(frozen=True, slots=True)
class Zip:
    """The file is a zip: its members are files of their own."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class HeaderReader:
    """Examines files of `archive`, of which images of `modalities` are wanted; can be sent to a worker."""

    archive: str
    modalities: tuple[str, ...]

    def __call__(self, listed: Listed) -> Header | Zip | Rejection | UnreadableFile:
        """What the file is, with raw identifiers, since a worker has no key; what is wrong with it is a result."""
        try:
            with quiet():
                found = self._judged(listed)
                now = self._now(listed)
        except OSError as error:
            return UnreadableFile.from_error(error)
        except MemoryError:
            return Rejection(Reason.OVER_LIMITS, "reading asks for more memory than a worker may hold")
        if now is None:
            return UnreadableFile(True, "it vanished")
        return found if now == listed else _MOVED

    def _now(self, listed: Listed) -> Listed | None:
        """The file's state after it was read. An object in a store is replaced whole; a member is its zip's matter."""
        if is_remote(self.archive) or SEPARATOR in listed.path:
            return listed
        return stat(self.archive, listed.path)

    def _judged(self, listed: Listed) -> Header | Zip | Rejection:
        try:
            return self._look(listed)
        except Rejected as rejected:
            return rejected.rejection

    def _look(self, listed: Listed) -> Header | Zip:
        with open_file(self.archive, listed.path) as file:
            head = file.read(132)
            file.seek(0)
            if is_zip(head) and head[128:] != b"DICM":
                if SEPARATOR in listed.path:
                    raise Rejected(Reason.UNREADABLE_CONTAINER, "a zip within a zip")
                return Zip(tuple(members(file)))
            return read_header(file, listed.size, self.modalities)


@dataclass(frozen=True, slots=True)
class PixelDigester:
    """Digests the pixels of files of `archive`; can be sent to a worker."""

    archive: str

    def __call__(self, path: str) -> str | UnreadableFile | None:
        """The digest of all frames as decoded, None where they do not decode."""
        try:
            with quiet(), open_file(self.archive, path) as file:
                return pixel_digest(file)
        except OSError as error:
            return UnreadableFile.from_error(error)
        except (Rejected, MemoryError):
            return None


@dataclass(frozen=True, slots=True)
class PatientIdReader:
    """Reads who a file of `archive` says its patient is, for whoever forgets somebody; can be sent to a worker."""

    archive: str
    modalities: tuple[str, ...]

    def __call__(self, listed: Listed) -> tuple[str, str | None] | None:
        """PatientID and issuer, raw; None where the file is not there or states none."""
        try:
            with quiet(), open_file(self.archive, listed.path) as file:
                header = read_header(file, listed.size, self.modalities)
        except (Rejected, OSError, MemoryError):
            return None
        return (header.patient_id, header.issuer) if header.patient_id else None


def row_of(header: Header, key: bytes) -> Row:
    """The row of `header` under pseudonyms made with `key`."""
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
        "rows": header.rows,
        "columns": header.columns,
        "frames": header.frames,
        "manufacturer": header.manufacturer,
        "model": header.model,
        "transducer_type": header.transducer_type,
        "transducer_data": header.transducer_data,
        "study_description": header.study_description,
        "burned_in": header.burned_in,
        "for_labels": _as_json(header.for_labels),
        "unreadable_fields": ",".join(header.unreadable_fields),
        "draw": patient_draw(identity),
        "number": number_pseudonym(key, header.patient_id) if header.patient_id else None,
    }


@lru_cache(1024)
def _known_uid(uid: str | None, kind: str) -> str | None:
    """`uid` if the standard lists it as one of that kind, else `OTHER`; None where there is none."""
    return uid if uid is None or UID(uid).type == kind else OTHER


def patient_identity(header: Header) -> tuple[str, str]:
    """The field that identifies the patient, and the raw identity of which the pseudonym is made.

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
