"""Read size, depth and components from the head of a compressed frame: JPEG, JPEG-LS or JPEG 2000."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_SIZ = b"\xff\x4f\xff\x51"
_SIGNATURE = b"\xff\xd8"
_SCAN: Final = 0xDA
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xF7})
_APP0, _APP14 = 0xE0, 0xEE
_RGB_IDS = ((82, 71, 66), (114, 103, 98))


END_OF_IMAGE: Final = b"\xff\xd9"
FILLER: Final = bytes(range(1, 128, 2)) * 8
"""Bytes that a decoder of truncated data takes for the missing ones, so that its output changes."""


@dataclass(frozen=True, slots=True)
class Codestream:
    """The head of a compressed frame; zero or None for unknown codestreams such as RLE.

    `size`: bytes of the decoded frame; `precision` in bits; `components` per pixel. `halved_chroma`: the first one has
    more samples than the others. `luma_chroma`: whether the components are luma and chroma, None if not stated.
    `read_as_luma_chroma`: whether libjpeg's rules take them for luma and chroma.
    """

    size: int = 0
    precision: int | None = None
    components: int = 0
    halved_chroma: bool = False
    luma_chroma: bool | None = None
    read_as_luma_chroma: bool = True

    @staticmethod
    def of(encoded: bytes) -> "Codestream":
        """The head of `encoded`; unknown if it breaks off."""
        try:
            if encoded[:4] == _SIZ:
                return _of_jpeg_2000(encoded)
            return _of_jpeg(encoded) if encoded[:2] == _SIGNATURE else Codestream()
        except (IndexError, ZeroDivisionError):
            return Codestream()

    def breaks_off(self, encoded: bytes) -> bool:
        """Whether `encoded` is a JPEG without an end marker in its last 64 bytes, which leaves room for padding."""
        return self.size > 0 and encoded[:2] == _SIGNATURE and END_OF_IMAGE not in encoded[-64:]

    def options(self, stated: dict[str, Any]) -> dict[str, Any]:
        """Pydicom's decoding options that correct the `stated` ones."""
        options: dict[str, Any] = {}
        if self.components in {1, 3} and self.components != stated["samples_per_pixel"]:
            options["samples_per_pixel"] = self.components
            if (self.components == 3) != (stated["photometric_interpretation"] not in _ONE_SAMPLE):
                options["photometric_interpretation"] = "RGB" if self.components == 3 else "MONOCHROME2"
        elif self.components == 3 and self.halved_chroma:
            options["photometric_interpretation"] = "YBR_FULL"
        if self.precision and self.precision > stated["bits_allocated"]:
            options |= {"bits_allocated": 16, "bits_stored": self.precision}
        elif self.precision:
            options["bits_stored"] = min(stated["bits_stored"], self.precision)
        return options

    def without_conversion(self, encoded: bytes) -> bytes:
        """The JPEG marked as RGB, so that a decoder returns its components as stored."""
        kept = bytearray(_SIGNATURE + _ADOBE_RGB)
        for marker, start, end in _segments(encoded):
            if marker == _SCAN:
                return bytes(kept) + encoded[start:]
            if marker not in {_APP0, _APP14}:
                kept += encoded[start:end]
        return encoded


_ONE_SAMPLE = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "PALETTE_COLOR"})
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def _of_jpeg_2000(encoded: bytes) -> Codestream:
    """SIZ, ISO 15444-1 section A.5.1; the decoder undoes a multiple component transform (COD, section A.6.1)."""
    right, bottom, left, top = (int.from_bytes(encoded[at : at + 4], "big") for at in (8, 12, 16, 20))
    components = int.from_bytes(encoded[40:42], "big")
    each = [encoded[at : at + 3] for at in range(42, 42 + 3 * min(components, 4), 3)]
    precision = (each[0][0] & 0x7F) + 1
    halved = components == 3 and each[0][1:] < each[1][1:]
    size = (right - left) * (bottom - top) * components * -(-precision // 8)
    return Codestream(size, precision, components, halved, True if halved else None)


def _of_jpeg(encoded: bytes) -> Codestream:
    """ISO 10918-1 section B.2.2, ISO 14495-1 section C.2.2; JFIF and Adobe's marker as libjpeg reads them."""
    jfif, transform = False, None
    for marker, start, end in _segments(encoded):
        if marker == _APP0 and encoded[start + 4 : start + 8] == b"JFIF":
            jfif = True
        if marker == _APP14 and encoded[start + 4 : start + 9] == b"Adobe" and end - start >= 16:
            transform = encoded[start + 15]
        if marker in _START_OF_FRAME:
            return _of_frame(encoded[start:end], jfif, transform)
    return Codestream()


def _of_frame(head: bytes, jfif: bool, transform: int | None) -> Codestream:
    precision, components = head[4], head[9]
    height, width = int.from_bytes(head[5:7], "big"), int.from_bytes(head[7:9], "big")
    each = [(head[at], head[at + 1] >> 4, head[at + 1] & 15) for at in range(10, 10 + 3 * components, 3)]
    ids = tuple(number for number, _, _ in each)
    halved = components == 3 and each[0][1] * each[0][2] > each[1][1] * each[1][2]
    read = jfif or (transform != 0 if transform is not None else ids not in _RGB_IDS[:1])
    luma_chroma: bool | None = None
    if halved or jfif:
        luma_chroma = True
    elif transform is not None:
        luma_chroma = transform != 0
    elif ids in _RGB_IDS:
        luma_chroma = False
    size = height * width * components * -(-precision // 8)
    return Codestream(size, precision, components, halved, luma_chroma, read)


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG's head, up to the first scan."""
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        yield marker, at, at + 2 + length
        if marker == _SCAN:
            return
        at += 2 + length
