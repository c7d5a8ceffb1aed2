"""How many bits of an ultrasound frame's whole numbers are used, where the header is wrong about it."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.dicom.rejections import Reason, Rejected

DEPTHS: Final = (8, 10, 12, 16)
"""Bits that scanners use; with values far below what the header states, it is the first of these that holds them."""
FAR_BELOW: Final = 4
"""So many of the stated bits at least are not used by any value; by 8 bits under 9 or more, one."""
OVERLAY: Final = 0.05
"""Share of the pixels that a drawing in the unused bits takes at most (PS3.5 section 8.1.2, as ACR-NEMA has it)."""


def resolve_bit_depth(
    values: npt.NDArray[Any],
    bits: int,
    high_bit: int,
    signed: bool,
    in_stream: int | None,
    of_file: tuple[int, int] | None = None,
) -> tuple[npt.NDArray[Any], int]:
    """`values` as whole numbers from 0, and the bits that they have.

    `bits`, `high_bit` (counted from 0) and `signed` as the header states them, `in_stream` what a compressed frame
    says of itself, which is no less than what its values take; `of_file` the least and the greatest value in a cine,
    of which a single frame can be dark. Raises `Rejected` (unsupported_pixels) where values do
    not fit into what is stated and nothing tells how they are meant.
    """
    levels = (int(values.min()), int(values.max()), *(of_file or ()))
    least, greatest = min(levels), max(levels)
    if signed and least >= 0:
        bits, signed = bits - 1, False
    if signed:
        shifted = values.astype(np.int64) + 2 ** (bits - 1)
        if shifted.min() < 0 or shifted.max() >= 2**bits:
            raise _beyond()
        return shifted, bits
    if in_stream:
        bits = min(bits, in_stream)
    if greatest >= 2**bits:
        return _beyond_the_stated(values, bits, high_bit, in_stream)
    return values, _used(greatest, bits)


def _used(greatest: int, bits: int) -> int:
    """The bits that frames up to the level `greatest` have, where `bits` are stated."""
    for depth in DEPTHS:
        far_below = depth <= bits - (1 if depth == DEPTHS[0] else FAR_BELOW)
        if far_below and greatest < 2**depth:
            return depth
    return bits


def _beyond_the_stated(
    values: npt.NDArray[Any], bits: int, high_bit: int, in_stream: int | None
) -> tuple[npt.NDArray[Any], int]:
    """Values that take more bits than stated: at the upper end of the pixel, in the stream, or beside a drawing."""
    if in_stream and int(values.max()) < 2**in_stream:
        return values, in_stream
    if values.dtype.itemsize == 1:
        return values, 8
    shift = high_bit + 1 - bits
    if shift > 0 and not (values & values.dtype.type(2**shift - 1)).any() and int(values.max()) >> shift < 2**bits:
        return values >> values.dtype.type(shift), bits
    above = values >> values.dtype.type(bits)
    drawn = above > 0
    if drawn.mean() <= OVERLAY and len(np.unique(above[drawn])) <= 1:
        return values & values.dtype.type(2**bits - 1), bits
    raise _beyond()


def _beyond() -> Rejected:
    return Rejected(Reason.UNSUPPORTED_PIXELS, "values take more bits than BitsStored (0028,0101) states")
