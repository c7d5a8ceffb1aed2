"""Which of pydicom's decoder plugins decode each transfer syntax."""

from functools import lru_cache
from typing import Any

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

from pipeline.dicom.quiet import quiet

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
