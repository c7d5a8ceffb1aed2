"""Parse the header of a regular little-endian DICOM file by stepping from length to length, far faster than pydicom."""

from functools import cache, lru_cache
from struct import Struct
from struct import error as struct_error
from typing import BinaryIO, Final, cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from pipeline.dicom.parsed_file import PIXEL_TAGS, UNDEFINED, Element, ParsedFile, PixelElement
from pipeline.dicom.quiet import quiet

FIRST_READ: Final = 2**14
"""Bytes of a file that are read first: most headers end within 16 KiB."""

_READS: Final = (FIRST_READ, 2**20)
_MAX_NESTING: Final = 32  # of sequences
_CHARACTER_SET: Final = 0x00080005

_tag_vr_length = Struct("<I2sH").unpack_from
_tag_length = Struct("<II").unpack_from
_length = Struct("<I").unpack_from

_LONG = {vr.value.encode(): vr.value for vr in VR if vr in EXPLICIT_VR_LENGTH_32}
_SHORT = {vr.value.encode(): vr.value for vr in VR if len(vr) == 2 and vr not in EXPLICIT_VR_LENGTH_32}


class _NeedsFallback(Exception):  # noqa: N818 - not an error: pydicom's parser takes over
    """The file is irregular."""


def _key(tag: int) -> int:
    """A tag as its four bytes read in little endian: element number above, group below; its own inverse."""
    return (tag & 0xFFFF) << 16 | tag >> 16


_PIXEL_KEYS = {_key(tag): tag for tag in PIXEL_TAGS}
_ITEM, _ITEM_END, _SEQUENCE_END = _key(0xFFFEE000), _key(0xFFFEE00D), _key(0xFFFEE0DD)
_STOPS = frozenset({*_PIXEL_KEYS, _ITEM, _ITEM_END, _SEQUENCE_END})


@cache
def _keys(tags: frozenset[int]) -> dict[int, tuple[int, BaseTag]]:
    return {_key(tag): (tag, BaseTag(tag)) for tag in (*tags, _CHARACTER_SET)}  # comparing a BaseTag is slow


def fast_parse(file: BinaryIO, size: int, tags: frozenset[int], head: bytes) -> ParsedFile | None:
    """The result of `pydicom_parse` for a regular file that has pixel data, otherwise None.

    `head` is the result of a first read of `file`.
    """
    for length in _READS:
        if len(head) < min(length, size):
            file.seek(0)
            head = file.read(length)
        try:
            return _parse(file, size, _keys(tags), head)
        except (struct_error, IndexError):  # `head` ends before the pixel data
            if len(head) >= size:
                return None
        except _NeedsFallback:
            return None
    return None


def _parse(file: BinaryIO, size: int, keys: dict[int, tuple[int, BaseTag]], head: bytes) -> ParsedFile:
    position, syntax = _skip_meta(head)
    implicit = syntax == ImplicitVRLittleEndian
    if implicit and 0x40 < head[position + 4] < 0x5B and 0x40 < head[position + 5] < 0x5B:
        raise _NeedsFallback  # two capital letters: a VR
    elements, pixels = _elements_before_pixels(head, position, implicit, keys)
    return ParsedFile(file, size, elements, _encodings(elements.get(_CHARACTER_SET)), syntax, pixels)


def _skip_meta(head: bytes) -> tuple[int, str]:
    """Position of the data set, and TransferSyntaxUID. Meta elements are explicit little endian (PS3.10 section 7)."""
    position = 132 if head[128:132] == b"DICM" else 0
    syntax = b""
    while head[position : position + 2] == b"\x02\x00":
        key, _, length, position = _element_head(head, position, implicit=False)
        if key == 0x00100002:
            syntax = head[position : position + length]
        position += length
    name = syntax.rstrip(b"\0").decode("ascii", "replace")
    # Group 0000 would be a command, which is implicit.
    if not _is_regular(name) or head[position : position + 2] == b"\0\0":
        raise _NeedsFallback
    return position, name


