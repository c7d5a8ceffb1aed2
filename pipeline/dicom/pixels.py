"""Pixels of an image file to grey.

Belongs here: decoding a frame, colour and bit depth to grey uint8, resizing. Not here: headers, what in a frame is
tissue, the cache.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames, get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_rescale, convert_color_space
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

from pipeline.dicom.bit_depth import resolve_bit_depth
from pipeline.dicom.codestream import END_OF_IMAGE, FILLER, Codestream
from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.frame_count import count_encapsulated_frames, count_native_frames
from pipeline.dicom.header import ULTRASOUND, is_ultrasound, native_length
from pipeline.dicom.png_jpeg import decode_png_or_jpeg
from pipeline.dicom.reading import (
    STEPS,
    UNDEFINED,
    ParsedFile,
    PixelElement,
    element_value,
    find_sequence_delimiter,
    looks_like_dicom,
    quiet,
    read_elements,
)
from pipeline.dicom.regions import Grey as Grey  # noqa: PLC0414 - others find it here
from pipeline.dicom.regions import UltrasoundRegion
from pipeline.dicom.rejections import Reason, Rejected
from pipeline.dicom.report_page import may_be_report_page
from pipeline.dicom.sample_layout import Samples, by_pixel, by_plane, detect_sample_layout, is_mostly_grey
from pipeline.errors import is_transient

MAX_FRAME_BYTES: Final = 2**29
"""Bytes of one decoded frame at most: 512 MiB, twenty times an 8-bit colour frame of 3000 x 3000."""
MAX_FILE_BYTES: Final = 2**35
"""Bytes of all decoded frames of a file at most: 32 GiB, half an hour of video; frames are decoded one by one."""
LEVELS_OF: Final = 8
"""Frames of a cine at most that tell together how many bits their values have."""
REGIONS: Final = 64
"""Items of SequenceOfUltrasoundRegions that are read at most."""

_REGIONS_BYTES = 2**18  # of that sequence; a real item takes 300
_REDUCED_FROM = 128  # rows and columns; smaller frames keep their colours in full
_REDUCTION = 4  # of a colour copy, which is only to tell whether there is colour

_NUMBERS = {  # pydicom's names of what a decoder must know, the keyword, and what stands for an absent one
    "rows": ("Rows", None),
    "columns": ("Columns", None),
    "bits_allocated": ("BitsAllocated", None),
    "samples_per_pixel": ("SamplesPerPixel", None),
    "planar_configuration": ("PlanarConfiguration", 0),
    "pixel_representation": ("PixelRepresentation", 0),
}
_REGION_FIELDS = (
    "RegionSpatialFormat",
    "RegionDataType",
    "RegionFlags",
    "RegionLocationMinX0",
    "RegionLocationMinY0",
    "RegionLocationMaxX1",
    "RegionLocationMaxY1",
    "PhysicalUnitsXDirection",
    "PhysicalUnitsYDirection",
)
_TAGS: Final = frozenset(
    tag_of(keyword)
    for keyword in (
        *(keyword for keyword, _ in _NUMBERS.values()),
        "Modality",
        "SOPClassUID",
        "SOPInstanceUID",
        "ImageType",
        "ConversionType",
        "BurnedInAnnotation",
        "NumberOfFrames",
        "PhotometricInterpretation",
        "BitsStored",
        "HighBit",
        "WindowCenter",
        "WindowWidth",
        "RescaleIntercept",
        "RescaleSlope",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "SequenceOfUltrasoundRegions",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        *(
            f"{prefix}{colour}PaletteColorLookupTable{part}"
            for colour in ("Red", "Green", "Blue")
            for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
        ),
    )
)
_NEEDED: Final = frozenset({tag_of("Rows"), tag_of("Columns")})


def decoding_libraries(transfer_syntax: str | None) -> tuple[str, ...]:
    """The distributions that have a say in what a decoded pixel of that syntax is; decoders differ by grey levels."""
    decoder = _decoder(transfer_syntax or str(ImplicitVRLittleEndian))
    pylibjpeg = "pylibjpeg-rle" if transfer_syntax == RLELossless else "pylibjpeg-openjpeg"
    named = {"gdcm": ["python-gdcm"], "pyjpegls": ["pyjpegls"], "pylibjpeg": ["pylibjpeg", pylibjpeg]}
    plugins = list(decoder.available_plugins if decoder else ())
    if transfer_syntax == JPEGExtended12Bit:  # see `_trusting`
        plugins.append("gdcm")
    decoders = [name for plugin in plugins for name in named.get(plugin, [])]
    return tuple(sorted({"numpy", "pillow", "pydicom", *decoders}))


def _trusting(decoder: Decoder, options: dict[str, Any]) -> Decoder:
    """The decoder for pixels as `options` describe them.

    pydicom refuses extended JPEG of 12 bits, though GDCM, which it would hand them to, reads what kind of JPEG it is
    from the stream itself and gives the right values: the lossless syntax's decoder hands over all kinds.
    """
    twelve_bits = JPEGExtended12Bit == decoder.UID and options["bits_stored"] > 8
    return get_decoder(JPEGLosslessSV1) if twelve_bits else decoder


@lru_cache(256)
def _decoder(syntax: str) -> Decoder | None:
    try:
        with quiet():
            return get_decoder(UID(syntax))
    except (NotImplementedError, ValueError):
        return None


# GDCM decodes lossless JPEG and JPEG of 12 bits, which nothing else does: mutated files crash it. pylibjpeg-openjpeg
# decodes HTJ2K alone: it bundles an older OpenJPEG than Pillow, with known vulnerabilities.
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


def select_frames(frames: int, per_cine: int) -> list[int]:
    """Frame numbers, from 0, of a cine of `frames`: all, or the middles of `per_cine` segments of equal length."""
    if frames <= per_cine:
        return list(range(frames))
    return [(2 * segment + 1) * frames // (2 * per_cine) for segment in range(per_cine)]


def decode_grey(path: Path, frame: int) -> Grey:
    """Frame number `frame` (from 0) of the DICOM file at `path`, as grey; see `PixelFile.frame`.

    Raises `Rejected` where there is no such image, and `OSError` where the file cannot be opened.
    """
    with path.open("rb") as file:
        return PixelFile.open(file).frame(frame).grey


def pixel_digest(file: BinaryIO) -> str | None:
    """A digest of all frames as decoded, the same for two encodings of one image; None where they do not decode.

    Raises `OSError` where the file cannot be read.
    """
    whole = hashlib.sha256()
    try:
        opened = PixelFile.open(file)
        for frame in opened.each_frame():
            whole.update(repr(frame.grey.shape).encode() + frame.grey.tobytes())
    except Rejected:
        return None
    return whole.hexdigest()


def decode_image_file(path: Path) -> Grey:
    """The first frame of a DICOM file, or a PNG or JPEG, told apart by content, as grey and the right way up.

    Raises `Rejected` where it is none of these or does not decode, and `OSError` where it cannot be opened.
    """
    content = path.read_bytes()
    if is_dicom(content[:132]):
        return decode_grey(path, 0)
    pixels = decode_png_or_jpeg(content)
    return _luma(pixels) if pixels.ndim == 3 else _scaled(pixels, 8 if pixels.dtype == np.uint8 else 16)


def is_dicom(head: bytes) -> bool:
    """Whether an image file that begins with `head`, 132 bytes, is to be read as DICOM, and not as PNG or JPEG."""
    return head[:2] != b"\xff\xd8" and head[:4] != b"\x89PNG" and looks_like_dicom(head)


def resize_grey(image: Grey, height: int, width: int) -> Grey:
    """`image` at `height` x `width` pixels, whatever its aspect (paper section 4.2.2), antialiased."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: `grey`, height x width, and for colour `rgb`, h x w x 3 of 0 to 255.

    `rgb` is reduced by a whole factor in both directions, rounded up: enough to tell whether there is colour.
    """

    grey: Grey
    rgb: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class PixelFile:
    """A DICOM file whose pixel data were found, and found to be within the budgets; frames are decoded one by one.

    `regions` are those of SequenceOfUltrasoundRegions (0018,6011). `spacing_mm` is PixelSpacing (0028,0030), else
    ImagerPixelSpacing (0018,1164): millimetres between rows, and between columns. `frames` is at least 1.
    `is_ultrasound` is False where the file says that it is of another modality. `modality` is what it states, `US`
    where that is ultrasound or nothing. `sop_instance` is SOPInstanceUID, raw.
    `may_be_report_page`: see `report_page.may_be_report_page`.
    """

    frames: int
    is_ultrasound: bool
    modality: str | None
    sop_instance: str | None
    regions: tuple[UltrasoundRegion, ...]
    spacing_mm: tuple[float, float] | None
    may_be_report_page: bool
    _opened: ParsedFile
    _pixels: PixelElement
    _decoder: Decoder
    _options: dict[str, Any]
    _high_bit: int
    _end: int

    @staticmethod
    def open(file: BinaryIO) -> "PixelFile":
        """Read the header of `file`, which is seekable and stays open while frames are decoded.

        Raises `Rejected` where it has no pixels, or ones of which the header alone tells that they cannot be decoded
        or would take too much memory, and `OSError` where it cannot be read.
        """
        opened = read_elements(file, file.seek(0, 2), _TAGS, _NEEDED)
        if not opened.pixels:
            raise Rejected(Reason.NOT_AN_IMAGE, "no pixel data element")
        fields, decoder = Fields(opened.elements, opened.encodings), _decoder(opened.transfer_syntax)
        if decoder is None:
            raise Rejected(Reason.UNDECODABLE, "no decoder for its transfer syntax")
        end = _end(opened, opened.pixels, decoder.is_native)
        options = _options(opened, opened.pixels, end, fields, decoder)
        if options["number_of_frames"] > 1:
            there = _frames_there(opened, options, decoder.is_native)
            options["number_of_frames"] = there or options["number_of_frames"]
        frames, regions = options["number_of_frames"], _regions(opened)
        spacing, ultrasound = _spacing(fields), _may_be_ultrasound(fields)
        modality = ULTRASOUND if ultrasound else fields.text("Modality")
        instance = fields.uid("SOPInstanceUID")
        return PixelFile(
            frames=frames,
            is_ultrasound=ultrasound,
            modality=modality,
            sop_instance=instance,
            regions=regions,
            spacing_mm=spacing,
            may_be_report_page=may_be_report_page(fields),
            _opened=opened,
            _pixels=opened.pixels,
            _decoder=decoder,
            _options=options,
            _high_bit=fields.number("HighBit") or options["bits_stored"] - 1,
            _end=end,
        )

    def each_frame(self) -> Iterator[Frame]:
        """All frames in order, each read once; raises `Rejected` as `frame` does."""
        if self._decoder.is_native:
            yield from map(self.frame, range(self.frames))
            return
        encoded = self._each_encoded()
        for _ in range(self.frames):
            with _rejecting():
                decoded = self._of_encoded(next(encoded))
            yield decoded

    def frame(self, number: int) -> Frame:
        """Frame `number`, from 0.

        MONOCHROME2 as it is, MONOCHROME1 inverted, colour as ITU-R BT.601 luma (which is the Y of YBR_FULL, PS3.3
        section C.7.6.3.1.2), palettes looked up first. More than 8 bits are scaled to 8: through the window where the
        file states one (PS3.3 section C.11.2.1.2.1), else by the bits used (`depth`); numbers with a fraction, and
        those of other modalities than ultrasound, which fill few of their bits, without a window from the frame's
        least to its greatest. What three samples are is told by stream and data where the header is
        wrong (`colours`, `stream`). Raises `Rejected` where it does not decode, or nothing tells how it is meant.
        """
        with _rejecting():
            return self._native(number) if self._decoder.is_native else self._encapsulated(number)

    def _native(self, number: int) -> Frame:
        if number >= self.frames:
            raise Rejected(Reason.UNDECODABLE, "no such frame")
        missing = _length(self._options, number + 1) - (self._end - self._pixels.start)
        if missing > _length(self._options, number + 1) % 2:
            raise Rejected(Reason.TRUNCATED_PIXELS, "fewer bytes of pixel data than the header states")
        if missing <= 0:
            return self._decoded(self._window(), number, self._options, None)
        # the last byte of an odd length, which the maker stored as one less
        return self._decoded(self._window().read(-1) + bytes(1), number, self._options, None)

    def _encapsulated(self, number: int) -> Frame:
        """What the offset tables point to; where that does not decode, the frame found by counting from the first."""
        pointed_to = None
        try:
            pointed_to = self._by_offset(number)
            return self._of_encoded(pointed_to)
        except Rejected:
            raise
        except Exception:
            counted = next(islice(self._each_encoded(), number, None), None)
            if counted is None or counted == pointed_to:
                raise
            return self._of_encoded(counted)

    def _by_offset(self, number: int) -> bytes:
        if self._fragments is None:
            extended = self._options.get("extended_offsets")
            return get_frame(self._window(), number, number_of_frames=self.frames, extended_offsets=extended)
        window = self._window()
        window.seek(self._fragments[number])
        return next(generate_fragments(window))

    @cached_property
    def _fragments(self) -> list[int] | None:
        """Where each frame's one fragment is, of a file without offset tables; None where that is not how it is."""
        window = self._window()
        if "extended_offsets" in self._options or parse_basic_offsets(window):
            return None
        count, offsets = parse_fragments(window)
        return offsets if count == self.frames else None

    def _each_encoded(self) -> Iterator[bytes]:
        extended = self._options.get("extended_offsets")
        return generate_frames(self._window(), number_of_frames=self.frames, extended_offsets=extended)

    def _of_encoded(self, encoded: bytes) -> Frame:
        syntax, stream = self._opened.transfer_syntax, Codestream.of(encoded)
        if stream.size > MAX_FRAME_BYTES:
            raise Rejected(Reason.OVER_LIMITS, "a frame's own header asks for more pixels than the budget allows")
        if stream.breaks_off(encoded):
            return self._of_completed(encoded)
        if syntax == JPEGBaseline8Bit and (picture := self._jpeg(encoded, stream)) is not None:
            return picture
        return self._decoded(*self._once(encoded, stream), stream.precision)

    def _once(self, encoded: bytes, stream: Codestream) -> tuple[bytes, int, dict[str, Any]]:
        """The pixel data of a file of this one frame, the frame's number in it, and how it is decoded."""
        once = b"".join((_EMPTY_ITEM, _EMPTY_ITEM[:4], len(encoded).to_bytes(4, "little"), encoded))
        options = {name: value for name, value in self._options.items() if name != "extended_offsets"}
        return once, 0, options | {"number_of_frames": 1} | stream.options(options)

    def _of_completed(self, encoded: bytes) -> Frame:
        """A JPEG without an end marker, if nothing else is missing: then a decoder reads nothing that follows it."""
        frame, other = (self._of_encoded(encoded + more + END_OF_IMAGE) for more in (b"", FILLER))
        if not np.array_equal(frame.grey, other.grey):
            raise Rejected(Reason.TRUNCATED_PIXELS, "the compressed frame breaks off")
        return frame

    @cached_property
    def _levels(self) -> tuple[int, int] | None:
        """The least and the greatest value in some frames of a cine, evenly spread; None of one frame."""
        found = []
        for number in select_frames(self.frames, LEVELS_OF) if self.frames > 1 else ():
            with suppress(Rejected), _rejecting():
                pixels, _ = self._raw(*self._stored(number))
                found += [int(pixels.min()), int(pixels.max())]
        return (min(found), max(found)) if found else None

    def _stored(self, number: int) -> tuple[BinaryIO | bytes, int, dict[str, Any]]:
        if self._decoder.is_native:
            return self._window(), number, self._options
        encoded = self._by_offset(number)
        return self._once(encoded, Codestream.of(encoded))

    def _raw(
        self, source: BinaryIO | bytes, number: int, options: dict[str, Any]
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        return _trusting(self._decoder, options).as_array(source, index=number, raw=True, **options)

    def _decoded(self, source: BinaryIO | bytes, number: int, options: dict[str, Any], in_stream: int | None) -> Frame:
        pixels, properties = self._raw(source, number, options)
        photometric = str(properties["photometric_interpretation"])
        if pixels.dtype.kind == "f":
            grey = _of_fractions(pixels, self._opened.dataset)
            return Frame(_as_monochrome(grey, photometric), None)
        if photometric == PhotometricInterpretation.PALETTE_COLOR:
            return _of_rgb(_through_palette(pixels, self._opened.dataset))
        bits, signed = int(properties["bits_stored"]), bool(properties["pixel_representation"])
        depth = _Depth(bits, self._high_bit, signed, in_stream, self._levels if bits > 8 else None)
        if pixels.ndim == 2:
            grey = _monochrome(pixels, depth, self._opened.dataset, self.is_ultrasound)
            return Frame(_as_monochrome(grey, photometric), None)
        return _of_samples(depth.to_uint8(pixels), photometric, self._other_order())

    def _other_order(self) -> Callable[[Samples], Samples] | None:
        """How samples come into the order that the header does not state; only native pixels leave that open."""
        halved = self._options["photometric_interpretation"] == PhotometricInterpretation.YBR_FULL_422
        if not self._decoder.is_native or halved:
            return None
        return by_pixel if self._options["planar_configuration"] else by_plane

    def _window(self) -> BinaryIO:
        """The pixel data's value as a file, at its beginning."""
        self._opened.file.seek(self._pixels.start)
        return cast(BinaryIO, _Window(self._opened.file, self._end))

    def _jpeg(self, encoded: bytes, stream: Codestream) -> Frame | None:
        """The luma as the JPEG stores it, without the way through RGB: five times as fast. None if Pillow cannot."""
        photometric = self._options["photometric_interpretation"]
        try:
            with Image.open(BytesIO(encoded), formats=("JPEG",)) as image:
                if image.size != (self._options["columns"], self._options["rows"]) or image.mode not in {"L", "RGB"}:
                    return None
                if image.mode == "RGB":
                    return _of_colour_jpeg(encoded, image, stream, photometric)
                return Frame(_as_monochrome(np.asarray(image), photometric), None)
        except Exception:  # whatever stops Pillow, pydicom's own decoders have the last word
            return None


_EMPTY_ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"  # as an offset table: the one frame follows


class _Window:
    """A file that ends sooner, for pydicom to read encapsulated frames from; offsets are those of the file."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end
        self._steps = STEPS
        self.seek, self.tell = file.seek, file.tell

    def read(self, length: int) -> bytes:
        rest = max(self._end - self._file.tell(), 0)
        length = min(length, rest) if length >= 0 else rest
        self._steps -= 1
        if length > MAX_FRAME_BYTES or self._steps < 0:
            raise Rejected(Reason.OVER_LIMITS, "a frame takes more bytes or fragments than the budget allows")
        return self._file.read(length)


@contextmanager
def _rejecting() -> Iterator[None]:
    """Within it, whatever stops a decoder but a fault of disk or network becomes `Rejected`; nothing is printed."""
    try:
        with quiet():
            yield
    except (Rejected, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise Rejected(Reason.OVER_LIMITS, "decoding asks for more memory than there is") from None
    except BaseException as error:  # a panic of pylibjpeg-rle is no Exception
        if is_transient(error):
            raise
        raise Rejected(Reason.UNDECODABLE, f"decoding stopped with {type(error).__name__}") from None


def _options(opened: ParsedFile, pixels: PixelElement, end: int, fields: Fields, decoder: Decoder) -> dict[str, Any]:
    """What pydicom's decoders must know. Raises `Rejected` where the header alone tells that decoding is hopeless."""
    options: dict[str, Any] = {}
    for name, (keyword, absent) in _NUMBERS.items():
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
    options["correct_unused_bits"] = options["pixel_representation"] == 1  # of unsigned ones `depth` finds the use
    options |= _extended_offsets(opened)
    _within_budget(options)
    if not pixels.length:
        raise Rejected(Reason.EMPTY, "the pixel data element holds no bytes")
    if decoder.is_native and options["photometric_interpretation"] == PhotometricInterpretation.YBR_FULL_422:
        full = _length(options | {"photometric_interpretation": "YBR_FULL"}, options["number_of_frames"])
        if end - pixels.start >= full:  # a third more than halved chroma takes: it is not halved
            options["photometric_interpretation"] = PhotometricInterpretation.YBR_FULL
    return options


_PIXEL_KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}


_THREE_SAMPLES = frozenset(
    {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
)
_NOT_DECODED = frozenset({"HSV", "ARGB", "CMYK", "XYB"})


def _photometric(stated: str | None, samples: int) -> str:
    if samples not in {1, 3} or stated in _NOT_DECODED:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "neither one nor three samples a pixel, or of a retired kind")
    if stated == "PALETTE COLOR":
        return str(PhotometricInterpretation.PALETTE_COLOR)
    return stated or ("RGB" if samples == 3 else "MONOCHROME2")


def _extended_offsets(opened: ParsedFile) -> dict[str, Any]:
    """The Extended Offset Table (7FE0,0001) and its lengths (7FE0,0002), as pydicom takes them."""
    tags = (tag_of("ExtendedOffsetTable"), tag_of("ExtendedOffsetTableLengths"))
    if not all(tag in opened.elements for tag in tags):
        return {}
    try:
        tables = tuple(bytes(element_value(opened.elements[tag], opened.encodings) or b"") for tag in tags)
    except Exception:  # of another VR, say: the frames are counted, as without tables
        return {}
    return {"extended_offsets": tables} if tables[0] and len(tables[0]) == len(tables[1]) else {}


def _within_budget(options: dict[str, Any]) -> None:
    samples = options["rows"] * options["columns"] * options["samples_per_pixel"]
    frame = (samples * options["bits_allocated"] + 7) // 8
    if frame > MAX_FRAME_BYTES or frame * options["number_of_frames"] > MAX_FILE_BYTES:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "the header asks for more pixels than the budget allows")


def _length(options: dict[str, Any], frames: int) -> int:
    """Bytes of the first `frames` native frames of pixels as `options` describe them."""
    samples = options["rows"] * options["columns"] * options["samples_per_pixel"]
    return native_length(samples, options["bits_allocated"], options["photometric_interpretation"], frames)


def _frames_there(opened: ParsedFile, options: dict[str, Any], native: bool) -> int:
    """How many of the stated frames are there; 0 where the pixel data break off."""
    stated = options["number_of_frames"]
    if native:
        return count_native_frames(opened, stated, lambda count: _length(options, count))
    return count_encapsulated_frames(opened, stated)


def _end(opened: ParsedFile, pixels: PixelElement, native: bool) -> int:
    """Where the pixel data's value ends in the file at the latest."""
    if pixels.length != UNDEFINED:
        return min(pixels.start + pixels.length, opened.size)
    delimiter = find_sequence_delimiter(opened) if native else None  # encapsulated frames find theirs item by item
    return opened.size if delimiter is None else delimiter


def _regions(opened: ParsedFile) -> tuple[UltrasoundRegion, ...]:
    """The regions that can be read: a field that cannot is None, a sequence that cannot be taken apart is none."""
    element = opened.elements.get(tag_of("SequenceOfUltrasoundRegions"))
    if element is None or len(getattr(element, "value", None) or b"") > _REGIONS_BYTES:
        return ()
    try:
        with quiet():
            items = list(islice(element_value(element, opened.encodings), REGIONS))
            return tuple(_region(item, opened.encodings) for item in items)
    except Exception:
        return ()


def _region(item: Dataset, encodings: tuple[str, ...]) -> UltrasoundRegion:
    fields = Fields({int(element.tag): element for element in item.elements()}, encodings)
    deltas = [fields.decimals(f"PhysicalDelta{axis}") for axis in "XY"]
    return UltrasoundRegion(
        *(fields.number(keyword) for keyword in _REGION_FIELDS),
        *(values[0] if len(values) == 1 else None for values in deltas),
    )


def _may_be_ultrasound(fields: Fields) -> bool:
    """Whether the file is ultrasound, or does not say what it is, as labelled images may."""
    modality = fields.text("Modality")
    return modality is None or is_ultrasound(modality, fields.uid("SOPClassUID"))


def _spacing(fields: Fields) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = fields.decimals(keyword)
        if len(values) == 2 and min(values) > 0:
            return values[0], values[1]
    return None


def _of_colour_jpeg(encoded: bytes, image: Image.Image, stream: Codestream, photometric: str) -> Frame:
    """A JPEG of three components, of which Pillow takes the first for luma where `stream` says so.

    What the stream says is held against the colours: where these are not mostly grey, all components are looked at.
    """
    luma = stream.luma_chroma if stream.luma_chroma is not None else photometric != PhotometricInterpretation.RGB
    if luma and stream.read_as_luma_chroma:
        colours = _jpeg_colours(encoded)
        if is_mostly_grey(colours):
            image.draft("L", image.size)
            return Frame(np.asarray(image), colours)
    with Image.open(BytesIO(stream.without_conversion(encoded)), formats=("JPEG",)) as raw:
        samples = np.asarray(raw)
    if stream.halved_chroma:
        return _of_ybr(samples, "YBR_FULL")
    return _of_samples(samples, "YBR_FULL" if luma else "RGB", None)


def _jpeg_colours(encoded: bytes) -> npt.NDArray[np.uint8]:
    """A reduced copy, for which most of the decoding is left out."""
    with Image.open(BytesIO(encoded), formats=("JPEG",)) as image:
        factor = _reduction(*image.size)
        if factor > 1:
            image.draft("RGB", (image.width // factor, image.height // factor))
        return np.asarray(image)


def _reduction(height: int, width: int) -> int:
    return _REDUCTION if min(height, width) >= _REDUCED_FROM else 1


def _of_rgb(rgb: npt.NDArray[np.uint8]) -> Frame:
    """`rgb` is height x width x 3."""
    factor = _reduction(*rgb.shape[:2])
    return Frame(_luma(rgb), rgb[::factor, ::factor].copy())


def _of_samples(values: Samples, photometric: str, reorder: Callable[[Samples], Samples] | None) -> Frame:
    """Three samples a pixel as colours; what `photometric` and the stated order say is held against the data."""
    luma_chroma = photometric.startswith(("YBR_FULL", "YBR_PARTIAL"))  # YBR_ICT and YBR_RCT are undone by the decoder
    reading = detect_sample_layout(values, luma_chroma, reorder)
    if reading.reordered and reorder:
        values = reorder(values)
    if not reading.luma_chroma:
        return _of_rgb(values)
    return _of_ybr(values, photometric if luma_chroma else "YBR_FULL")


def _of_ybr(ybr: npt.NDArray[np.uint8], photometric: str) -> Frame:
    """`ybr` is height x width x 3, as PS3.3 section C.7.6.3.1.2 says."""
    factor = _reduction(*ybr.shape[:2])
    few = ybr[::factor, ::factor]
    grey = np.ascontiguousarray(ybr[..., 0])
    if photometric.startswith("YBR_PARTIAL"):  # Y is 16 to 235 of 255, Cb and Cr 16 to 240
        grey = _to_uint8((grey.astype(float) - 16) * (255 / 219))
        few = _to_uint8((few.astype(float) - (16, 128, 128)) * (255 / 219, 255 / 224, 255 / 224) + (0, 128, 128))
    return Frame(grey, np.asarray(convert_color_space(few, "YBR_FULL", "RGB"), dtype=np.uint8))


def _through_palette(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Palette indices of 8 or 16 bits as their colours, height x width x 3."""
    if pixels.dtype.itemsize > 2 or pixels.ndim != 2:
        raise Rejected(Reason.UNSUPPORTED_PIXELS, "palette indices of more than 16 bits, or several of them a pixel")
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    every_index = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(pixels.dtype.newbyteorder("="))
    try:
        colours = apply_color_lut(every_index, dataset)
    except Exception:
        raise Rejected(Reason.UNDECODABLE, "its palette is missing or cannot be read") from None
    # Many makers state entries of 16 bits and fill 8: taken by their word, the image would be black.
    colour_of_index = _scaled(colours[..., :3], 16 if colours.max() > 255 else 8)
    rgb: npt.NDArray[np.uint8] = colour_of_index[pixels.astype(every_index.dtype).view(unsigned)]
    return rgb


def _of_fractions(pixels: npt.NDArray[np.floating[Any]], dataset: Dataset) -> Grey:
    """Float or double float pixels, PS3.3 sections C.7.6.24 and C.7.6.25; what is no number is black."""
    values = np.where(np.isfinite(pixels), pixels, np.nan).astype(float)
    window = _window(dataset)
    return _through_window(values, window) if window else _from_least_to_greatest(values)


def _from_least_to_greatest(values: npt.NDArray[np.float64]) -> Grey:
    """What is no number is black; so is a frame of one level."""
    least, greatest = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.0, 0.0)
    return _to_uint8(np.nan_to_num((values - least) * (255 / max(greatest - least, np.finfo(float).tiny))))


def _as_monochrome(grey: Grey, photometric: str) -> Grey:
    return 255 - grey if photometric == PhotometricInterpretation.MONOCHROME1 else grey


@dataclass(frozen=True, slots=True)
class _Depth:
    """What header and stream say of the bits of whole numbers, as `resolve_bit_depth` takes it."""

    bits: int
    high_bit: int
    signed: bool
    in_stream: int | None
    of_file: tuple[int, int] | None

    def to_uint8(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Levels mean what they are among all that their bits could hold."""
        if self.bits == 8 and pixels.dtype == np.uint8:
            return pixels
        return _scaled(*resolve_bit_depth(pixels, self.bits, self.high_bit, self.signed, self.in_stream, self.of_file))


def _monochrome(pixels: npt.NDArray[Any], depth: _Depth, dataset: Dataset, ultrasound: bool) -> Grey:
    """Without a window, or with one that shows nothing, ultrasound spans its bits, others span their own range."""
    if depth.bits <= 8:
        return depth.to_uint8(pixels)
    if window := _window(dataset):
        grey = _through_window(apply_rescale(pixels, dataset).astype(float), window)
        if not ultrasound or grey.min() < grey.max():
            return grey
    return (
        depth.to_uint8(pixels) if ultrasound else _from_least_to_greatest(apply_rescale(pixels, dataset).astype(float))
    )


def _through_window(values: npt.NDArray[np.float64], window: tuple[float, float]) -> Grey:
    center, width = window
    return _to_uint8(np.nan_to_num(((values - (center - 0.5)) / (width - 1) + 0.5) * 255))


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """The first window's center and width, None where there is none that can be used."""
    try:
        center, width = (_first(dataset[field].value) for field in ("WindowCenter", "WindowWidth"))
        return (center, width) if np.isfinite(center) and 1 < width < np.inf else None
    except Exception:
        return None


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)


def _luma(rgb: npt.NDArray[np.uint8]) -> Grey:
    """ITU-R BT.601, rounded, in whole numbers that Pillow computes ten times as fast as NumPy."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def _scaled(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """`values` of 0 to 2**bits - 1 as 0 to 255."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    return _to_uint8(values * (255 / (2**bits - 1)))


def _to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels
