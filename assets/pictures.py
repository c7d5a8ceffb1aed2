"""Pictures inline in Dagster's metadata."""

import io
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.files import data_url, png_url
from pipeline.images.cache import cache_folder, load_pixels
from pipeline.recipe import Recipe
from pipeline.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image

Name = TypeVar("Name", bound=Hashable)

THUMBNAIL_HEIGHT = 48
"""Pixels: the kind of a picture can be told, and letters that stand on it cannot be read."""

PAGE_WIDTH = 1100
"""Pixels that Dagster shows of a picture on a screen of 1440; what is wider has to be scrolled sideways."""


def picture_url(path: Path) -> str:
    """A PNG file as a URL that holds it, smaller if it is wider than PAGE_WIDTH; the file itself stays as it is."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.width <= PAGE_WIDTH:
            return data_url(path)
        return _url(picture.resize((PAGE_WIDTH, round(picture.height * PAGE_WIDTH / picture.width))))


def thumbnail_url(grey_HW: NDArray[np.uint8]) -> str:
    """A grey image, made small, as a URL that holds it."""
    from PIL import Image

    height, width = grey_HW.shape
    return _url(Image.fromarray(grey_HW).resize((round(width * THUMBNAIL_HEIGHT / height), THUMBNAIL_HEIGHT)))


def example_urls(store: Store, recipe: Recipe, examples: Mapping[Name, pa.Table]) -> dict[Name, list[str]]:
    """The example images of each name (rows of IMAGES) as URLs that contain small pictures."""
    if not examples:
        return {}
    folder = cache_folder(store.images, recipe.images, recipe.archive)
    pixels = iter(load_pixels(folder, pa.concat_tables(examples.values())))
    return {name: [thumbnail_url(next(pixels)) for _ in range(rows.num_rows)] for name, rows in examples.items()}


def _url(picture: "Image") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return png_url(buffer.getvalue())
