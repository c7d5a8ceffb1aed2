"""The first frame of a DICOM, PNG or JPEG file as grey, and a digest of all frames of a DICOM file."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.dicom.bit_depth import scale_to_uint8
from pipeline.dicom.grey import Grey, frames_digest, luma
from pipeline.dicom.parse import looks_like_dicom
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.png_jpeg import decode_png_or_jpeg
from pipeline.dicom.rejections import Rejected


def decode_image_file(path: Path) -> Grey:
    """The first frame of a DICOM file, or a PNG or JPEG, recognised by content, as grey and upright.

    Raises `Rejected` if it is none of these or does not decode, and `OSError` if it cannot be opened.
    """
    content = path.read_bytes()
    if is_dicom(content):
        return decode_grey(path, 0)
    pixels = decode_png_or_jpeg(content)
    return luma(pixels) if pixels.ndim == 3 else scale_to_uint8(pixels, 8 if pixels.dtype == np.uint8 else 16)


def decode_grey(path: Path, frame: int) -> Grey:
    """Frame number `frame` (from 0) of the DICOM file at `path`, as grey; see `PixelFile.frame`.

    Raises `Rejected` if there is no such image, and `OSError` if the file cannot be opened.
    """
    with path.open("rb") as file:
        return PixelFile.open(file).frame(frame).grey


def is_dicom(head: bytes) -> bool:
    """Whether an image file that begins with `head`, at least 132 bytes, is read as DICOM, not as PNG or JPEG."""
    return head[:2] != b"\xff\xd8" and head[:4] != b"\x89PNG" and looks_like_dicom(head)


def pixel_digest(file: BinaryIO) -> str | None:
    """A digest of all decoded frames, equal for two encodings of one image; None if they do not decode.

    Raises `OSError` if the file cannot be read.
    """
    try:
        return frames_digest(frame.grey for frame in PixelFile.open(file).each_frame())
    except Rejected:
        return None
