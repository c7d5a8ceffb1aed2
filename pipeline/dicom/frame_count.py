"""Count the frames whose pixel data a file really has, without decoding them."""

from collections.abc import Callable
from math import ceil
from struct import unpack
from typing import Final

from pydicom.uid import MPEGTransferSyntaxes

from pipeline.dicom.parsed_file import UNDEFINED, ParsedFile
from pipeline.dicom.pydicom_parse import MAX_READS

_ITEM: Final = 0xFFFEE000


def native_length(values: int, bits: int, photometric: str | None, frames: int) -> int:
    """Bytes of `frames` native frames of `values` samples of `bits` bits each, without padding.

    Frames of one bit have no gap between them; YBR_FULL_422 stores two thirds (PS3.3 section C.7.6.3.1.2).
    """
    if bits == 1:
        return ceil(values * frames / 8)
    length = values * (bits // 8)
    return (length // 3 * 2 if photometric == "YBR_FULL_422" else length) * frames


def count_native_frames(parsed: ParsedFile, stated: int, length: Callable[[int], int]) -> int:
    """The number of the `stated` native frames that are there; `length(n)` is the size of n frames in bytes.

    Pixel data of an odd length may lack their last byte, which some vendors drop instead of padding it. 0 if no frame
    is there, and if the file ends before its pixel data, since it may still be arriving.
    """
    pixels = parsed.pixel_element
    if pixels.length == UNDEFINED:
        return stated if parsed.find_sequence_delimiter() is not None else 0
    there = min(pixels.length, parsed.size - pixels.start)
    if there >= length(stated):
        return stated
    if there < pixels.length:
        return 0
    fewer = min(stated, there // max(length(1), 1) + 1)
    return fewer if there >= length(fewer) // 2 * 2 else fewer - 1


def count_encapsulated_frames(parsed: ParsedFile, stated: int) -> int:
    """The number of the `stated` encapsulated frames that there are fragments for (PS3.5 section A.4).

    Without the sequence delimiter it is 0, since the file may still be arriving, unless there are whole fragments for
    all of them.
    """
    if parsed.pixel_element.length != UNDEFINED:
        return stated
    if parsed.find_sequence_delimiter() is None:
        count, whole = _fragments(parsed)
        return stated if whole and count >= stated else 0
    if stated == 1 or parsed.transfer_syntax in MPEGTransferSyntaxes or _offsets(parsed) == stated:
        return stated
    return min(stated, _fragments(parsed)[0] or stated)


def _offsets(parsed: ParsedFile) -> int:
    """Number of entries of the basic offset table."""
    tag, length = _item(parsed, parsed.pixel_element.start)
    return length // 4 if tag == _ITEM else 0


def _fragments(parsed: ParsedFile) -> tuple[int, bool]:
    """Number of whole fragments, and whether none breaks off."""
    position, count = parsed.pixel_element.start, -1  # the first item is the offset table
    for _ in range(MAX_READS):
        tag, length = _item(parsed, position)
        if tag != _ITEM:
            return max(count, 0), count >= 0
        position += 8 + length
        if position > parsed.size:
            break
        count += 1
    return max(count, 0), False


def _item(parsed: ParsedFile, position: int) -> tuple[int, int]:
    """Tag and length of the item at `position`; zeros at the end of the file."""
    parsed.file.seek(position)
    head = parsed.file.read(8).ljust(8, b"\0")
    group, element, length = unpack(">HHI" if parsed.is_big_endian else "<HHI", head)
    return group << 16 | element, length
