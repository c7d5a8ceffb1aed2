"""Features of cached images, a millisecond each: where edges run, how fine the texture is, which grey levels occur.

The edges are histograms of oriented gradients (Dalal and Triggs, CVPR 2005) without overlapping blocks.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.dicom.grey import Grey, resize_grey

_HEIGHT, _WIDTH = 64, 96
_CELLS: Final = (4, 6)
"""Rows and columns of cells in which gradients and texture are measured."""
_ORIENTATIONS, _LEVELS, _SCALES = 8, 16, (1, 2, 4)

Floats = npt.NDArray[np.float32]


def pixel_features(grey_HW: Grey) -> Floats:
    """280 features of an image of any size, scaled to 64 x 96.

    Per cell the shares of 8 orientations of its gradients, and the logarithm of the variance of its details of 1 to 2,
    2 to 4 and 4 to 8 pixels; the shares of 16 ranges of grey.
    """
    small = resize_grey(grey_HW, _HEIGHT, _WIDTH)
    grey = small.astype(np.float32)
    shares = np.bincount(small.ravel() // (256 // _LEVELS), minlength=_LEVELS) / small.size
    details = [_details(grey, scale) for scale in _SCALES]
    return np.concatenate([_orientations(grey), *details, shares]).astype(np.float32)


def _orientations(grey: Floats) -> Floats:
    """The square roots of the shares of each cell and orientation in all gradients of the image."""
    down, across = np.gradient(_means(grey, _HEIGHT // 2, _WIDTH // 2))
    orientation = (np.arctan2(down, across) % np.pi / np.pi * _ORIENTATIONS).astype(int) % _ORIENTATIONS
    strength = np.hypot(down, across)
    each = [_means(np.where(orientation == one, strength, 0), *_CELLS).ravel() for one in range(_ORIENTATIONS)]
    found = np.concatenate(each)
    return np.asarray(np.sqrt(found / (found.sum() + 1e-6)))


def _details(grey: Floats, scale: int) -> Floats:
    """Per cell the logarithm of the variance of means over `scale` pixels around those over twice as many."""
    fine = _means(grey, _HEIGHT // scale, _WIDTH // scale)
    coarse = _means(fine, _HEIGHT // scale // 2, _WIDTH // scale // 2)
    return np.asarray(np.log1p(_means((fine - coarse.repeat(2, 0).repeat(2, 1)) ** 2, *_CELLS).ravel()))


def _means(values: Floats, rows: int, columns: int) -> Floats:
    """Means over `rows` x `columns` equal blocks."""
    height, width = values.shape
    return np.asarray(values.reshape(rows, height // rows, columns, width // columns).mean((1, 3)))
