"""The options of pydicom's decoders, from the header; impossible and oversized pixels are rejected."""

from typing import Any, Final

from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import Decoder

from pipeline.dicom.encapsulated import MAX_FRAME_BYTES
from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.header import native_length
from pipeline.dicom.parsed_file import ParsedFile, PixelElement, element_value
from pipeline.dicom.rejections import Reason, Rejected

MAX_FILE_BYTES: Final = 2**35
"""Size limit of all decoded frames of a file: 32 GiB, half an hour of video; frames are decoded one by one."""

NUMBERS: Final = {  # pydicom's option, the keyword, and the value if it is absent
    "rows": ("Rows", None),
    "columns": ("Columns", None),
    "bits_allocated": ("BitsAllocated", None),
    "samples_per_pixel": ("SamplesPerPixel", None),
    "planar_configuration": ("PlanarConfiguration", 0),
    "pixel_representation": ("PixelRepresentation", 0),
}
_PIXEL_KEYWORDS: Final = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_THREE_SAMPLES: Final = frozenset(
    {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)
_NOT_DECODED: Final = frozenset({"HSV", "ARGB", "CMYK", "XYB"})


def decoding_options(pixels: PixelElement, end: int, fields: Fields, decoder: Decoder) -> dict[str, Any]:
    """Options of pydicom's decoders for pixel data that end at `end`. Raises `Rejected` if decoding must fail."""
    options: dict[str, Any] = {}
    for name, (keyword, absent) in NUMBERS.items():
        number = fields.number(keyword)
        options[name] = absent if number is None else number
    if not options["rows"] or not options["columns"] or not options["bits_allocated"]:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "a size or depth in group 0028 is missing or no number")
    options["bits_stored"] = min(fields.number("BitsStored") or 2**16, options["bits_allocated"])
    options["number_of_frames"] = max(fields.number("NumberOfFrames") or 1, 1)
    stated = fields.text("PhotometricInterpretation")
    options["samples_per_pixel"] = options["samples_per_pixel"] or (3 if stated in _THREE_SAMPLES else 1)
    options["photometric_interpretation"] = _photometric(stated, options["samples_per_pixel"])
    options["pixel_keyword"] = _PIXEL_KEYWORDS[pixels.tag]
    options["pixel_vr"] = pixels.vr
    options["correct_unused_bits"] = options["pixel_representation"] == 1  # `bit_depth` handles unsigned ones
    _check_limits(options)
    if not pixels.length:
        raise Rejected(Reason.EMPTY, "the pixel data element holds no bytes")
    if decoder.is_native and options["photometric_interpretation"] == PhotometricInterpretation.YBR_FULL_422:
        full = stored_length(options | {"photometric_interpretation": "YBR_FULL"}, options["number_of_frames"])
        if end - pixels.start >= full:  # a third more than halved chroma needs
            options["photometric_interpretation"] = PhotometricInterpretation.YBR_FULL
    return options


def stored_length(options: dict[str, Any], frames: int) -> int:
    """Bytes of the first `frames` native frames."""
    samples = options["rows"] * options["columns"] * options["samples_per_pixel"]
    return native_length(samples, options["bits_allocated"], options["photometric_interpretation"], frames)


def extended_offsets(parsed: ParsedFile) -> tuple[bytes, bytes] | None:
    """The Extended Offset Table (7FE0,0001) and its lengths (7FE0,0002), None without usable ones."""
    tags = (tag_of("ExtendedOffsetTable"), tag_of("ExtendedOffsetTableLengths"))
    if not all(tag in parsed.elements for tag in tags):
        return None
    try:
        offsets, lengths = (bytes(element_value(parsed.elements[tag], parsed.encodings) or b"") for tag in tags)
    except Exception:  # for instance of another VR
        return None
    return (offsets, lengths) if offsets and len(offsets) == len(lengths) else None


def _photometric(stated: str | None, samples: int) -> str:
    if samples not in {1, 3} or stated in _NOT_DECODED:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "neither one nor three samples a pixel, or of a retired kind")
    if stated == "PALETTE COLOR":
        return str(PhotometricInterpretation.PALETTE_COLOR)
    return stated or ("RGB" if samples == 3 else "MONOCHROME2")


def _check_limits(options: dict[str, Any]) -> None:
    samples = options["rows"] * options["columns"] * options["samples_per_pixel"]
    frame = (samples * options["bits_allocated"] + 7) // 8
    if frame > MAX_FRAME_BYTES or frame * options["number_of_frames"] > MAX_FILE_BYTES:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "the header states more pixels than the limits allow")
