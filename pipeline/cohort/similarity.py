"""How alike two images are, whatever their compression, brightness and edges: a score from -1 to 1.

Belongs here: the thumbnails and the score. Not here: which images are compared (`near_duplicates`).

Images are compared as thumbnails of SIDE x SIDE grey levels without their coarse brightness (a blurred copy is
subtracted), by normalised correlation. One of the two is cropped in turn by up to CROP of either side, and mirrored.
`python -m benchmarks near_duplicates` prints what the thresholds are chosen by.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter1d

SIDE: Final = 32
"""Pixels of a thumbnail's side."""
ALIKE: Final = 0.85
"""Least score of a near-duplicate. Of planted variants of phantom and real images (JPEG of quality 50 to 90, up to 5 %
cropped from each side, gain, gamma, mirrored, and all of these together) 97.7 % and more are found; of 442,827
pairs of unrelated frames of one organ none is called so."""
CROP: Final = 0.05
"""Share of a side that may be cropped from either end."""

Thumbs = npt.NDArray[np.uint8]
"""N x SIDE x SIDE."""
Vectors = npt.NDArray[np.float32]
"""N x D, each of length 1."""

_BLUR = 3.0  # pixels of a thumbnail: what is coarser than this is brightness, and organ and probe decide it
_LEAST_CONTRAST = 2.0  # grey levels, of what is left; frames with tissue have 8 and more
_LEAST_SPREAD = 48  # pixels that hold nine tenths of it; fewer are letters or a logo. Frames with tissue: 100 and more
_BLOCK = 4096  # thumbnails that are worked on at a time
_COARSE, _FINE = 8, 16  # sides of the vectors that preselect
COARSE_NUMBERS, FINE_NUMBERS = _COARSE**2, _FINE**2
"""Numbers in a vector."""


def thumbnails(images_NHW: npt.NDArray[np.uint8]) -> Thumbs:
    """The images at SIDE x SIDE pixels, by averaging."""
    small = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX) for image in images_NHW]
    return np.stack([np.asarray(image) for image in small]) if small else np.empty((0, SIDE, SIDE), np.uint8)


def with_structure(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    """Which of N thumbnails show enough to be compared: blank frames, and letters on black, are alike by nature."""
    blocks = [_structured(thumbs[start : start + _BLOCK]) for start in range(0, len(thumbs), _BLOCK)]
    return np.concatenate([np.empty(0, np.bool_), *blocks])


def _structured(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    energy = np.square(_without_brightness(thumbs.astype(np.float32), _BLUR)).reshape(len(thumbs), SIDE * SIDE)
    total = energy.sum(1)
    most = np.sort(energy, axis=1)[:, ::-1][:, :_LEAST_SPREAD].sum(1)
    found: npt.NDArray[np.bool_] = (total >= _LEAST_CONTRAST**2 * SIDE * SIDE) & (most < 0.9 * total)
    return found


def coarse_vectors(thumbs: Thumbs) -> tuple[Vectors, Vectors]:
    """Two vectors of 64 numbers for each thumbnail: of all of it, and of it without CROP on every side.

    Of near-duplicates one of the first kind is near one of either kind of the other image, or of its mirror image.
    """
    return _vectors(thumbs, 1.5, 4.0, _COARSE)


def fine_vectors(thumbs: Thumbs) -> tuple[Vectors, Vectors]:
    """As `coarse_vectors`, of 256 numbers."""
    return _vectors(thumbs, 1.0, 3.0, _FINE)


def mirrored(vectors: Vectors) -> Vectors:
    """The vectors of the mirror images, left for right."""
    side = round(vectors.shape[1] ** 0.5)
    return vectors.reshape(-1, side, side)[:, :, ::-1].reshape(len(vectors), -1)


def similarity(first: Thumbs, second: Thumbs) -> float:
    """The score of two thumbnails, SIDE x SIDE, the same whichever comes first."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    return max(_best(one, other), _best(other, one))


def _best(cropped: npt.NDArray[np.float32], whole: npt.NDArray[np.float32]) -> float:
    """The best correlation of any crop of one image with all of the other, or with its mirror image."""
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
    """What lies between two blurs, averaged to `side` x `side` numbers, as vectors of length 1."""
    band = _blurred(images_NHW, sharp) - _blurred(images_NHW, soft)
    step = SIDE // side
    return _unit(band.reshape(-1, side, step, side, step).mean((2, 4)).reshape(len(band), -1))


def _without_brightness(images_NHW: npt.NDArray[np.float32], blur: float) -> npt.NDArray[np.float32]:
    return images_NHW - _blurred(images_NHW, blur)


def _blurred(images_NHW: npt.NDArray[np.float32], blur: float) -> npt.NDArray[np.float32]:
    blurred: npt.NDArray[np.float32] = gaussian_filter1d(gaussian_filter1d(images_NHW, blur, -1), blur, -2)
    return blurred


def _unit(rows: npt.NDArray[np.float32]) -> Vectors:
    centred = rows - rows.mean(1, keepdims=True)
    unit: Vectors = centred / (np.linalg.norm(centred, axis=1, keepdims=True) + np.float32(1e-6))
    return unit


def _resampling(first: float, last: float) -> npt.NDArray[np.float32]:
    """SIDE x SIDE weights that stretch what is left of a row, without a share at its `first` and `last` end, to all."""
    places = (first + (np.arange(SIDE) + 0.5) / SIDE * (1 - first - last)) * SIDE - 0.5
    places = np.clip(places, 0, SIDE - 1)
    left = np.minimum(places.astype(int), SIDE - 2)
    weights = np.zeros((SIDE, SIDE), np.float32)
    weights[np.arange(SIDE), left] += 1 - (places - left)
    weights[np.arange(SIDE), left + 1] += places - left
    return weights


_STEPS = (0.0, CROP / 2, CROP)  # half a pixel of a thumbnail at most lies between a crop and the nearest of these
_CROPS = np.stack([_resampling(first, last) for first in _STEPS for last in _STEPS])
_INNER = _resampling(CROP, CROP)
_SOFT = gaussian_filter1d(np.eye(SIDE, dtype=np.float32), _BLUR, axis=0)
_SOFT_CROPS = _SOFT @ _CROPS
