"""Decoded pixels of any photometric interpretation as grey levels from 0 to 255.

Not here: decoding (`pixel_file`).
"""

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.processing import apply_color_lut, apply_rescale, convert_color_space

from pipeline.dicom.bit_depth import BitDepth, round_to_uint8, scale_to_uint8
from pipeline.dicom.rejections import Reason, Rejected
from pipeline.dicom.sample_layout import Samples, detect_sample_layout

Grey = npt.NDArray[np.uint8]
"""A grey image, height x width, 0 black to 255 white."""

_REDUCTION: Final = 4  # of a colour copy
_REDUCED_FROM: Final = 128  # rows and columns; smaller frames keep their colours in full


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: `grey`, height x width, and for colour frames `rgb`, h x w x 3.

    `rgb` is reduced by a whole factor in both directions, rounded up: enough to detect colour.
    """

    grey: Grey
    rgb: npt.NDArray[np.uint8] | None


def resize_grey(image: Grey, height: int, width: int) -> Grey:
    """`image` at `height` x `width` pixels, regardless of its aspect (paper section 4.2.2), antialiased."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_to_height(image: Grey, height: int) -> Grey:
    """`image` at `height` pixels with its aspect, but at most four times as wide as high; antialiased."""
    width = round(image.shape[1] * height / image.shape[0])
    return resize_grey(image, height, min(max(1, width), 4 * height))


def jpeg(image: Grey) -> bytes:
    """`image` as a JPEG (baseline, quality 85)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def source_digest(grey: Grey) -> str:
    """SHA-256 of a frame's size and grey levels: equal for equal pictures, regardless of encoding."""
    return frames_digest([grey])


def frames_digest(frames: Iterable[Grey]) -> str:
    """SHA-256 of the frames' sizes and grey levels: equal for equal pictures, regardless of encoding."""
    digest = hashlib.sha256()
    for grey in frames:
        digest.update(repr(grey.shape).encode() + grey.tobytes())
    return digest.hexdigest()


def colour_reduction(height: int, width: int) -> int:
    """The factor by which `Frame.rgb` is reduced."""
    return _REDUCTION if min(height, width) >= _REDUCED_FROM else 1


def luma(rgb: npt.NDArray[np.uint8]) -> Grey:
    """ITU-R BT.601 luma, rounded; Pillow's whole numbers are ten times as fast as NumPy."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def frame_of_rgb(rgb: npt.NDArray[np.uint8]) -> Frame:
    """A frame of red, green and blue, height x width x 3."""
    factor = colour_reduction(*rgb.shape[:2])
    return Frame(luma(rgb), rgb[::factor, ::factor].copy())


def frame_of_samples(values: Samples, photometric: str, reorder: Callable[[Samples], Samples] | None) -> Frame:
    """A frame of three samples per pixel; the data overrule a wrong `photometric` or order (`sample_layout`)."""
    luma_chroma = photometric.startswith(("YBR_FULL", "YBR_PARTIAL"))  # the decoder undoes YBR_ICT and YBR_RCT
    layout = detect_sample_layout(values, luma_chroma, reorder)
    if layout.reordered and reorder:
        values = reorder(values)
    if not layout.luma_chroma:
        return frame_of_rgb(values)
    return frame_of_ybr(values, photometric if luma_chroma else "YBR_FULL")


def frame_of_ybr(ybr: npt.NDArray[np.uint8], photometric: str) -> Frame:
    """A frame of luma and chroma, height x width x 3, as PS3.3 section C.7.6.3.1.2 defines them."""
    factor = colour_reduction(*ybr.shape[:2])
    reduced = ybr[::factor, ::factor]
    grey = np.ascontiguousarray(ybr[..., 0])
    if photometric.startswith("YBR_PARTIAL"):  # Y is 16 to 235 of 255, Cb and Cr 16 to 240
        grey = round_to_uint8((grey.astype(float) - 16) * (255 / 219))
        scale = (255 / 219, 255 / 224, 255 / 224)
        reduced = round_to_uint8((reduced.astype(float) - (16, 128, 128)) * scale + (0, 128, 128))
    return Frame(grey, np.asarray(convert_color_space(reduced, "YBR_FULL", "RGB"), dtype=np.uint8))


def frame_of_palette(indices: npt.NDArray[Any], dataset: Dataset) -> Frame:
    """A frame of palette indices of 8 or 16 bits. Raises `Rejected`."""
    if indices.dtype.itemsize > 2 or indices.ndim != 2:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "palette indices of more than 16 bits, or several of them a pixel")
    unsigned = np.dtype(f"u{indices.dtype.itemsize}")
    every_index = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(indices.dtype.newbyteorder("="))
    try:
        colours = apply_color_lut(every_index, dataset)
    except Exception:
        raise Rejected(Reason.UNDECODABLE, "its palette is missing or cannot be read") from None
    # Many vendors state entries of 16 bits and fill 8 of them.
    rgb_of_index = scale_to_uint8(colours[..., :3], 16 if colours.max() > 255 else 8)
    return frame_of_rgb(rgb_of_index[indices.astype(every_index.dtype).view(unsigned)])


def frame_of_numbers(
    pixels: npt.NDArray[Any], photometric: str, depth: BitDepth | None, dataset: Dataset, ultrasound: bool
) -> Frame:
    """A frame of one number per pixel; floats have no `depth`. MONOCHROME1 is inverted."""
    grey = _grey_of_floats(pixels, dataset) if depth is None else _grey_of_integers(pixels, depth, dataset, ultrasound)
    return Frame(invert_monochrome1(grey, photometric), None)


def invert_monochrome1(grey: Grey, photometric: str) -> Grey:
    """`grey` with 0 as black."""
    return 255 - grey if photometric == PhotometricInterpretation.MONOCHROME1 else grey


def _grey_of_floats(pixels: npt.NDArray[Any], dataset: Dataset) -> Grey:
    """Float or double float pixels, PS3.3 sections C.7.6.24 and C.7.6.25; NaN and infinity are black."""
    values = np.where(np.isfinite(pixels), pixels, np.nan).astype(float)
    window = _window(dataset)
    return _through_window(values, window) if window else _stretch(values)


def _grey_of_integers(pixels: npt.NDArray[Any], depth: BitDepth, dataset: Dataset, ultrasound: bool) -> Grey:
    """Without a window that shows anything, ultrasound is scaled from its bits, other modalities from their range."""
    if depth.bits <= 8:
        return depth.to_uint8(pixels)
    if window := _window(dataset):
        grey = _through_window(apply_rescale(pixels, dataset).astype(float), window)
        if not ultrasound or grey.min() < grey.max():
            return grey
    return depth.to_uint8(pixels) if ultrasound else _stretch(apply_rescale(pixels, dataset).astype(float))


def _stretch(values: npt.NDArray[np.float64]) -> Grey:
    """`values` scaled from their least to their greatest; NaN and frames of one level are black."""
    least, greatest = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.0, 0.0)
    return round_to_uint8(np.nan_to_num((values - least) * (255 / max(greatest - least, np.finfo(float).tiny))))


def _through_window(values: npt.NDArray[np.float64], window: tuple[float, float]) -> Grey:
    """`values` through a linear window (PS3.3 section C.11.2.1.2.1)."""
    center, width = window
    return round_to_uint8(np.nan_to_num(((values - (center - 0.5)) / (width - 1) + 0.5) * 255))


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """The first window's center and width, None if there is none that can be used."""
    try:
        center, width = (_first(dataset[field].value) for field in ("WindowCenter", "WindowWidth"))
        return (center, width) if np.isfinite(center) and 1 < width < np.inf else None
    except Exception:
        return None


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
