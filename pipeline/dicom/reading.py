"""Opening one DICOM file, in whatever shape it is.

Belongs here: telling DICOM from other files, finding a chosen set of elements and the pixel data, bounds on what that
may cost, silence. Not here: what elements mean, decoding pixels.

Two ways lead to the same elements: a walk over the file's first bytes that steps from length to length, for files in
which nothing is out of the ordinary, and pydicom's own parser for all others.
"""

import logging
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from io import BytesIO
from struct import Struct
from struct import error as struct_error
from typing import Any, BinaryIO, Final, cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from pipeline.dicom.rejections import Reason, Rejected
from pipeline.errors import is_transient

PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float Pixel Data, Double Float Pixel Data and Pixel Data."""

MAX_INFLATED_BYTES: Final = 2**28
"""Bytes that a deflated data set may take when inflated: 256 MiB."""
READ: Final = 2**28
"""Bytes of a header that are read at most: 256 MiB; values nobody asked for are stepped over, not read."""
STEPS: Final = 500_000
"""Reads that parsing a header may take, two or three an element: two seconds."""

UNDEFINED: Final = 0xFFFFFFFF
"""The length of a value that ends where a delimiter stands (PS3.5 section 7.1.2)."""

_HEADS: Final = (2**14, 2**20)  # bytes of a file that the walk looks at: most headers end in the first 16 KiB
_UID = re.compile("[0-9.]{1,64}")
_DEPTH: Final = 32  # sequences within sequences that the walk follows
# Of a file without preamble and prefix: the group of its first element, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_LOGGERS = tuple(logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg", "PIL"))

Element = RawDataElement | DataElement


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, no warning and no log record of the DICOM libraries comes out: they quote element values."""
    levels = [logger.level for logger in _LOGGERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in _LOGGERS:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(_LOGGERS, levels, strict=True):
                logger.setLevel(level)


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that could not be read from disk: it vanished since it was listed, or the system says `why` not."""

    vanished: bool
    why: str
    is_transient: bool = False
    """Whether the file may be readable later, by itself."""

    @staticmethod
    def from_error(error: OSError) -> "UnreadableFile":
        """The outcome of `error`, without the path that it quotes."""
        why = error.strerror or type(error).__name__
        return UnreadableFile(isinstance(error, FileNotFoundError), why, is_transient(error))


@dataclass(frozen=True, slots=True)
class PixelElement:
    """The pixel data element: its tag and VR, where its value starts, and how long it says to be (or `UNDEFINED`)."""

    tag: int
    vr: str | None
    start: int
    length: int


@dataclass(frozen=True)
class ParsedFile:
    """What was found in a file: the elements asked for, as they are stored, and where its pixel data are.

    `file`, of `size` bytes, is the one in which `pixels` lies: the file that was opened, or its inflated data set.
    `transfer_syntax` is TransferSyntaxUID (0002,0010), or the native one in which a file without it is written.
    `media_class` is MediaStorageSOPClassUID (0002,0002), known where there are no pixels.
    """

    file: BinaryIO
    size: int
    elements: dict[int, Element]
    encodings: tuple[str, ...]
    transfer_syntax: str
    pixels: PixelElement | None
    has_preamble: bool = True
    media_class: str | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The elements as a data set, which converts their values when asked for them."""
        dataset = Dataset(cast(dict[BaseTag, Any], dict(self.elements)), parent_encoding=list(self.encodings))
        big = self.transfer_syntax == ExplicitVRBigEndian
        dataset.set_original_encoding(self.transfer_syntax == ImplicitVRLittleEndian, not big, list(self.encodings))
        return dataset


def read_elements(file: BinaryIO, size: int, tags: frozenset[int], needed: frozenset[int] = frozenset()) -> ParsedFile:
    """Find the elements `tags` of a DICOM file, with or without preamble, meta header or transfer syntax.

    `file` is seekable and holds `size` bytes. Pixel data end the search and are not read; where one of `needed` was
    not found before them, as in files whose elements are out of order, it goes on behind them. Raises `Rejected`
    (not_dicom, unreadable_header, over_limits, incomplete), and `OSError` with an errno where the file itself cannot
    be read.
    """
    file.seek(0)
    head = file.read(_HEADS[0])
    if not looks_like_dicom(head[:132]):
        raise Rejected(Reason.NOT_DICOM, "neither the DICM prefix nor a first element of DICOM")
    opened = fast_parse(file, size, tags, head) or pydicom_parse(file, size, tags)
    if opened.pixels and not needed <= opened.elements.keys():
        return _with_elements_behind(opened, tags)
    return opened


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file can be those of DICOM (PS3.10 section 7.1, and files without preamble)."""
    return head[128:132] == b"DICM" or head[:4] == b"DICM" or head[:2] in _FIRST_GROUPS


def element_value(element: Element, encodings: tuple[str, ...]) -> Any:
    """The value of `element` as pydicom understands it; raises whatever pydicom raises."""
    if isinstance(element, DataElement):
        return element.value
    return convert_raw_data_element(element, encoding=list(encodings)).value


# The walk


class _NeedsFallback(Exception):  # noqa: N818 - not an error: pydicom's parser takes over
    """The file holds something that the walk leaves to pydicom."""


_tag_vr_length = Struct("<I2sH").unpack_from
_tag_length = Struct("<II").unpack_from
_length = Struct("<I").unpack_from

_LONG = {vr.value.encode(): vr.value for vr in VR if vr in EXPLICIT_VR_LENGTH_32}
_SHORT = {vr.value.encode(): vr.value for vr in VR if len(vr) == 2 and vr not in EXPLICIT_VR_LENGTH_32}


def _key(tag: int) -> int:
    """A tag as its four bytes read in little endian: element number above, group below."""
    return (tag & 0xFFFF) << 16 | tag >> 16


_PIXEL_KEYS = {_key(tag): tag for tag in PIXEL_TAGS}
_ITEM, _ITEM_END, _SEQUENCE_END = _key(0xFFFEE000), _key(0xFFFEE00D), _key(0xFFFEE0DD)
_STOPS = frozenset({*_PIXEL_KEYS, _ITEM, _ITEM_END, _SEQUENCE_END})


@cache
def _keys(tags: frozenset[int]) -> dict[int, tuple[int, BaseTag]]:
    return {_key(tag): (tag, BaseTag(tag)) for tag in (*tags, 0x00080005)}  # comparing a BaseTag is slow


def fast_parse(file: BinaryIO, size: int, tags: frozenset[int], head: bytes) -> ParsedFile | None:
    """What `pydicom_parse` finds, found sooner; None where the file has anything out of the ordinary.

    `head` is what a read of the file's first bytes gave.
    """
    for step in _HEADS:
        if len(head) < min(step, size):
            file.seek(0)
            head = file.read(step)
        try:
            return _walk(file, size, _keys(tags), head)
        except (struct_error, IndexError):  # the bytes at hand end before the pixel data
            if len(head) >= size:
                return None
        except _NeedsFallback:
            return None
    return None


def _walk(file: BinaryIO, size: int, keys: dict[int, tuple[int, BaseTag]], head: bytes) -> ParsedFile:
    position, syntax = _past_meta(head)
    implicit = syntax == ImplicitVRLittleEndian
    if implicit and 0x40 < head[position + 4] < 0x5B and 0x40 < head[position + 5] < 0x5B:
        raise _NeedsFallback
    elements, pixels = _to_the_pixels(head, position, implicit, keys)
    return ParsedFile(file, size, elements, _encodings(elements.get(0x00080005)), syntax, pixels)


def _past_meta(head: bytes) -> tuple[int, str]:
    """Where the data set begins, and TransferSyntaxUID. Meta elements are explicit little endian (PS3.10 section 7)."""
    position = 132 if head[128:132] == b"DICM" else 0
    syntax = b""
    while head[position : position + 2] == b"\x02\x00":
        key, code, length = _tag_vr_length(head, position)
        position += 8
        if code in _LONG:
            (length,) = _length(head, position)
            position += 4
        elif code not in _SHORT:
            raise _NeedsFallback
        if key == 0x00100002:
            syntax = head[position : position + length]
        position += length
    name = syntax.rstrip(b"\0").decode("ascii", "replace")
    # Group 0000 would be a command, which is implicit; the deflated syntax has to be inflated first.
    if not _walkable(name) or head[position : position + 2] == b"\0\0":
        raise _NeedsFallback
    return position, name


@lru_cache(256)
def _walkable(syntax: str) -> bool:
    left_to_pydicom = {"", ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
    return syntax not in left_to_pydicom and all(part.isdecimal() for part in syntax.split("."))


def _to_the_pixels(
    head: bytes, position: int, implicit: bool, keys: dict[int, tuple[int, BaseTag]]
) -> tuple[dict[int, Element], PixelElement]:
    """The wanted elements before the pixel data, and these. Raises `struct.error` where `head` ends too soon."""
    elements: dict[int, Element] = {}
    vr: str | None = None
    while True:
        if implicit:
            key, length = _tag_length(head, position)
            position += 8
        else:
            key, code, length = _tag_vr_length(head, position)
            position += 8
            if code in _LONG:
                vr = _LONG[code]
                (length,) = _length(head, position)
                position += 4
            elif code in _SHORT:
                vr = _SHORT[code]
            else:
                raise _NeedsFallback
        if key in _STOPS:
            if key not in _PIXEL_KEYS:
                raise _NeedsFallback
            return elements, PixelElement(_PIXEL_KEYS[key], vr, position, length)
        end = position + length if length != UNDEFINED else _past_sequence(head, position, key, vr)
        if key in keys:
            if end > len(head):
                raise struct_error
            value = head[position:end] or cast(bytes | None, empty_value_for_VR(vr, raw=True))
            name = "SQ" if length == UNDEFINED else vr
            number, tag = keys[key]
            elements[number] = RawDataElement(tag, name, end - position, value, position, implicit, True)
        position = end


def _past_sequence(head: bytes, position: int, key: int, vr: str | None) -> int:
    """Where a sequence of undefined length ends whose items begin at `position` (PS3.5 section 7.5)."""
    if not _is_sequence(key, vr):
        raise _NeedsFallback
    implicit = vr is None
    ends: list[int | None] = [None]  # of what is open: sequences at even places, items at odd ones; None: undefined
    while ends:
        if len(ends) % 2:
            key, length = _tag_length(head, position)
            position += 8
            if key == _SEQUENCE_END:
                ends.pop()
            elif key == _ITEM and len(ends) < 2 * _DEPTH:
                ends.append(None if length == UNDEFINED else position + length)
            else:
                raise _NeedsFallback
        elif position == ends[-1]:
            ends.pop()
        else:
            position = _past_element_of_item(head, position, implicit, ends)
    return position


def _past_element_of_item(head: bytes, position: int, implicit: bool, ends: list[int | None]) -> int:
    """Step over one element, or into it where it is a sequence, or out of an item of undefined length."""
    key: int
    length: int
    key, length = _tag_length(head, position)
    if key == _ITEM_END and ends[-1] is None:
        ends.pop()
        return position + 8
    position += 8
    vr: str | None = None
    if not implicit:
        code = head[position - 4 : position - 2]
        if code in _LONG:
            vr = _LONG[code]
            (length,) = _length(head, position)
            position += 4
        elif code in _SHORT:
            vr = _SHORT[code]
            length >>= 16
        else:
            raise _NeedsFallback
    if length == UNDEFINED:
        if not _is_sequence(key, vr):
            raise _NeedsFallback
        ends.append(None)
        return position
    end = ends[-1]
    if key & 0xFFFF == 0xFFFE or (end is not None and position + length > end):
        raise _NeedsFallback
    return position + length


def _is_sequence(key: int, vr: str | None) -> bool:
    if vr is not None:
        return vr == "SQ"
    try:
        return dictionary_VR(_key(key)) == "SQ"  # its own inverse
    except KeyError:
        return False


def _encodings(element: Element | None) -> tuple[str, ...]:
    """Python's names of the character sets that SpecificCharacterSet (0008,0005) states."""
    if element is None:
        return (default_encoding,)
    return _encodings_of(cast(bytes, element.value) or b"", getattr(element, "VR", None))


@lru_cache(256)
def _encodings_of(stated: bytes, vr: str | None) -> tuple[str, ...]:
    raw = RawDataElement(BaseTag(0x00080005), vr, len(stated), stated, 0, vr is None, True)
    try:
        with quiet():
            return tuple(convert_encodings(convert_raw_data_element(raw).value))
    except Exception:
        raise _NeedsFallback from None


# pydicom's parser


_NATIVE = {  # by whether VRs are implicit, and whether bytes are in little endian
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}


class _Deflated(Exception):  # noqa: N818 - not an error: the data set has to be inflated first
    """pydicom asks for all that is left, which it does to inflate it."""


class _Bounded:
    """A file as pydicom's parser sees it: no read goes past its end, and neither their number nor their sum is endless.

    A lying length would otherwise allocate what it says.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._steps, self._bytes = STEPS, READ
        self.tell = file.tell

    def read(self, length: int = -1) -> bytes:
        if length < 0:
            raise _Deflated
        length = min(length, max(self._size - self._file.tell(), 0))
        self._steps -= 1
        self._bytes -= length
        if self._steps < 0 or self._bytes < 0:
            raise Rejected(Reason.OVER_LIMITS, "the header has more elements or bytes than the limits allow")
        return self._file.read(length)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)


def pydicom_parse(file: BinaryIO, size: int, tags: frozenset[int]) -> ParsedFile:
    """Find `tags` by pydicom's parser, which copes with most of what is out of the ordinary; raises `Rejected`."""
    try:
        with quiet():
            return _parsed(file, size, tags)
    except Rejected:
        raise
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise
        if any(isinstance(cause, RecursionError | MemoryError) for cause in _causes(problem)):
            why = "the header is nested too deep or asks for too much memory"
            raise Rejected(Reason.OVER_LIMITS, why) from None
        raise Rejected(Reason.UNREADABLE_HEADER, f"parsing stopped with {type(problem).__name__}") from None


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    """`problem` and what it was raised in place of: where recursion ends, pydicom says that it cannot read a tag."""
    while problem:
        yield problem
        problem = problem.__context__


def _parsed(file: BinaryIO, size: int, tags: frozenset[int]) -> ParsedFile:
    file.seek(0)
    bounded = cast(BinaryIO, _Bounded(file, size))
    found: list[PixelElement] = []
    try:
        dataset = read_partial(bounded, stop_when=_noting(bounded, found), force=True, specific_tags=list(tags))
    except _Deflated:
        return _parsed_inflated(file, tags)
    return _opened(file, size, dataset, dataset, found)


def _parsed_inflated(file: BinaryIO, tags: frozenset[int]) -> ParsedFile:
    """The same for a data set that is deflated from where `file` stands (PS3.5 section A.5)."""
    begin = file.tell()
    file.seek(0)
    meta = read_partial(BytesIO(file.read(begin)), force=True)
    data, size = _inflated(file)
    bounded = cast(BinaryIO, _Bounded(data, size))
    found: list[PixelElement] = []
    dataset = read_dataset(bounded, False, True, stop_when=_noting(bounded, found), specific_tags=list(tags))
    return _opened(data, size, dataset, meta, found)


def _noting(file: BinaryIO, found: list[PixelElement]) -> Callable[[int, str | None, int], bool]:
    """What stops pydicom at the pixel data, and notes in `found` where they are."""

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            found.append(PixelElement(int(tag), vr, file.tell(), length))
        return bool(found)

    return at_pixels


def _inflated(file: BinaryIO) -> tuple[BytesIO, int]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = BytesIO()
    while not inflater.eof:
        piece = inflater.unconsumed_tail or file.read(2**16)
        if not piece:
            raise Rejected(Reason.INCOMPLETE, "the deflated data set breaks off")
        data.write(inflater.decompress(piece, 2**20))
        if data.tell() > MAX_INFLATED_BYTES:
            raise Rejected(Reason.OVER_LIMITS, "the data set inflates to more than the limit")
    size = data.tell()
    data.seek(0)
    return data, size


def _opened(file: BinaryIO, size: int, dataset: Dataset, head: FileDataset, found: list[PixelElement]) -> ParsedFile:
    """`head` holds preamble and meta header, `dataset` the elements."""
    encodings = dataset.original_character_set or default_encoding
    stated = _meta_uid(head, "TransferSyntaxUID")
    native = _NATIVE[cast(tuple[bool, bool], dataset.original_encoding)]
    return ParsedFile(
        file=file,
        size=size,
        elements={int(element.tag): element for element in dataset.elements()},
        encodings=(encodings,) if isinstance(encodings, str) else tuple(encodings),
        transfer_syntax=stated or str(native),
        pixels=found[0] if found else None,
        has_preamble=head.preamble is not None,
        media_class=_meta_uid(head, "MediaStorageSOPClassUID"),
    )


def _meta_uid(head: FileDataset, field: str) -> str | None:
    """The meta header's field where it is a UID in form."""
    try:
        stated = str(head.file_meta.get(field) or "")
    except Exception:  # of a VR that does not exist, say
        return None
    return stated if _UID.fullmatch(stated) else None


# Behind the pixels


def find_sequence_delimiter(opened: ParsedFile) -> int | None:
    """Where a sequence delimiter stands behind the start of the pixel data; None: those of undefined length break off.

    It is the last one of the file if that is near the end, else the first.
    """
    pixels = cast(PixelElement, opened.pixels)
    big = opened.transfer_syntax == ExplicitVRBigEndian
    delimiter = b"\xff\xfe\xe0\xdd" if big else b"\xfe\xff\xdd\xe0"
    tail = max(pixels.start, opened.size - 64)
    opened.file.seek(tail)
    at = opened.file.read(64).rfind(delimiter)
    if at >= 0:
        return tail + at
    return _search(opened, pixels.start, delimiter)


def _search(opened: ParsedFile, start: int, wanted: bytes) -> int | None:
    opened.file.seek(start)
    kept = b""
    while piece := opened.file.read(2**20):
        at = (kept + piece).find(wanted)
        if at >= 0:
            return start - len(kept) + at
        start += len(piece)
        kept = piece[-3:]
    return None


def _with_elements_behind(opened: ParsedFile, tags: frozenset[int]) -> ParsedFile:
    """`opened` with those of `tags` that stand behind its pixel data."""
    pixels = cast(PixelElement, opened.pixels)
    end = pixels.start + pixels.length
    if pixels.length == UNDEFINED:
        delimiter = find_sequence_delimiter(opened)
        end = opened.size if delimiter is None else delimiter + 8
    if end >= opened.size:
        return opened
    opened.file.seek(end)
    implicit = opened.transfer_syntax == ImplicitVRLittleEndian
    little = opened.transfer_syntax != ExplicitVRBigEndian
    try:
        with quiet():
            behind = read_dataset(
                cast(BinaryIO, _Bounded(opened.file, opened.size)), implicit, little, specific_tags=list(tags)
            )
    except (Exception, RecursionError, MemoryError) as error:
        if is_transient(error):
            raise
        return opened  # padding, or what no one can read
    found = {int(element.tag): element for element in behind.elements()}
    return replace(opened, elements={**found, **opened.elements})
