"""The encoded frames of encapsulated pixel data (PS3.5 section A.4), by offset table or by counting."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import BinaryIO, Final, cast

from pydicom.encaps import generate_fragments, generate_frames, get_frame, parse_basic_offsets, parse_fragments

from pipeline.dicom.fields import tag_of
from pipeline.dicom.parsed_file import ParsedFile, element_value
from pipeline.dicom.pydicom_parse import MAX_READS
from pipeline.dicom.rejections import Reason, Rejected

MAX_FRAME_BYTES: Final = 2**29
"""Size limit of one decoded frame: 512 MiB, twenty times an 8-bit colour frame of 3000 x 3000."""
_EMPTY_ITEM: Final = b"\xfe\xff\x00\xe0\0\0\0\0"


class PixelWindow:
    """A file that ends with its pixel data, for pydicom to read them from; positions are those of the file."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end
        self._reads_left = MAX_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, length: int) -> bytes:
        """At most `length` bytes, or with -1 the rest. Raises `Rejected` (over_limits)."""
        rest = max(self._end - self._file.tell(), 0)
        length = min(length, rest) if length >= 0 else rest
        self._reads_left -= 1
        if length > MAX_FRAME_BYTES or self._reads_left < 0:
            raise Rejected(Reason.OVER_LIMITS, "a frame has more bytes or fragments than the limits allow")
        return self._file.read(length)


@dataclass(frozen=True)
class EncapsulatedFrames:
    """The encoded frames, `count` of them, in the pixel data of a file, which end at the position `end`."""

    parsed: ParsedFile
    end: int
    count: int

    @property
    def length(self) -> int:
        """Bytes of the pixel data."""
        return self.end - self.parsed.pixel_element.start

    def window(self) -> BinaryIO:
        """The pixel data as a file, at its beginning."""
        self.parsed.file.seek(self.parsed.pixel_element.start)
        return cast(BinaryIO, PixelWindow(self.parsed.file, self.end))

    def in_order(self) -> Iterator[bytes]:
        """Each frame, found by counting from the first."""
        return generate_frames(self.window(), number_of_frames=self.count, extended_offsets=self._extended_offsets)

    def by_counting(self, number: int) -> bytes | None:
        """Frame `number`, found by counting from the first; None if there is none."""
        return next(islice(self.in_order(), number, None), None)

    def by_offset(self, number: int) -> bytes:
        """Frame `number`, found with the offset tables if there are any."""
        window = self.window()
        if self._fragments is None:
            extended = self._extended_offsets
            return get_frame(self.window(), number, number_of_frames=self.count, extended_offsets=extended)
        window.seek(self._fragments[number])
        return next(generate_fragments(window))

    @cached_property
    def _extended_offsets(self) -> tuple[bytes, bytes] | None:
        """The Extended Offset Table (7FE0,0001) and its lengths (7FE0,0002), None without usable ones."""
        elements, encodings = self.parsed.elements, self.parsed.encodings
        tags = (tag_of("ExtendedOffsetTable"), tag_of("ExtendedOffsetTableLengths"))
        if not all(tag in elements for tag in tags):
            return None
        try:
            offsets, lengths = (bytes(element_value(elements[tag], encodings) or b"") for tag in tags)
        except Exception:  # for instance of another VR
            return None
        return (offsets, lengths) if offsets and len(offsets) == len(lengths) else None

    @cached_property
    def _fragments(self) -> list[int] | None:
        """The position of each frame's only fragment in a file without offset tables; None of other files."""
        window = self.window()
        if self._extended_offsets or parse_basic_offsets(window):
            return None
        count, offsets = parse_fragments(window)
        return offsets if count == self.count else None


def as_only_frame(encoded: bytes) -> bytes:
    """The pixel data of a file that has just this frame."""
    return b"".join((_EMPTY_ITEM, _EMPTY_ITEM[:4], len(encoded).to_bytes(4, "little"), encoded))
