"""A frame's perceptual hash, by which near-duplicates are found.

Belongs here: pixels to hash. Not here: comparing hashes (`pipeline.cohort.near_duplicates`).
"""

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image


def perceptual_hash(grey_HW: npt.NDArray[np.uint8]) -> str:
    """The 64-bit pHash of a grey image as 16 hex digits.

    The signs, against their median, of the 8 x 8 lowest frequencies of the image at 32 x 32 pixels: what is left when
    size, compression and brightness change.
    """
    # Reduced to 32 x 32 here, by averaging first: the library's own resampling of a whole frame takes most of its time.
    small = Image.fromarray(grey_HW).resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return str(imagehash.phash(small))
