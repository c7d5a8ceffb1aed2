"""What three samples a pixel are: red, green and blue or luma and chroma, and in which order they are stored.

Headers are wrong about both. An ultrasound frame is mostly grey, and grey in one reading alone: as RGB its samples are
equal, as YCbCr its chroma is 128 (PS3.3 section C.7.6.3.1.2). So the data decide where they speak clearly; a frame that
is colourful in every reading is what its header says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint8]
"""Height x width x 3."""

EQUAL: Final = 8
"""Samples of a grey pixel differ by so much at most, or its chroma from 128: compression is not exact."""
COLOURED: Final = 32
"""Differences from there on count alike."""
EXACT: Final = 0.5
"""Mean difference up to which a frame is nothing but grey: it is so in the right reading alone."""
DARK: Final = 16
"""Darker pixels do not count as grey: they are so in a wrong order, too."""
CLEARER: Final = (1.3, 0.15)
"""Another reading than the stated one is taken if its share of grey pixels is this many times greater, and greater by
this much."""
MOSTLY: Final = 0.5
"""A reading in which this share of the pixels is grey is in no doubt."""
DARK_SHARE: Final = (0.01, 0.02)
"""Tinted frames have no grey, but a dark ground: less than the first share of black in the stated reading and more
than the second in the other one is a clear word."""
MUCH_SMOOTHER, SMOOTHER, ROUGHER = 0.65, 0.8, 1.6
"""What neighbours differ by in the other order over what they differ by in the stated one: below these it is taken,
where it is less grey (neighbours that a wrong order takes for one pixel are alike, too), as grey, and greyer (which
constant chroma is, too, where a wrong order brings it together)."""
SMALLEST: Final = 1024
"""Pixels of a frame from which neighbours say something."""
LOOKED_AT: Final = 20_000
"""Pixels that are looked at, about."""

_Few = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """How samples are understood: as luma and chroma or as RGB; `reordered`: in the other order than the stated one."""

    luma_chroma: bool
    reordered: bool = False


def detect_sample_layout(
    stated_HWC: Samples, luma_chroma: bool, reorder: Callable[[Samples], Samples] | None
) -> SampleLayout:
    """The reading that the data of a frame tell, else the stated one.

    `stated_HWC` are the samples in the stated order; `reorder` puts them into the other one, None where the encoding
    leaves no doubt about it.
    """
    few, reordered = _few(stated_HWC), False
    if reorder and stated_HWC.size > 3 * SMALLEST and _tint(few) > EXACT:
        other_HWC = reorder(stated_HWC)
        other, step = _few(other_HWC), _step(other_HWC) / max(_step(stated_HWC), EXACT)
        greyer = _is_greyer(other, few) - _is_greyer(few, other)
        reordered = step < (MUCH_SMOOTHER, SMOOTHER, ROUGHER)[greyer + 1]
        few = other if reordered else few
    return SampleLayout(_is_luma_chroma(few, luma_chroma), reordered)


def is_mostly_grey(rgb_hwC: Samples) -> bool:
    """Whether most of what is lit is grey, so that red, green and blue are what the samples are."""
    return _grey_share(_few(rgb_hwC), luma_chroma=False) >= MOSTLY


def by_plane(interleaved_HWC: Samples) -> Samples:
    """Samples that were read pixel by pixel, but are stored plane by plane."""
    height, width, samples = interleaved_HWC.shape
    return np.ascontiguousarray(interleaved_HWC).reshape(samples, height, width).transpose(1, 2, 0)


def by_pixel(planar_HWC: Samples) -> Samples:
    """Samples that were read plane by plane, but are stored pixel by pixel."""
    return np.ascontiguousarray(planar_HWC.transpose(2, 0, 1)).reshape(planar_HWC.shape)


def _is_greyer(other: _Few, stated: _Few) -> bool:
    if _tint(other) <= EXACT:
        return True
    times, more = CLEARER
    share = _greyest(stated)
    return _greyest(other) > max(times * share, share + more)


def _is_luma_chroma(few: _Few, stated: bool) -> bool:
    """Whether samples are luma and chroma, and not RGB: what is grey so alone, else dark so alone, else as stated."""
    here, other = _grey_share(few, stated), _grey_share(few, not stated)
    times, more = CLEARER
    if other > max(times * here, here + more):
        return not stated
    if here >= MOSTLY:
        return stated
    black, otherwise = _dark(few, stated).mean(), _dark(few, not stated).mean()
    return stated != bool(black < DARK_SHARE[0] and otherwise > DARK_SHARE[1])


def _few(samples_HWC: Samples) -> _Few:
    """An evenly spread part, as 3 x height x width."""
    every = max(1, round((samples_HWC.shape[0] * samples_HWC.shape[1] / LOOKED_AT) ** 0.5))
    return np.ascontiguousarray(np.moveaxis(samples_HWC[::every, ::every], -1, 0), np.int16)


def _apart(few: _Few, luma_chroma: bool) -> _Few:
    """How far each pixel is from grey."""
    first, second, third = few
    if luma_chroma:
        return np.asarray(np.maximum(abs(second - 128), abs(third - 128)), np.int16)
    greatest, least = np.maximum(np.maximum(first, second), third), np.minimum(np.minimum(first, second), third)
    return np.asarray(greatest - least, np.int16)


def _dark(few: _Few, luma_chroma: bool) -> npt.NDArray[np.bool_]:
    first, second, third = few
    if luma_chroma:
        return np.asarray((first <= DARK) & (_apart(few, luma_chroma) <= EQUAL), np.bool_)
    return np.asarray((first <= DARK) & (second <= DARK) & (third <= DARK), np.bool_)


def _grey_share(few: _Few, luma_chroma: bool) -> float:
    """The share of grey pixels among those that are not dark."""
    lit = ~_dark(few, luma_chroma)
    grey = lit & (_apart(few, luma_chroma) <= EQUAL)
    return float(grey.sum() / max(lit.sum(), 1))


def _greyest(few: _Few) -> float:
    return max(_grey_share(few, False), _grey_share(few, True))


def _tint(few: _Few) -> float:
    """The mean distance from grey of what is lit, in the reading in which it is least; 0 where nothing is lit."""
    tints = [0.0]
    for luma_chroma in (False, True):
        lit = ~_dark(few, luma_chroma)
        tints.append(float(np.minimum(_apart(few, luma_chroma)[lit], COLOURED).mean()) if lit.any() else 0.0)
    return min(tints[1:])


def _step(samples_HWC: Samples) -> float:
    """The mean difference between neighbours, down and across, of some of the rows."""
    every = max(2, round(samples_HWC.shape[0] * samples_HWC.shape[1] / LOOKED_AT))
    rows, below = (samples_HWC[at::every].astype(np.int16) for at in (0, 1))
    if not below.size or rows.shape[1] < 2:
        return 0.0
    return float(abs(rows[: len(below)] - below).mean() + abs(np.diff(rows, axis=1)).mean())
