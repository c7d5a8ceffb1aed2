"""How many frames' pixel data a file holds, where that is less than its header says, or its end is not as it should be.

Not here: decoding them.
"""

from collections.abc import Callable
from typing import Final, Literal, cast

from pydicom.uid import ExplicitVRBigEndian, MPEGTransferSyntaxes

from pipeline.dicom.reading import STEPS, UNDEFINED, ParsedFile, PixelElement, find_sequence_delimiter

_ITEM: Final = 0xFFFEE000
_DELIMITER: Final = 0xFFFEE0DD


def count_native_frames(opened: ParsedFile, stated: int, length: Callable[[int], int]) -> int:
    """Of `stated` native frames those that are there; `length` is the bytes that so many frames take.

    Pixel data of an odd length may lack their last byte, which some makers store as one less and not as one more. 0
    where no frame is there, and where the file ends before its pixel data do, since it may still be arriving.
    """
    pixels = cast(PixelElement, opened.pixels)
    if pixels.length == UNDEFINED:
        return stated if find_sequence_delimiter(opened) is not None else 0
    there = min(pixels.length, opened.size - pixels.start)
    if there >= length(stated):
        return stated
    if there < pixels.length:
        return 0
    fewer = min(stated, there // max(length(1), 1) + 1)
    return fewer if there >= _even(length(fewer)) else fewer - 1


def _even(length: int) -> int:
    return length - length % 2


def count_encapsulated_frames(opened: ParsedFile, stated: int) -> int:
    """Of `stated` encapsulated frames as many as there are fragments for (PS3.5 section A.4).

    Without the sequence delimiter fragments must be there for all of them, and the last one whole; else 0, since the
    file may still be arriving.
    """
    pixels = cast(PixelElement, opened.pixels)
    if pixels.length != UNDEFINED:
        return stated
    if find_sequence_delimiter(opened) is None:
        count, whole = _fragments(opened)
        return stated if whole and count >= stated else 0
    if stated == 1 or opened.transfer_syntax in MPEGTransferSyntaxes or _offsets(opened) == stated:
        return stated
    return min(stated, _fragments(opened)[0] or stated)


def _offsets(opened: ParsedFile) -> int:
    """Entries of the basic offset table."""
    tag, length = _item(opened, cast(PixelElement, opened.pixels).start)
    return length // 4 if tag == _ITEM else 0


def _fragments(opened: ParsedFile) -> tuple[int, bool]:
    """Fragments that are whole, and whether no other one breaks off."""
    at, count = cast(PixelElement, opened.pixels).start, -1  # the first item is the offset table
    for _ in range(STEPS):
        tag, length = _item(opened, at)
        if tag != _ITEM:
            return max(count, 0), count >= 0
        at += 8 + length
        if at > opened.size:
            break
        count += 1
    return max(count, 0), False


def _item(opened: ParsedFile, at: int) -> tuple[int, int]:
    """Tag and length of the item at `at`; zeros at the file's end."""
    opened.file.seek(at)
    head = opened.file.read(8).ljust(8, b"\0")
    order: Literal["big", "little"] = "big" if opened.transfer_syntax == ExplicitVRBigEndian else "little"
    group, element, length = head[:2], head[2:4], head[4:]
    return int.from_bytes(group, order) << 16 | int.from_bytes(element, order), int.from_bytes(length, order)
