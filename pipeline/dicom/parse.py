"""Find selected elements of a DICOM file and the position of its pixel data, within limits of time and memory.

`fast_parse` reads regular files; `pydicom_parse` takes over for all others. Both find the same elements.
"""

from dataclasses import replace
from typing import BinaryIO, Final, cast

from pydicom.filereader import read_dataset

from pipeline.dicom.fast_parse import FIRST_READ, fast_parse
from pipeline.dicom.parsed_file import UNDEFINED, ParsedFile
from pipeline.dicom.pydicom_parse import BoundedReader, pydicom_parse
from pipeline.dicom.quiet import quiet
from pipeline.dicom.rejections import Reason, Rejected
from pipeline.errors import is_transient

# The group of the first element of a file without preamble and prefix, in either byte order.
_FIRST_GROUPS: Final = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


def read_elements(file: BinaryIO, size: int, tags: frozenset[int], needed: frozenset[int] = frozenset()) -> ParsedFile:
    """Find the elements `tags` of a DICOM file, with or without preamble, meta header or transfer syntax.

    `file` is seekable and has `size` bytes. The search stops at the pixel data, which are not read, unless one of
    `needed` is still missing, as in files whose elements are out of order: then it continues behind them. Raises
    `Rejected` (not_dicom, unreadable_header, over_limits, incomplete), and `OSError` with an errno if the file itself
    cannot be read.
    """
    file.seek(0)
    head = file.read(FIRST_READ)
    if not looks_like_dicom(head[:132]):
        raise Rejected(Reason.NOT_DICOM, "neither the DICM prefix nor a first element of DICOM")
    parsed = fast_parse(file, size, tags, head) or pydicom_parse(file, size, tags)
    if parsed.pixels and not needed <= parsed.elements.keys():
        return _with_elements_behind(parsed, tags)
    return parsed


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes can be DICOM (PS3.10 section 7.1, and files without preamble)."""
    return head[128:132] == b"DICM" or head[:4] == b"DICM" or head[:2] in _FIRST_GROUPS


def _with_elements_behind(parsed: ParsedFile, tags: frozenset[int]) -> ParsedFile:
    """`parsed` and those of `tags` that follow its pixel data."""
    pixels = parsed.pixel_element
    end = pixels.start + pixels.length
    if pixels.length == UNDEFINED:
        delimiter = parsed.find_sequence_delimiter()
        end = parsed.size if delimiter is None else delimiter + 8
    if end >= parsed.size:
        return parsed
    parsed.file.seek(end)
    reader = cast(BinaryIO, BoundedReader(parsed.file, parsed.size))
    try:
        with quiet():
            behind = read_dataset(reader, parsed.is_implicit, not parsed.is_big_endian, specific_tags=list(tags))
    except Exception as error:
        if is_transient(error):
            raise
        return parsed  # padding, or bytes that are no elements
    found = {int(element.tag): element for element in behind.elements()}
    return replace(parsed, elements={**found, **parsed.elements})
