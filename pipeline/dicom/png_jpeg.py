"""PNG and JPEG pictures of labelled sets: grey images, and masks of class numbers.

Belongs here: decoding one picture; call it in a worker. Not here: DICOM (`pixels`, `segments`), what a mask's values
mean to a task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.dicom.reading import quiet
from pipeline.dicom.rejections import Reason, Rejected

MAX_PIXELS: Final = 2**26
"""Pixels of a picture at most, 8192 x 8192: its header is read first, and a larger one is not decoded."""

_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types of a PNG (PNG specification, section 11.2.1)
_BLACK = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class PngMask:
    """A PNG mask: `values`, height x width, as they are stored; `white` is the greatest one that its depth can store.

    `levels` are the values that occur, in ascending order.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    white: int
    levels: tuple[int, ...]


def decode_png_or_jpeg(content: bytes) -> npt.NDArray[Any]:
    """The pixels of a PNG or JPEG the right way up (EXIF orientation): height x width (x 3), of 8 or 16 bits.

    Transparency is dropped. Raises `Rejected` where it is neither, is larger than `MAX_PIXELS` or does not decode.
    """
    with _rejecting("neither DICOM nor PNG nor JPEG"), _opened(content, ("PNG", "JPEG")) as image:
        if image.mode.startswith("I"):
            return np.asarray(image)
        return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"))


def decode_png_mask(content: bytes) -> PngMask:
    """A PNG's class numbers, the right way up. Raises `Rejected` for one that can be read in two ways, or no PNG."""
    with _rejecting("neither PNG nor DICOM"), _opened(content, ("PNG",)) as image:
        depth, colour = content[24], content[25]  # of the IHDR chunk, which is always the first
        if colour == _GREY and "transparency" not in image.info:
            return _numbered(np.asarray(image), depth)
        if depth > 8:
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "its 16 bits are coloured or have an alpha channel")
        if colour == _PALETTE:
            return _of_palette(image)
        return _numbered(_without_alpha(image), depth)


def _numbered(values: npt.NDArray[Any], depth: int) -> PngMask:
    """`values` of a PNG of `depth` bits; Pillow spreads those of two and four bits over 0 to 255."""
    white = 2**depth - 1
    stored = values // (255 // white) if depth in {2, 4} else values
    kept: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    kept = stored.astype(np.uint16) if depth > 8 else stored.astype(np.uint8)
    levels = np.flatnonzero(np.bincount(kept.ravel()))
    return PngMask(kept, white, tuple(levels.tolist()))


def _of_palette(image: Image.Image) -> PngMask:
    """Indices into the palette, where its colours do not speak for other numbers.

    Programs that make files smaller number the greys of a mask as they like. So a palette of greys has to name the same
    classes by its greys as by its indices, and black has to be the first colour, if it is one of several.
    """
    mask = _numbered(np.asarray(image), 8)
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if mask.levels[-1] >= len(palette):
        raise Rejected(Reason.UNDECODABLE, "it has values that its palette lacks")
    colours = [tuple(palette[level].tolist()) for level in mask.levels]
    greys = [colour[0] for colour in colours if len(set(colour)) == 1]
    if len(greys) == len(colours) and tuple(greys) not in {mask.levels, tuple(255 * level for level in mask.levels)}:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "the greys of its palette are other numbers than their indices")
    if _BLACK in colours and mask.levels[colours.index(_BLACK)] != 0:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "black has another index in its palette than 0")
    return mask


def _without_alpha(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The one channel of a picture whose colours are greys and of which nothing is transparent.

    A mask may lie in the alpha channel alone, or in the colours alone, or both may differ: that cannot be told.
    """
    channels = np.asarray(image.convert("RGBA"))
    if (channels[..., 3] != 255).any():
        raise Rejected(
            Reason.UNSUPPORTED_PIXELS,
            "parts of it are transparent: store class numbers without an alpha channel",
        )
    if (channels[..., :3] != channels[..., :1]).any():
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "it is coloured; its values must be the numbers of classes")
    grey: npt.NDArray[np.uint8] = channels[..., 0]
    return grey


@contextmanager
def _opened(content: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """The picture, turned as its EXIF says; its size is looked at before its pixels are decoded."""
    with quiet(), Image.open(BytesIO(content), formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Rejected(Reason.OVER_LIMITS, f"it has more than {MAX_PIXELS} pixels")
        if image.format == "PNG" and getattr(image, "is_animated", False):
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "it holds several pictures")
        image.load()
        try:
            turned = ImageOps.exif_transpose(image)
        except Exception:  # EXIF that cannot be read turns nothing, as in viewers
            turned = image
        yield turned


@contextmanager
def _rejecting(otherwise: str) -> Iterator[None]:
    """Within it, whatever stops Pillow is `Rejected`; a file of another format is said to be `otherwise`."""
    try:
        yield
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected(Reason.UNDECODABLE, otherwise) from None
    except (MemoryError, Image.DecompressionBombError):
        raise Rejected(Reason.OVER_LIMITS, "decoding asks for more memory than a worker may hold") from None
    except Exception as error:
        raise Rejected(Reason.UNDECODABLE, f"decoding stopped with {type(error).__name__}") from None
