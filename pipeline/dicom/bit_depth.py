"""The bits that the whole numbers of a frame really use, if the header is wrong, and scaling them to 8 bits."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.dicom.rejections import Reason, Rejected

DEPTHS: Final = (8, 10, 12, 16)
"""Bit depths of scanners; values far below the stated depth have the first of these that holds them."""
FAR_BELOW: Final = 4
"""Values are far below the stated depth if at least this many bits are unused; one is enough for 8 bits."""
OVERLAY: Final = 0.05
"""Largest share of pixels covered by an overlay in the unused bits (PS3.5 section 8.1.2, from ACR-NEMA)."""


@dataclass(frozen=True, slots=True)
class BitDepth:
    """What header and stream state about the bits of a frame's whole numbers.

    `bits`, `high_bit` (from 0) and `signed` are the header's. `stream_bits` is the precision of a compressed frame,
    never less than its values need. `file_levels` are the least and greatest value of a cine, since one frame can be
    dark.
    """

    bits: int
    high_bit: int
    signed: bool
    stream_bits: int | None
    file_levels: tuple[int, int] | None = None

    def to_uint8(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """`values` scaled to 0 to 255 from the full range of their bits.

        Raises `Rejected` (unsupported_pixels) if they exceed the stated bits for no reason that is known.
        """
        if self.bits == 8 and values.dtype == np.uint8:
            return values
        return scale_to_uint8(*self._unsigned(values))

    def _unsigned(self, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
        """`values` from 0 on, and their bits."""
        levels = (int(values.min()), int(values.max()), *(self.file_levels or ()))
        least, greatest = min(levels), max(levels)
        if self.signed and least < 0:
            shifted = values.astype(np.int64) + 2 ** (self.bits - 1)
            if shifted.min() < 0 or shifted.max() >= 2**self.bits:
                raise _beyond()
            return shifted, self.bits
        bits = self.bits - 1 if self.signed else self.bits
        if self.stream_bits:
            bits = min(bits, self.stream_bits)
        if greatest >= 2**bits:
            return self._beyond_stated(values, bits)
        return values, _used_bits(greatest, bits)

    def _beyond_stated(self, values: npt.NDArray[Any], bits: int) -> tuple[npt.NDArray[Any], int]:
        """Values that exceed `bits`: as deep as the stream, in the upper bits of the pixel, or below an overlay."""
        if self.stream_bits and int(values.max()) < 2**self.stream_bits:
            return values, self.stream_bits
        if values.dtype.itemsize == 1:
            return values, 8
        shift = self.high_bit + 1 - bits
        if shift > 0 and not (values & values.dtype.type(2**shift - 1)).any() and int(values.max()) >> shift < 2**bits:
            return values >> values.dtype.type(shift), bits
        above = values >> values.dtype.type(bits)
        overlay = above > 0
        if overlay.mean() <= OVERLAY and len(np.unique(above[overlay])) <= 1:
            return values & values.dtype.type(2**bits - 1), bits
        raise _beyond()


def scale_to_uint8(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """`values` of 0 to 2**bits - 1 scaled to 0 to 255."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    return round_to_uint8(values * (255 / (2**bits - 1)))


def round_to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """`values` rounded and clipped to 0 to 255."""
    levels: npt.NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _used_bits(greatest: int, bits: int) -> int:
    """The bits of frames with levels up to `greatest`, if `bits` are stated."""
    for depth in DEPTHS:
        far_below = depth <= bits - (1 if depth == DEPTHS[0] else FAR_BELOW)
        if far_below and greatest < 2**depth:
            return depth
    return bits


def _beyond() -> Rejected:
    return Rejected(Reason.UNSUPPORTED_PIXELS, "values take more bits than BitsStored (0028,0101) states")
