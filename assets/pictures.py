"""How an array of grey levels is shown in Dagster.

Belongs here: a small picture inline, as metadata carries it. Not here: drawing, pictures that are files.
"""

import io
from typing import TYPE_CHECKING

from pipeline.files import png_url

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THUMBNAIL_HEIGHT = 48
"""Pixels: the kind of a picture can be told, and letters that stand on it cannot be read."""


def thumbnail_url(grey_HW: "NDArray[np.uint8]") -> str:
    """A grey image, made small, as a URL that holds it."""
    from PIL import Image

    height, width = grey_HW.shape
    small = Image.fromarray(grey_HW).resize((round(width * THUMBNAIL_HEIGHT / height), THUMBNAIL_HEIGHT))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return png_url(buffer.getvalue())
