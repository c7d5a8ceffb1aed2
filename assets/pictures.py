"""How a picture is shown in Dagster.

Belongs here: a PNG inline, as metadata carries it. Not here: drawing.
"""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THUMBNAIL_HEIGHT = 48
"""Pixels: the kind of a picture can be told, and letters that stand on it cannot be read."""


def data_url(path: Path) -> str:
    """The PNG at `path` as a URL that holds it."""
    return _url(path.read_bytes())


def thumbnail_url(grey_HW: "NDArray[np.uint8]") -> str:
    """A grey image, made small, as a URL that holds it."""
    from PIL import Image

    height, width = grey_HW.shape
    small = Image.fromarray(grey_HW).resize((round(width * THUMBNAIL_HEIGHT / height), THUMBNAIL_HEIGHT))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return _url(buffer.getvalue())


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
