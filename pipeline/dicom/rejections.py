"""Reasons for which a file becomes no record or a frame no image, and the rows of both ledgers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import pyarrow as pa

from pipeline.dicom.quiet import quiet
from pipeline.errors import is_transient
from pipeline.tables import QUARANTINE

_Result = TypeVar("_Result")


class Reason(StrEnum):
    """A reason code, and its `meaning` in one line."""

    meaning: str

    def __new__(cls, code: str, meaning: str = "") -> "Reason":
        """A member whose value is `code`."""
        member = str.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    NOT_DICOM = "not_dicom", "the file's content is not DICOM"
    UNREADABLE_HEADER = "unreadable_header", "the header breaks off, or lacks what every image needs"
    NOT_AN_IMAGE = "not_an_image", "DICOM without pixel data: a DICOMDIR, a report, a plan"
    SYMBOLIC_LINK = "symbolic_link", "a symbolic link, which is not followed: copy or mount its target in its place"
    SPECIAL_FILE = "special_file", "a pipe, a socket or a device"
    NOT_ULTRASOUND = "not_ultrasound", "an image of another modality; the recipe names ultrasound only"
    OTHER_MODALITY = "other_modality", "an image of a modality that the recipe does not name"
    DUPLICATE = "duplicate", "the same SOP instance with the same pixels is a record already"
    CONFLICTING_DUPLICATE = "conflicting_duplicate", "one of several files of this SOP instance whose pixels differ"
    UNDECODABLE = "undecodable", "no decoder can read the pixels"
    TRUNCATED_PIXELS = "truncated_pixels", "the pixel data are shorter than the header states"
    UNSUPPORTED_PIXELS = "unsupported_pixels", "pixels that are not decoded: too many, or of an unknown kind"
    EMPTY = "empty", "the pixel data hold no bytes"
    NOT_B_MODE = "not_b_mode", "colour Doppler, a spectrum or M-mode: no two-dimensional grey image of tissue"
    NO_TISSUE = "no_tissue", "of one grey level, or nearly so; for new images also: no tissue found, unlike in training"
    REPORT_PAGE = "report_page", "a report page or worksheet: text, tables or curves, and no tissue"
    INCOMPLETE = "incomplete", "shorter than its encoding states: arriving or cut off; read again when it changes"
    STILL_BEING_WRITTEN = "still_being_written", "it changed while it was read; read again by the next run"
    CHANGED = "changed", "the file is not the one that was indexed; read again by the next run"
    UNREADABLE = "unreadable", "a permission, or a fault of disk or network; every run tries again"
    INTERRUPTED = "interrupted", "reading took too long, as on a hung share, or was ended; two more runs try again"
    UNREADABLE_CONTAINER = "unreadable_container", "a zip that cannot be read, or an encrypted or zipped member of one"
    OVER_LIMITS = "over_limits", "reading it takes more time, memory or room than the limits allow"
    CRASHED = "crashed", "reading it ends the reading process, or stops with an unexpected error"
    DUPLICATE_ACROSS_SPLIT = "duplicate_across_split", "a patient on the other side of the split has the same pixels"
    FORGOTTEN = "forgotten", "its patient was forgotten on request"

    @property
    def is_settled(self) -> bool:
        """Whether reading the same file again must have the same outcome; otherwise the next run reads it again."""
        return self not in {Reason.STILL_BEING_WRITTEN, Reason.CHANGED, Reason.UNREADABLE, Reason.INTERRUPTED}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reason and one line of detail, which never quotes an element's value or a path."""

    reason: Reason
    detail: str


class Rejected(Exception):  # noqa: N818 - an outcome of reading, not an error of the program
    """Raised by a reader that rejects a file or frame."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.rejection = Rejection(reason, detail)


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that cannot be read from disk: it has vanished since it was listed, or the system's reason is `why`.

    `is_transient`: a later attempt may succeed.
    """

    vanished: bool
    why: str
    is_transient: bool = False

    @staticmethod
    def from_error(error: OSError) -> "UnreadableFile":
        """The outcome of `error`, without the path that it quotes."""
        why = error.strerror or type(error).__name__
        return UnreadableFile(isinstance(error, FileNotFoundError), why, is_transient(error))


@contextmanager
def rejecting() -> Iterator[None]:
    """Raise `Rejected` in place of any error of a decoder in the `with` block, and suppress its output.

    Transient errors of disk and network are raised as they are.
    """
    try:
        with quiet():
            yield
    except (Rejected, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise Rejected(Reason.OVER_LIMITS, _TOO_LARGE) from None
    except BaseException as error:  # a panic of pylibjpeg-rle is no Exception
        if is_transient(error):
            raise
        raise Rejected(Reason.UNDECODABLE, f"decoding stopped with {type(error).__name__}") from None


def outcome_of(read: Callable[[], _Result]) -> _Result | Rejection | UnreadableFile:
    """The result of `read`, or why it rejected its file or could not read it."""
    try:
        with quiet():
            return read()
    except Rejected as rejected:
        return rejected.rejection
    except OSError as error:
        return UnreadableFile.from_error(error)
    except MemoryError:
        return Rejection(Reason.OVER_LIMITS, _TOO_LARGE)


_TOO_LARGE = "decoding needs more memory than a worker may use"


def rejection_table(level: str, rejections: Iterable[tuple[str, Rejection]]) -> pa.Table:
    """Rows of a ledger, sorted by id; `rejections` pairs a file's or frame's id with its rejection."""
    rows = [
        {"level": level, "id": identifier, "reason": rejection.reason.value, "detail": rejection.detail}
        for identifier, rejection in sorted(rejections, key=lambda pair: pair[0])
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE.schema)
