"""Why a file became no record, or a frame no image.

Belongs here: the reason codes and the rows of both ledgers. Not here: finding out that something is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from pipeline.tables import QUARANTINE


class Reason(StrEnum):
    """A reason code; `meaning` says it in a line."""

    NOT_DICOM = "not_dicom"
    UNREADABLE_HEADER = "unreadable_header"
    NOT_AN_IMAGE = "not_an_image"
    SYMBOLIC_LINK = "symbolic_link"
    SPECIAL_FILE = "special_file"
    NOT_ULTRASOUND = "not_ultrasound"
    OTHER_MODALITY = "other_modality"
    DUPLICATE = "duplicate"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    UNDECODABLE = "undecodable"
    TRUNCATED_PIXELS = "truncated_pixels"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    EMPTY = "empty"
    NOT_B_MODE = "not_b_mode"
    NO_TISSUE = "no_tissue"
    REPORT_PAGE = "report_page"
    INCOMPLETE = "incomplete"
    STILL_BEING_WRITTEN = "still_being_written"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    INTERRUPTED = "interrupted"
    UNREADABLE_CONTAINER = "unreadable_container"
    OVER_LIMITS = "over_limits"
    CRASHED = "crashed"
    DUPLICATE_ACROSS_SPLIT = "duplicate_across_split"
    FORGOTTEN = "forgotten"

    @property
    def meaning(self) -> str:
        """What the code stands for, in one line."""
        return _MEANINGS[self]

    @property
    def is_settled(self) -> bool:
        """Whether reading the same file again would end the same way; where not, the next run reads it again."""
        again = {Reason.STILL_BEING_WRITTEN, Reason.CHANGED, Reason.UNREADABLE, Reason.INTERRUPTED}
        return self not in again


_MEANINGS = {
    Reason.NOT_DICOM: "the file's content is not DICOM",
    Reason.UNREADABLE_HEADER: "the header breaks off, or lacks what every image needs",
    Reason.NOT_AN_IMAGE: "DICOM without pixel data: a DICOMDIR, a report, a plan",
    Reason.SYMBOLIC_LINK: "a symbolic link, which is not followed: copy or mount what it leads to in its place",
    Reason.SPECIAL_FILE: "a pipe, a socket or a device",
    Reason.NOT_ULTRASOUND: "an image of another modality, where the recipe names ultrasound alone",
    Reason.OTHER_MODALITY: "an image of a modality that the recipe does not name",
    Reason.DUPLICATE: "the same SOP instance with the same pixels is a record already",
    Reason.CONFLICTING_DUPLICATE: "several files claim this SOP instance with different pixels; all are left out",
    Reason.UNDECODABLE: "no decoder can read the pixels",
    Reason.TRUNCATED_PIXELS: "the pixel data are shorter than the header says",
    Reason.UNSUPPORTED_PIXELS: "the header describes pixels that are not decoded: too many, or of an unknown kind",
    Reason.EMPTY: "the pixel data hold no bytes",
    Reason.NOT_B_MODE: "colour Doppler, a spectrum or M-mode: no two-dimensional grey image of tissue",
    Reason.NO_TISSUE: "of one grey level, or nearly so; of new images also: no tissue found, unlike in training",
    Reason.REPORT_PAGE: "a report page or worksheet: text, tables or curves, and no tissue",
    Reason.INCOMPLETE: "shorter than its own encoding says: still arriving, or cut off; read again when it changes",
    Reason.STILL_BEING_WRITTEN: "its size or time changed while it was read; read again by the next run",
    Reason.CHANGED: "the file is not the one that was indexed; read again by the next run",
    Reason.UNREADABLE: "it cannot be read now: a permission, or a fault of disk or network; every run tries again",
    Reason.INTERRUPTED: "reading it took too long, as on a share that hangs, or was ended; the next two runs try again",
    Reason.UNREADABLE_CONTAINER: "a zip file that cannot be read, or a member of one that is encrypted or a zip itself",
    Reason.OVER_LIMITS: "reading it takes more time, memory or room than the limits allow",
    Reason.CRASHED: "reading it ends the reading process, or stops with an unexpected error",
    Reason.DUPLICATE_ACROSS_SPLIT: "the same pixels belong to a patient on the other side of the split",
    Reason.FORGOTTEN: "its patient was forgotten on request",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reason and one line of detail, which never quotes an element's value or a path."""

    reason: Reason
    detail: str


class Rejected(Exception):  # noqa: N818 - an outcome of reading, not an error of the program
    """Raised by a reader to say that a file or frame is left out, and why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.rejection = Rejection(reason, detail)


def rejection_table(level: str, rejections: Iterable[tuple[str, Rejection]]) -> pa.Table:
    """Rows of a ledger, sorted by id; `rejections` pairs a file's or frame's id with its rejection."""
    rows = [
        {"level": level, "id": identifier, "reason": rejection.reason.value, "detail": rejection.detail}
        for identifier, rejection in sorted(rejections, key=lambda pair: pair[0])
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE.schema)