@lru_cache(256)
def _is_regular(syntax: str) -> bool:
    left_to_pydicom = {"", ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
    return syntax not in left_to_pydicom and all(part.isdecimal() for part in syntax.split("."))


def _element_head(head: bytes, position: int, implicit: bool) -> tuple[int, str | None, int, int]:
    """Key, VR and length of the element at `position`, and the position of its value. Raises `struct.error`."""
    if implicit:
        key, length = _tag_length(head, position)
        return key, None, length, position + 8
    key, code, length = _tag_vr_length(head, position)
    if vr := _SHORT.get(code):
        return key, vr, length, position + 8
    if vr := _LONG.get(code):
        return key, vr, _length(head, position + 8)[0], position + 12
    raise _NeedsFallback


def _elements_before_pixels(
    head: bytes, position: int, implicit: bool, keys: dict[int, tuple[int, BaseTag]]
) -> tuple[dict[int, Element], PixelElement]:
    """The requested elements before the pixel data, and the pixel data element. Raises `struct.error` at the end."""
    elements: dict[int, Element] = {}
    while True:
        key, vr, length, position = _element_head(head, position, implicit)
        if key in _STOPS:
            if key not in _PIXEL_KEYS:
                raise _NeedsFallback
            return elements, PixelElement(_PIXEL_KEYS[key], vr, position, length)
        end = position + length if length != UNDEFINED else _skip_sequence(head, position, key, vr)
        if key in keys:
            if end > len(head):
                raise struct_error
            value = head[position:end] or cast(bytes | None, empty_value_for_VR(vr, raw=True))
            stored_vr = "SQ" if length == UNDEFINED else vr
            number, tag = keys[key]
            elements[number] = RawDataElement(tag, stored_vr, end - position, value, position, implicit, True)
        position = end


def _skip_sequence(head: bytes, position: int, key: int, vr: str | None) -> int:
    """The end of a sequence of undefined length whose items begin at `position` (PS3.5 section 7.5)."""
    if not _is_sequence(key, vr):
        raise _NeedsFallback
    implicit = vr is None
    ends: list[int | None] = [None]  # of what is open: sequences at even indices, items at odd ones; None: undefined
    while ends:
        if len(ends) % 2:
            key, length = _tag_length(head, position)
            position += 8
            if key == _SEQUENCE_END:
                ends.pop()
            elif key == _ITEM and len(ends) < 2 * _MAX_NESTING:
                ends.append(None if length == UNDEFINED else position + length)
            else:
                raise _NeedsFallback
        elif position == ends[-1]:
            ends.pop()
        else:
            position = _step_in_item(head, position, implicit, ends)
    return position


def _step_in_item(head: bytes, position: int, implicit: bool, ends: list[int | None]) -> int:
    """Step over one element, into a sequence of undefined length, or out of an item of undefined length."""
    if _tag_length(head, position)[0] == _ITEM_END and ends[-1] is None:
        ends.pop()
        return position + 8
    key, vr, length, position = _element_head(head, position, implicit)
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
        return dictionary_VR(_key(key)) == "SQ"
    except KeyError:
        return False


def _encodings(element: Element | None) -> tuple[str, ...]:
    """Python's names of the character sets that SpecificCharacterSet (0008,0005) states."""
    if element is None:
        return (default_encoding,)
    return _encodings_of(cast(bytes, element.value) or b"", getattr(element, "VR", None))


@lru_cache(256)
def _encodings_of(stated: bytes, vr: str | None) -> tuple[str, ...]:
    raw = RawDataElement(BaseTag(_CHARACTER_SET), vr, len(stated), stated, 0, vr is None, True)
    try:
        with quiet():
            return tuple(convert_encodings(convert_raw_data_element(raw).value))
    except Exception:
        raise _NeedsFallback from None
