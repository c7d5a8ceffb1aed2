"""Decode image files, recognised by content: DICOM, PNG and JPEG, and PNG masks of class numbers. Call in a worker.

Not here: what a mask's values mean to a task (`pipeline.tasks.class_masks`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.dicom.bit_depth import scale_to_uint8
from pipeline.dicom.grey import Grey, luma
from pipeline.dicom.parse import looks_like_dicom
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Reason, Rejected, rejecting

MAX_PIXELS: Final = 2**26
"""Limit on an image's pixels, 8192 x 8192, checked before decoding."""

_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types of a PNG (PNG specification, section 11.2.1)
_BLACK = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class PngMask:
    """A PNG mask: the stored `values`, height x width, the values that occur (`levels`, ascending), and `white`.

    `white` is the greatest value of its bit depth.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    white: int
    levels: tuple[int, ...]


def is_dicom(head: bytes) -> bool:
    """Whether an image file that begins with `head`, at least 132 bytes, is read as DICOM, not as PNG or JPEG."""
    return head[:2] != b"\xff\xd8" and head[:4] != b"\x89PNG" and looks_like_dicom(head)


def decode_image_file(path: Path) -> Grey:
    """The first frame of a DICOM file, or a PNG or JPEG, as grey and upright.

    Raises `Rejected` if it is none of these or does not decode, and `OSError` if it cannot be opened.
    """
    content = path.read_bytes()
    if is_dicom(content):
        return PixelFile.open(BytesIO(content)).frame(0).grey
    pixels = decode_png_or_jpeg(content)
    return luma(pixels) if pixels.ndim == 3 else scale_to_uint8(pixels, 8 if pixels.dtype == np.uint8 else 16)


def decode_png_or_jpeg(content: bytes) -> npt.NDArray[Any]:
    """The pixels of a PNG or JPEG, upright (EXIF orientation): height x width (x 3), of 8 or 16 bits.

    Transparency is dropped. Raises `Rejected` if it is neither, exceeds `MAX_PIXELS` or does not decode.
    """
    with _open(content, ("PNG", "JPEG"), "neither DICOM nor PNG nor JPEG") as image:
        if image.mode.startswith("I"):
            return np.asarray(image)
        return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"))


def decode_png_mask(content: bytes) -> PngMask:
    """A PNG's class numbers, upright. Raises `Rejected` for an ambiguous mask or another format."""
    with _open(content, ("PNG",), "neither PNG nor DICOM") as image:
        depth, colour = content[24], content[25]  # of the IHDR chunk, which is always the first
        if colour == _GREY and "transparency" not in image.info:
            return _mask_of(np.asarray(image), depth)
        if depth > 8:
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "its 16 bits are coloured or have an alpha channel")
        if colour == _PALETTE:
            return _mask_of_palette(image)
        return _mask_of(_without_alpha(image), depth)


def _mask_of(values: npt.NDArray[Any], depth: int) -> PngMask:
    """`values` of a PNG of `depth` bits; Pillow scales those of two and four bits to 0 to 255."""
    white = 2**depth - 1
    stored = values // (255 // white) if depth in {2, 4} else values
    levels = np.flatnonzero(np.bincount(stored.ravel()))
    numbers = stored.astype(np.uint16) if depth > 8 else stored.astype(np.uint8)
    return PngMask(numbers, white, tuple(levels.tolist()))


def _mask_of_palette(image: Image.Image) -> PngMask:
    """The palette's indices, unless its colours suggest other class numbers.

    Programs that shrink PNG files renumber a mask's greys. So a palette of greys must have the same class numbers as
    greys and as indices, and black must be index 0 if it occurs.
    """
    mask = _mask_of(np.asarray(image), 8)
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
    """The grey channel of an image. Raises `Rejected` if it is coloured or, as alpha may be the mask, transparent."""
    channels = np.asarray(image.convert("RGBA"))
    if (channels[..., 3] != 255).any():
        why = "parts of it are transparent: store class numbers without an alpha channel"
        raise Rejected(Reason.UNSUPPORTED_PIXELS, why)
    if (channels[..., :3] != channels[..., :1]).any():
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "it is coloured; its values must be the numbers of classes")
    grey: npt.NDArray[np.uint8] = channels[..., 0]
    return grey


@contextmanager
def _open(content: bytes, formats: tuple[str, ...], expected: str) -> Iterator[Image.Image]:
    """The image, upright; its size is checked before its pixels are decoded. Raises `Rejected`."""
    with rejecting():
        try:
            with Image.open(BytesIO(content), formats=formats) as image:
                yield _checked(image)
        except UnidentifiedImageError:
            raise Rejected(Reason.UNDECODABLE, expected) from None
        except Image.DecompressionBombError:
            raise MemoryError from None


def _checked(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise Rejected(Reason.OVER_LIMITS, f"it has more than {MAX_PIXELS} pixels")
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "it holds several pictures")
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF rotates nothing, as in viewers
        return image
