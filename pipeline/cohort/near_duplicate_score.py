"""Similarity of two images, from -1 to 1, that tolerates compression, brightness changes, cropping and mirroring.

It is the normalized correlation of thumbnails of SIDE x SIDE grey levels after subtracting a blurred copy (coarse
brightness), the maximum over crops of either image by up to CROP of a side and over mirroring. `python -m benchmarks
near_duplicates` prints the figures behind the thresholds.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter1d

SIDE: Final = 32
"""Pixels of a thumbnail's side."""
MIN_SIMILARITY: Final = 0.85
"""Minimum score of a near-duplicate. It finds at least 97.7 % of planted variants of phantom and real images (JPEG of
quality 50 to 90, up to 5 % cropped from each side, gain, gamma, mirrored, all of these together), and none of 442,827
pairs of unrelated frames of one organ."""
CROP: Final = 0.05
"""Maximum share of a side that is cropped at either end."""

Thumbs = npt.NDArray[np.uint8]
"""N x SIDE x SIDE."""
Vectors = npt.NDArray[np.float32]
"""N x D, each of length 1."""

_BLUR = 3.0  # pixels of a thumbnail; coarser structure is brightness, determined by organ and probe
_MIN_CONTRAST = 2.0  # grey levels without coarse brightness; frames with tissue have at least 8
_MIN_SPREAD = 48  # pixels with 90 % of the contrast; letters or a logo have fewer, frames with tissue 100 or more
_BLOCK = 4096  # thumbnails processed at a time
_COARSE, _FINE = 8, 16  # sides of the vectors that preselect
COARSE_NUMBERS, FINE_NUMBERS = _COARSE**2, _FINE**2
"""Dimensions of a vector."""


def thumbnails(images_NHW: npt.NDArray[np.uint8]) -> Thumbs:
    """The images averaged to SIDE x SIDE pixels."""
    small = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX) for image in images_NHW]
    return np.stack([np.asarray(image) for image in small]) if small else np.empty((0, SIDE, SIDE), np.uint8)


def with_structure(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    """Flags of the thumbnails with enough structure to compare; blank frames and letters on black have too little."""
    blocks = [_structured(thumbs[start : start + _BLOCK]) for start in range(0, len(thumbs), _BLOCK)]
    return np.concatenate([np.empty(0, np.bool_), *blocks])


def _structured(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    images = thumbs.astype(np.float32)
    energy = np.square(images - _blurred(images, _BLUR)).reshape(len(thumbs), SIDE * SIDE)
    total = energy.sum(1)
    most = np.sort(energy, axis=1)[:, ::-1][:, :_MIN_SPREAD].sum(1)
    found: npt.NDArray[np.bool_] = (total >= _MIN_CONTRAST**2 * SIDE * SIDE) & (most < 0.9 * total)
    return found


def coarse_vectors(thumbs: Thumbs) -> tuple[Vectors, Vectors]:
    """Two vectors of 64 dimensions for each thumbnail: uncropped, and without CROP on every side.

    For near-duplicates, the uncropped vector of one image is close to one of the other image or of its mirror image.
    """
    return _vectors(thumbs, 1.5, 4.0, _COARSE)


def fine_vectors(thumbs: Thumbs) -> tuple[Vectors, Vectors]:
    """As `coarse_vectors`, with 256 dimensions."""
    return _vectors(thumbs, 1.0, 3.0, _FINE)


def mirrored(vectors: Vectors) -> Vectors:
    """The vectors of the images mirrored left to right."""
    side = round(vectors.shape[1] ** 0.5)
    return vectors.reshape(-1, side, side)[:, :, ::-1].reshape(len(vectors), -1)


def similarity(first: Thumbs, second: Thumbs) -> float:
    """The score of two thumbnails of SIDE x SIDE pixels, independent of their order."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    return max(_best(one, other), _best(other, one))


def _best(cropped: npt.NDArray[np.float32], whole: npt.NDArray[np.float32]) -> float:
    """The maximum correlation of any crop of one image with the other or its mirror image."""
    sharp = _CROPS @ cropped
    soft = _SOFT_CROPS @ cropped
    views = sharp[:, None] @ _CROPS.transpose(0, 2, 1)[None] - soft[:, None] @ _SOFT_CROPS.transpose(0, 2, 1)[None]
    plain = whole - _SOFT @ whole @ _SOFT.T
    both = _unit(np.stack([plain, plain[:, ::-1]]).reshape(2, -1))
    return float((_unit(views.reshape(-1, SIDE * SIDE)) @ both.T).max())


def _vectors(thumbs: Thumbs, sharp: float, soft: float, side: int) -> tuple[Vectors, Vectors]:
    images = thumbs.astype(np.float32)
    inner = (_INNER @ images @ _INNER.T).astype(np.float32)
    return _band(images, sharp, soft, side), _band(inner, sharp, soft, side)


def _band(images_NHW: npt.NDArray[np.float32], sharp: float, soft: float, side: int) -> Vectors:
    """The difference of two blurs, averaged to `side` x `side`, as vectors of length 1."""
    band = _blurred(images_NHW, sharp) - _blurred(images_NHW, soft)
    step = SIDE // side
    return _unit(band.reshape(-1, side, step, side, step).mean((2, 4)).reshape(len(band), -1))


def _blurred(images_NHW: npt.NDArray[np.float32], blur: float) -> npt.NDArray[np.float32]:
    blurred: npt.NDArray[np.float32] = gaussian_filter1d(gaussian_filter1d(images_NHW, blur, -1), blur, -2)
    return blurred


def _unit(rows: npt.NDArray[np.float32]) -> Vectors:
    centred = rows - rows.mean(1, keepdims=True)
    unit: Vectors = centred / (np.linalg.norm(centred, axis=1, keepdims=True) + np.float32(1e-6))
    return unit


def _resampling(first: float, last: float) -> npt.NDArray[np.float32]:
    """SIDE x SIDE weights that stretch a row, cropped by the shares `first` and `last` at its ends, to full length."""
    positions = (first + (np.arange(SIDE) + 0.5) / SIDE * (1 - first - last)) * SIDE - 0.5
    positions = np.clip(positions, 0, SIDE - 1)
    left = np.minimum(positions.astype(int), SIDE - 2)
    weights = np.zeros((SIDE, SIDE), np.float32)
    weights[np.arange(SIDE), left] += 1 - (positions - left)
    weights[np.arange(SIDE), left + 1] += positions - left
    return weights


_STEPS = (0.0, CROP / 2, CROP)  # at most half a pixel of a thumbnail from any crop
_CROPS = np.stack([_resampling(first, last) for first in _STEPS for last in _STEPS])
_INNER = _resampling(CROP, CROP)
_SOFT = gaussian_filter1d(np.eye(SIDE, dtype=np.float32), _BLUR, axis=0)
_SOFT_CROPS = _SOFT @ _CROPS
