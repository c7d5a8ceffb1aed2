"""What parsing a DICOM file yields: the requested elements and the position of the pixel data."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final, cast

from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipeline.dicom.rejections import Reason, Rejected

PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float Pixel Data, Double Float Pixel Data and Pixel Data."""
UNDEFINED: Final = 0xFFFFFFFF
"""The length of a value that ends with a delimiter (PS3.5 section 7.1.2)."""

Element = RawDataElement | DataElement


@dataclass(frozen=True, slots=True)
class PixelElement:
    """The pixel data element: tag, VR, position of its value in the file, and its stated length or `UNDEFINED`."""

    tag: int
    vr: str | None
    start: int
    length: int


@dataclass(frozen=True)
class ParsedFile:
    """The requested elements of a DICOM file, unconverted, and the position of its pixel data.

    `file`, of `size` bytes, contains `pixels`: it is the opened file, or its inflated data set. `transfer_syntax` is
    TransferSyntaxUID (0002,0010), or the native one that a file without it is written in. `media_class` is
    MediaStorageSOPClassUID (0002,0002), read only if there are no pixels.
    """

    file: BinaryIO
    size: int
    elements: dict[int, Element]
    encodings: tuple[str, ...]
    transfer_syntax: str
    pixels: PixelElement | None
    has_preamble: bool = True
    media_class: str | None = None

    @property
    def pixel_element(self) -> PixelElement:
        """`pixels`; raises `Rejected` (not_an_image) if there are none."""
        if self.pixels is None:
            raise Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")
        return self.pixels

    @property
    def is_implicit(self) -> bool:
        """Whether the elements have no VR."""
        return self.transfer_syntax == ImplicitVRLittleEndian

    @property
    def is_big_endian(self) -> bool:
        """Whether numbers are stored with their highest byte first."""
        return self.transfer_syntax == ExplicitVRBigEndian

    @cached_property
    def dataset(self) -> Dataset:
        """The elements as a data set, which converts a value on access."""
        dataset = Dataset(cast(dict[BaseTag, Any], dict(self.elements)), parent_encoding=list(self.encodings))
        dataset.set_original_encoding(self.is_implicit, not self.is_big_endian, list(self.encodings))
        return dataset

    def find_sequence_delimiter(self) -> int | None:
        """Position of the sequence delimiter that ends the pixel data; None if they break off.

        It is the last delimiter in the file's last 64 bytes, otherwise the first one.
        """
        start = self.pixel_element.start
        delimiter = b"\xff\xfe\xe0\xdd" if self.is_big_endian else b"\xfe\xff\xdd\xe0"
        tail = max(start, self.size - 64)
        self.file.seek(tail)
        found = self.file.read(64).rfind(delimiter)
        return tail + found if found >= 0 else self._search(start, delimiter)

    def _search(self, start: int, wanted: bytes) -> int | None:
        self.file.seek(start)
        overlap = b""
        while block := self.file.read(2**20):
            found = (overlap + block).find(wanted)
            if found >= 0:
                return start - len(overlap) + found
            start += len(block)
            overlap = block[-3:]
        return None


def element_value(element: Element, encodings: tuple[str, ...]) -> Any:
    """The value of `element`, converted by pydicom; raises any of pydicom's errors."""
    if isinstance(element, DataElement):
        return element.value
    return convert_raw_data_element(element, encoding=list(encodings)).value
