"""Pydicom's decoders: the plugins that decode each transfer syntax, and the options that the header gives them."""

from functools import lru_cache
from typing import Any, Final

from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.dicom.encapsulated import MAX_FRAME_BYTES
from pipeline.dicom.fields import Fields
from pipeline.dicom.frame_count import native_length
from pipeline.dicom.parsed_file import PixelElement
from pipeline.dicom.quiet import quiet
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

# GDCM decodes lossless JPEG and JPEG of 12 bits, which no other plugin does, but crashes on mutated files.
# pylibjpeg-openjpeg decodes HTJ2K only: it bundles an older OpenJPEG than Pillow, with known vulnerabilities.
_NOT_USED = {
    JPEGBaseline8Bit: {"gdcm"},
    JPEGExtended12Bit: {"gdcm"},
    JPEGLSLossless: {"gdcm"},
    JPEGLSNearLossless: {"gdcm"},
    JPEG2000Lossless: {"gdcm", "pylibjpeg"},
    JPEG2000: {"gdcm", "pylibjpeg"},
}
for _syntax, _plugins in _NOT_USED.items():
    for _plugin in _plugins.intersection(get_decoder(_syntax).available_plugins):
        get_decoder(_syntax).remove_plugin(_plugin)


@lru_cache(256)
def decoder_of(syntax: str) -> Decoder | None:
    """Pydicom's decoder of a transfer syntax, None if there is none."""
    try:
        with quiet():
            return get_decoder(UID(syntax))
    except (NotImplementedError, ValueError):
        return None


def decoder_for_depth(decoder: Decoder, options: dict[str, Any]) -> Decoder:
    """`decoder`, or for extended JPEG of 12 bits the one of lossless JPEG.

    pydicom refuses extended JPEG of 12 bits. GDCM, which the other decoder calls, reads the kind of JPEG from the
    stream and returns the right values.
    """
    twelve_bits = JPEGExtended12Bit == decoder.UID and options["bits_stored"] > 8
    return get_decoder(JPEGLosslessSV1) if twelve_bits else decoder


def decoding_libraries(transfer_syntax: str | None) -> tuple[str, ...]:
    """The distributions that affect decoded pixels of that syntax; decoders differ by a few grey levels."""
    decoder = decoder_of(transfer_syntax or str(ImplicitVRLittleEndian))
    pylibjpeg = "pylibjpeg-rle" if transfer_syntax == RLELossless else "pylibjpeg-openjpeg"
    distributions = {"gdcm": ["python-gdcm"], "pyjpegls": ["pyjpegls"], "pylibjpeg": ["pylibjpeg", pylibjpeg]}
    plugins = list(decoder.available_plugins if decoder else ())
    if transfer_syntax == JPEGExtended12Bit:  # see `decoder_for_depth`
        plugins.append("gdcm")
    decoders = [name for plugin in plugins for name in distributions.get(plugin, [])]
    return tuple(sorted({"numpy", "pillow", "pydicom", *decoders}))


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
