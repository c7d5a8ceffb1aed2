"""Opening one DICOM file, in whatever shape it is.

Belongs here: telling DICOM from other files, parsing a chosen set of elements, silence. Not here: what elements mean.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.archive.quarantine import Reason, Rejected

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float Pixel Data, Double Float Pixel Data and Pixel Data."""

# Of a file without preamble and prefix: the group of its first element, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "PIL")


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, no warning and no log record of the DICOM libraries comes out: they quote element values."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@dataclass(frozen=True, slots=True)
class Unopened:
    """A file that could not be read from disk: it vanished since it was listed, or the system says `why` not."""

    vanished: bool
    why: str

    @staticmethod
    def because(error: OSError) -> "Unopened":
        """The outcome of `error`, without the path that it quotes."""
        return Unopened(isinstance(error, FileNotFoundError), error.strerror or type(error).__name__)


@dataclass(frozen=True)
class Opened:
    """What was parsed of a file: the elements asked for, and whether it has pixel data."""

    dataset: FileDataset
    has_pixels: bool


def read_elements(file: BinaryIO, tags: Iterable[int], with_pixels: bool) -> Opened:
    """Parse the elements `tags` of a DICOM file, with or without preamble, meta header or transfer syntax.

    Pixel data are read where `with_pixels`, and otherwise end the reading. Raises `Rejected` (not_dicom,
    unreadable_header), and `OSError` with an errno where the file itself cannot be read.
    """
    if not looks_like_dicom(file.read(132)):
        raise Rejected(Reason.NOT_DICOM, "neither the DICM prefix nor a first element of DICOM")
    file.seek(0)
    has_pixels = False

    def at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal has_pixels
        has_pixels = has_pixels or tag in PIXEL_TAGS
        return has_pixels and not with_pixels

    wanted = [*tags, *(PIXEL_TAGS if with_pixels else ())]
    try:
        dataset = read_partial(file, stop_when=at_pixels, force=True, specific_tags=wanted)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Rejected(Reason.UNREADABLE_HEADER, f"parsing stopped with {type(error).__name__}") from None
    return Opened(dataset, has_pixels)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file can be those of DICOM (PS3.10 section 7.1, and files without preamble)."""
    return head[128:132] == b"DICM" or head[:4] == b"DICM" or head[:2] in _FIRST_GROUPS


def transfer_syntax(dataset: FileDataset) -> str:
    """TransferSyntaxUID (0002,0010); where the file states none, the native one it was found to be written in."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated:
        return str(stated)
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian)
