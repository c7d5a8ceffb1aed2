"""Pixels of an image file to grey.

Belongs here: decoding a frame, colour and bit depth to grey uint8, resizing. Not here: headers, the cache.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_rescale
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGBaseline8Bit

from pipeline.archive.quarantine import Reason, Rejected, Rejection
from pipeline.archive.reading import Unopened, looks_like_dicom, quiet, read_elements, transfer_syntax

Grey = npt.NDArray[np.uint8]
"""A grey image, height x width, 0 black to 255 white."""

LIBRARIES: Final = (
    "numpy",
    "pillow",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
)
"""Distributions that have a say in what a decoded pixel is; decoders differ by some grey levels."""

FRAME_BUDGET: Final = 2**29
"""Bytes of one decoded frame at most: 512 MiB, twenty times an 8-bit colour frame of 3000 x 3000."""
FILE_BUDGET: Final = 2**35
"""Bytes of all decoded frames of a file at most: 32 GiB, half an hour of video; frames are decoded one by one."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, of red, green and blue
_TAGS = [
    Tag(field)
    for field in (
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "WindowCenter",
        "WindowWidth",
        "RescaleIntercept",
        "RescaleSlope",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        *(
            f"{prefix}{colour}PaletteColorLookupTable{part}"
            for colour in ("Red", "Green", "Blue")
            for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
        ),
    )
]


