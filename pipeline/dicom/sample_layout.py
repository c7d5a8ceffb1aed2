"""Detect whether three samples per pixel are RGB or YCbCr, and in which order they are stored.

Headers are wrong about both. An ultrasound frame is mostly grey, and grey in one layout only: as RGB its samples are
equal, as YCbCr its chroma is 128 (PS3.3 section C.7.6.3.1.2). So clear data overrule the header; a frame that is
colourful in every layout has the stated one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint8]
"""Height x width x 3."""

EQUAL: Final = 8
"""Largest difference between samples of a grey pixel, or of its chroma from 128, after lossy compression."""
COLOURED: Final = 32
"""Larger differences count as this one."""
EXACT: Final = 0.5
"""Mean difference up to which a frame is entirely grey, which it is in the right layout only."""
DARK: Final = 16
"""Darker pixels do not count as grey: they look grey in a wrong order, too."""
CLEARER: Final = (1.3, 0.15)
"""A layout replaces the stated one if its share of grey pixels is this many times greater, and greater by this much."""
MOSTLY: Final = 0.5
"""A layout in which this share of the pixels is grey is certain."""
DARK_SHARE: Final = (0.01, 0.02)
"""Tinted frames have no grey, but a dark ground: the other layout is right if the stated one has less than the first
share of black pixels, and the other more than the second."""
MUCH_SMOOTHER, SMOOTHER, ROUGHER = 0.65, 0.8, 1.6
"""Ratio of the mean difference between neighbours in the other order to that in the stated one. Below these the other
order is right, if it is less grey (neighbours that a wrong order takes for one pixel are alike, too), as grey, and
greyer (so is constant chroma that a wrong order brings together)."""
SMALLEST: Final = 1024
"""Number of pixels from which differences between neighbours are meaningful."""
EXAMINED: Final = 20_000
"""Approximate number of pixels that are examined."""

_Sample = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """Whether samples are luma and chroma, otherwise RGB, and whether they are `reordered` against the header."""

    luma_chroma: bool
    reordered: bool = False


def detect_sample_layout(
    stated_HWC: Samples, luma_chroma: bool, reorder: Callable[[Samples], Samples] | None
) -> SampleLayout:
    """The layout that a frame's data clearly have, otherwise the stated one.

    `stated_HWC` are the samples in the stated order; `reorder` puts them into the other one, None if the encoding
    determines the order.
    """
    few, reordered = _sample(stated_HWC), False
    if reorder and stated_HWC.size > 3 * SMALLEST and _tint(few) > EXACT:
        other_HWC = reorder(stated_HWC)
        other, step = _sample(other_HWC), _roughness(other_HWC) / max(_roughness(stated_HWC), EXACT)
        greyer = _is_greyer(other, few) - _is_greyer(few, other)
        reordered = step < (MUCH_SMOOTHER, SMOOTHER, ROUGHER)[greyer + 1]
        few = other if reordered else few
    return SampleLayout(_is_luma_chroma(few, luma_chroma), reordered)


def is_mostly_grey(rgb_hwC: Samples) -> bool:
    """Whether most lit pixels are grey as RGB, so that the samples are RGB."""
    return _grey_share(_sample(rgb_hwC), luma_chroma=False) >= MOSTLY


def by_plane(interleaved_HWC: Samples) -> Samples:
    """Samples stored plane by plane that were read pixel by pixel."""
    height, width, samples = interleaved_HWC.shape
    return np.ascontiguousarray(interleaved_HWC).reshape(samples, height, width).transpose(1, 2, 0)


def by_pixel(planar_HWC: Samples) -> Samples:
    """Samples stored pixel by pixel that were read plane by plane."""
    return np.ascontiguousarray(planar_HWC.transpose(2, 0, 1)).reshape(planar_HWC.shape)


def _is_greyer(other: _Sample, stated: _Sample) -> bool:
    if _tint(other) <= EXACT:
        return True
    times, more = CLEARER
    share = _greyest(stated)
    return _greyest(other) > max(times * share, share + more)


def _is_luma_chroma(few: _Sample, stated: bool) -> bool:
    """Whether samples are luma and chroma: the far greyer or else far darker layout, otherwise the stated one."""
    here, other = _grey_share(few, stated), _grey_share(few, not stated)
    times, more = CLEARER
    if other > max(times * here, here + more):
        return not stated
    if here >= MOSTLY:
        return stated
    black, otherwise = _dark(few, stated).mean(), _dark(few, not stated).mean()
    return stated != bool(black < DARK_SHARE[0] and otherwise > DARK_SHARE[1])


def _sample(samples_HWC: Samples) -> _Sample:
    """An evenly spaced sample of the pixels, as 3 x height x width."""
    every = max(1, round((samples_HWC.shape[0] * samples_HWC.shape[1] / EXAMINED) ** 0.5))
    return np.ascontiguousarray(np.moveaxis(samples_HWC[::every, ::every], -1, 0), np.int16)


def _distance(few: _Sample, luma_chroma: bool) -> _Sample:
    """The distance of each pixel from grey."""
    first, second, third = few
    if luma_chroma:
        return np.asarray(np.maximum(abs(second - 128), abs(third - 128)), np.int16)
    greatest, least = np.maximum(np.maximum(first, second), third), np.minimum(np.minimum(first, second), third)
    return np.asarray(greatest - least, np.int16)


def _dark(few: _Sample, luma_chroma: bool) -> npt.NDArray[np.bool_]:
    first, second, third = few
    if luma_chroma:
        return np.asarray((first <= DARK) & (_distance(few, luma_chroma) <= EQUAL), np.bool_)
    return np.asarray((first <= DARK) & (second <= DARK) & (third <= DARK), np.bool_)


def _grey_share(few: _Sample, luma_chroma: bool) -> float:
    """The share of grey pixels among the lit ones."""
    lit = ~_dark(few, luma_chroma)
    grey = lit & (_distance(few, luma_chroma) <= EQUAL)
    return float(grey.sum() / max(lit.sum(), 1))


def _greyest(few: _Sample) -> float:
    return max(_grey_share(few, False), _grey_share(few, True))


def _tint(few: _Sample) -> float:
    """The mean distance of lit pixels from grey, in the greyer layout; 0 without lit pixels."""
    tints = []
    for luma_chroma in (False, True):
        lit = ~_dark(few, luma_chroma)
        tints.append(float(np.minimum(_distance(few, luma_chroma)[lit], COLOURED).mean()) if lit.any() else 0.0)
    return min(tints)


def _roughness(samples_HWC: Samples) -> float:
    """The mean difference between vertical and horizontal neighbours, in some of the rows."""
    every = max(2, round(samples_HWC.shape[0] * samples_HWC.shape[1] / EXAMINED))
    rows, below = (samples_HWC[at::every].astype(np.int16) for at in (0, 1))
    if not below.size or rows.shape[1] < 2:
        return 0.0
    return float(abs(rows[: len(below)] - below).mean() + abs(np.diff(rows, axis=1)).mean())