def frames_to_take(frames: int, per_cine: int) -> list[int]:
    """Frame numbers, from 0, of a cine of `frames`: all, or the middles of `per_cine` segments of equal length."""
    if frames <= per_cine:
        return list(range(frames))
    return [(2 * segment + 1) * frames // (2 * per_cine) for segment in range(per_cine)]


def decode_grey(path: Path, frame: int) -> Grey:
    """Frame number `frame` (from 0) of the DICOM file at `path`, as grey.

    MONOCHROME2 as it is, MONOCHROME1 inverted, colour as ITU-R BT.601 luma (which is the Y of YBR_FULL, PS3.3
    section C.7.6.3.1.2), palettes looked up first. More than 8 bits are scaled to 8: through the window where the
    file states one (PS3.3 section C.11.2.1.2.1), else by the bits stored.
    Raises `Rejected` where there is no such image, and `OSError` where the file cannot be opened.
    """
    with quiet():
        return _PixelFile.open(path).grey(frame)


def pixel_identity(path: str) -> str | None:
    """A digest of all frames as decoded, the same for two encodings of one image; None where they do not decode."""
    whole = hashlib.sha256()
    try:
        with quiet():
            file = _PixelFile.open(Path(path))
            for frame in range(file.frames):
                pixels = file.grey(frame)
                whole.update(repr(pixels.shape).encode() + pixels.tobytes())
    except (Rejected, OSError):
        return None
    return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Job:
    """Frames of one file to decode and bring to `height` x `width` pixels."""

    path: str
    frames: tuple[int, ...]
    height: int
    width: int


def decode_small(job: Job) -> list[Grey | Rejection] | Unopened:
    """Each frame of `job` at its size, or why it is none; one frame's fault costs that frame."""
    with quiet():
        try:
            file = _PixelFile.open(Path(job.path))
        except Rejected as rejected:
            return [rejected.rejection] * len(job.frames)
        except OSError as error:
            return Unopened.because(error)
        return list(_each_frame(file, job))


def _each_frame(file: "_PixelFile", job: Job) -> Iterator[Grey | Rejection]:
    for frame in job.frames:
        try:
            yield resize_grey(file.grey(frame), job.height, job.width)
        except Rejected as rejected:
            yield rejected.rejection


def decode_image_file(path: Path) -> Grey:
    """The first frame of a DICOM file, or a PNG or JPEG, told apart by content, as grey.

    Raises `Rejected` where it is none of these or does not decode, and `OSError` where it cannot be opened.
    """
    content = path.read_bytes()
    if content[:2] != b"\xff\xd8" and content[:4] != b"\x89PNG" and looks_like_dicom(content[:132]):
        return decode_grey(path, 0)
    try:
        with quiet(), Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            return _grey_of_picture(image)
    except UnidentifiedImageError:
        raise Rejected(Reason.UNDECODABLE, "neither DICOM nor PNG nor JPEG") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Rejected(Reason.UNDECODABLE, f"decoding stopped with {type(error).__name__}") from None


def resize_grey(image: Grey, height: int, width: int) -> Grey:
    """`image` at `height` x `width` pixels, whatever its aspect (paper section 4.2.2), antialiased."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _grey_of_picture(image: Image.Image) -> Grey:
    """A PNG's or JPEG's grey: transparency is dropped, 16 bits are scaled to 8."""
    if image.mode.startswith("I"):
        return _scaled(np.asarray(image), 16)
    if image.mode in {"1", "L", "LA"}:
        return np.asarray(image.convert("L"))
    return _luma(np.asarray(image.convert("RGB")))


@dataclass(frozen=True)
class _PixelFile:
    """A DICOM file whose pixel data have been read, and found to be within the budgets."""

    dataset: FileDataset
    syntax: UID

    @staticmethod
    def open(path: Path) -> "_PixelFile":
        with path.open("rb") as file:
            opened = read_elements(file, _TAGS, with_pixels=True)
        if not opened.has_pixels:
            raise Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")
        syntax = UID(transfer_syntax(opened.dataset))
        opened.dataset.file_meta.TransferSyntaxUID = syntax
        _within_budget(opened.dataset, syntax)
        return _PixelFile(opened.dataset, syntax)

    @property
    def frames(self) -> int:
        return int(self.dataset.get("NumberOfFrames") or 1)

    def grey(self, frame: int) -> Grey:
        try:
            if self.syntax == JPEGBaseline8Bit and (picture := self._jpeg(frame)) is not None:
                return picture
            return self._decoded(frame)
        except Rejected:
            raise
        except MemoryError:
            raise Rejected(Reason.UNSUPPORTED_PIXELS, "decoding asks for more memory than there is") from None
        except NotImplementedError:
            raise Rejected(Reason.UNDECODABLE, "no decoder for its transfer syntax") from None
        except Exception as error:
            raise Rejected(Reason.UNDECODABLE, f"decoding stopped with {type(error).__name__}") from None

    def _decoded(self, frame: int) -> Grey:
        pixels, properties = next(get_decoder(self.syntax).iter_array(self.dataset, indices=[frame], raw=True))
        return _to_grey(pixels, properties, self.dataset)

    def _jpeg(self, frame: int) -> Grey | None:
        """The luma as the JPEG stores it, without the way through RGB: five times as fast. None if Pillow cannot."""
        try:
            encoded = get_frame(self.dataset.PixelData, frame, number_of_frames=self.frames)
            photometric = str(self.dataset.PhotometricInterpretation)
            with Image.open(BytesIO(encoded), formats=("JPEG",)) as image:
                if image.size != (self.dataset.Columns, self.dataset.Rows) or image.mode not in {"L", "RGB"}:
                    return None
                if image.mode == "RGB" and _stores_rgb(image, photometric):
                    if "adobe_transform" not in image.info:
                        image.draft("YCbCr", image.size)  # Pillow takes it for YCbCr: this keeps it from converting
                    return _luma(np.asarray(image))
                image.draft("L", image.size)
                grey = np.asarray(image)
        except Exception:  # whatever stops Pillow, pydicom's own decoders have the last word
            return None
        return _as_monochrome(grey, photometric)


def _stores_rgb(image: Image.Image, photometric: str) -> bool:
    """Whether a colour JPEG holds RGB, not YCbCr: Adobe's marker says so, JFIF is always YCbCr, else the header."""
    if "adobe_transform" in image.info:
        return bool(image.info["adobe_transform"] == 0)
    return "jfif" not in image.info and photometric == PhotometricInterpretation.RGB


def _within_budget(dataset: FileDataset, syntax: UID) -> None:
    """Raise `Rejected` where the header alone tells that decoding is hopeless or would take too much memory."""
    try:
        sides = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
        bits, frames = int(dataset.BitsAllocated), int(dataset.get("NumberOfFrames") or 1)
    except Exception:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "a size or depth in group 0028 is missing or no number") from None
    frame_bytes = (sides * bits + 7) // 8
    if frame_bytes > FRAME_BUDGET or frame_bytes * frames > FILE_BUDGET:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "the header asks for more pixels than the budget allows")
    stored = len(dataset.get("PixelData") or b"")
    if not stored and "PixelData" in dataset:
        raise Rejected(Reason.EMPTY, "the pixel data element holds no bytes")
    chroma_halved = dataset.get("PhotometricInterpretation") == PhotometricInterpretation.YBR_FULL_422
    expected = sides * frames * bits // 8
    if not syntax.is_compressed and stored < (expected * 2 // 3 if chroma_halved else expected):
        raise Rejected(Reason.TRUNCATED_PIXELS, "fewer bytes of pixel data than the header states")


def _to_grey(pixels: npt.NDArray[Any], properties: dict[str, Any], dataset: FileDataset) -> Grey:
    """One decoded frame, height x width or height x width x samples, as its photometric interpretation means it."""
    photometric = str(properties["photometric_interpretation"])
    bits = int(properties["bits_stored"])
    if photometric == PhotometricInterpretation.PALETTE_COLOR:
        return _through_palette(pixels, dataset)
    if pixels.ndim == 2:
        return _as_monochrome(_monochrome(pixels, bits, bool(properties["pixel_representation"]), dataset), photometric)
    if photometric.startswith("YBR_PARTIAL"):  # 16 to 235 of 255, PS3.3 section C.7.6.3.1.2
        return _to_uint8((_scaled(pixels[..., 0], bits).astype(float) - 16) * (255 / 219))
    if photometric.startswith("YBR_FULL"):
        return _scaled(pixels[..., 0], bits)
    return _luma(_scaled(pixels[..., :3], bits))


def _through_palette(pixels: npt.NDArray[Any], dataset: FileDataset) -> Grey:
    """Palette indices of 8 or 16 bits as the luma of their colours."""
    if pixels.dtype.itemsize > 2:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "palette indices of more than 16 bits")
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    every_index = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(pixels.dtype.newbyteorder("="))
    colours = apply_color_lut(every_index, dataset)
    # Many makers state entries of 16 bits and fill 8: taken by their word, the image would be black.
    bits = 16 if colours.max() > 255 else 8
    grey_of_index = _luma(_scaled(colours, bits))
    grey: Grey = grey_of_index[pixels.astype(every_index.dtype).view(unsigned)]
    return grey


def _as_monochrome(grey: Grey, photometric: str) -> Grey:
    return 255 - grey if photometric == PhotometricInterpretation.MONOCHROME1 else grey


def _monochrome(pixels: npt.NDArray[Any], bits: int, signed: bool, dataset: FileDataset) -> Grey:
    window = _window(dataset) if bits > 8 else None
    if window is None:
        return _scaled(pixels.astype(np.int64) + 2 ** (bits - 1) if signed else pixels, bits)
    center, width = window
    values = apply_rescale(pixels, dataset).astype(float)
    return _to_uint8(((values - (center - 0.5)) / (width - 1) + 0.5) * 255)


def _window(dataset: FileDataset) -> tuple[float, float] | None:
    """The first window's center and width, None where there is none that can be used."""
    try:
        center, width = (_first(dataset[field].value) for field in ("WindowCenter", "WindowWidth"))
        return (center, width) if np.isfinite(center) and 1 < width < np.inf else None
    except Exception:
        return None


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)


def _luma(rgb: npt.NDArray[np.uint8]) -> Grey:
    luma: npt.NDArray[np.float64] = rgb @ _LUMA
    return _to_uint8(luma)


def _scaled(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """`values` of 0 to 2**bits - 1 as 0 to 255."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    return _to_uint8(values * (255 / (2**bits - 1)))


def _to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels
