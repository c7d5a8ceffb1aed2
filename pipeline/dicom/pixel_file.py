"""Decode the frames of one DICOM file to grey."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import JPEGBaseline8Bit

from pipeline.dicom.baseline_jpeg import decode_baseline_jpeg
from pipeline.dicom.bit_depth import BitDepth
from pipeline.dicom.codestream import END_OF_IMAGE, FILLER, Codestream
from pipeline.dicom.decoders import NUMBERS, decoder_for_depth, decoder_of, decoding_options, stored_length
from pipeline.dicom.encapsulated import MAX_FRAME_BYTES, EncapsulatedFrames, as_only_frame
from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.frame_count import count_encapsulated_frames, count_native_frames
from pipeline.dicom.grey import Frame, frame_of_numbers, frame_of_palette, frame_of_samples
from pipeline.dicom.header import ULTRASOUND, is_ultrasound
from pipeline.dicom.parse import read_elements
from pipeline.dicom.parsed_file import UNDEFINED, ParsedFile, PixelElement
from pipeline.dicom.regions import UltrasoundRegion, read_regions
from pipeline.dicom.rejections import Reason, Rejected, rejecting
from pipeline.dicom.report_page import may_be_report_page
from pipeline.dicom.sample_layout import Samples, by_pixel, by_plane

LEVEL_FRAMES: Final = 8
"""Number of frames of a cine that its range of values is taken from."""

_TAGS: Final = frozenset(
    tag_of(keyword)
    for keyword in (
        *(keyword for keyword, _ in NUMBERS.values()),
        *("Modality", "SOPClassUID", "SOPInstanceUID", "ImageType", "ConversionType", "BurnedInAnnotation"),
        *("NumberOfFrames", "PhotometricInterpretation", "BitsStored", "HighBit", "WindowCenter", "WindowWidth"),
        *("RescaleIntercept", "RescaleSlope", "PixelSpacing", "ImagerPixelSpacing", "SequenceOfUltrasoundRegions"),
        *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
        *(
            f"{prefix}{colour}PaletteColorLookupTable{part}"
            for colour in ("Red", "Green", "Blue")
            for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
        ),
    )
)
_NEEDED: Final = frozenset({tag_of("Rows"), tag_of("Columns")})


def select_frames(frames: int, per_cine: int) -> list[int]:
    """Frame numbers, from 0, of a cine of `frames`: all, or the middles of `per_cine` segments of equal length."""
    if frames <= per_cine:
        return list(range(frames))
    return [(2 * segment + 1) * frames // (2 * per_cine) for segment in range(per_cine)]


@dataclass(frozen=True)
class PixelFile:
    """A DICOM file whose pixel data are within the limits; frames are decoded one by one.

    `frames` is at least 1. `is_ultrasound` is False if the file states another modality; `modality` is `US` if it
    states ultrasound or nothing. `sop_instance` is SOPInstanceUID, raw. `regions` are those of
    SequenceOfUltrasoundRegions (0018,6011). `spacing_mm` is PixelSpacing (0028,0030), otherwise ImagerPixelSpacing
    (0018,1164): millimetres between rows, and between columns. `may_be_report_page`: see `report_page`.
    """

    frames: int
    is_ultrasound: bool
    modality: str | None
    sop_instance: str | None
    regions: tuple[UltrasoundRegion, ...]
    spacing_mm: tuple[float, float] | None
    may_be_report_page: bool
    _parsed: ParsedFile
    _encoded: EncapsulatedFrames
    _decoder: Decoder
    _options: dict[str, Any]
    _high_bit: int

    @staticmethod
    def open(file: BinaryIO) -> "PixelFile":
        """Read the header of `file`, which is seekable and stays open while frames are decoded.

        Raises `Rejected` if it has no pixels, or if the header shows that they cannot be decoded or exceed the limits,
        and `OSError` if it cannot be read.
        """
        parsed = read_elements(file, file.seek(0, 2), _TAGS, _NEEDED)
        pixels = parsed.pixel_element
        fields, decoder = Fields(parsed.elements, parsed.encodings), decoder_of(parsed.transfer_syntax)
        if decoder is None:
            raise Rejected(Reason.UNDECODABLE, "no decoder for its transfer syntax")
        end = _end(parsed, pixels, decoder.is_native)
        options = decoding_options(pixels, end, fields, decoder)
        if options["number_of_frames"] > 1:
            options["number_of_frames"] = _count_frames(parsed, options, decoder.is_native)
        frames = options["number_of_frames"]
        modality = fields.text("Modality")
        ultrasound = modality is None or is_ultrasound(modality, fields.uid("SOPClassUID"))
        return PixelFile(
            frames=frames,
            is_ultrasound=ultrasound,
            modality=ULTRASOUND if ultrasound else modality,
            sop_instance=fields.uid("SOPInstanceUID"),
            regions=read_regions(parsed),
            spacing_mm=_spacing(fields),
            may_be_report_page=may_be_report_page(fields),
            _parsed=parsed,
            _encoded=EncapsulatedFrames(parsed, end, frames),
            _decoder=decoder,
            _options=options,
            _high_bit=fields.number("HighBit") or options["bits_stored"] - 1,
        )

    def each_frame(self) -> Iterator[Frame]:
        """All frames in order, each read once; raises `Rejected` as `frame` does."""
        if self._decoder.is_native:
            yield from map(self.frame, range(self.frames))
            return
        encoded = self._encoded.in_order()
        for _ in range(self.frames):
            with rejecting():
                frame = self._decode(next(encoded))
            yield frame

    def frame(self, number: int) -> Frame:
        """Frame `number`, from 0.

        MONOCHROME2 is unchanged, MONOCHROME1 inverted, colour becomes ITU-R BT.601 luma (the Y of YBR_FULL, PS3.3
        section C.7.6.3.1.2), palettes are applied first. More than 8 bits are scaled to 8: through the window if the
        file states one (PS3.3 section C.11.2.1.2.1), otherwise by the bits used (`bit_depth`); floats, and modalities
        other than ultrasound, which fill few of their bits, from the frame's least to its greatest value. If the header
        is wrong about the layout of samples, the stream and the data decide (`sample_layout`, `codestream`). Raises
        `Rejected` if the frame does not decode or is ambiguous.
        """
        with rejecting():
            return self._native(number) if self._decoder.is_native else self._encapsulated(number)

    def _native(self, number: int) -> Frame:
        if number >= self.frames:
            raise Rejected(Reason.UNDECODABLE, "no such frame")
        length = stored_length(self._options, number + 1)
        missing = length - self._encoded.length
        if missing > length % 2:
            raise Rejected(Reason.TRUNCATED_PIXELS, "fewer bytes of pixel data than the header states")
        window = self._encoded.window()
        # Some vendors drop the last byte of an odd length instead of padding it.
        return self._to_grey(window if missing <= 0 else window.read(-1) + bytes(1), number, self._options, None)

    def _encapsulated(self, number: int) -> Frame:
        """The frame found by offset; if that does not decode, the one found by counting."""
        by_offset = None
        try:
            by_offset = self._encoded.by_offset(number)
            return self._decode(by_offset)
        except Rejected:
            raise
        except Exception:
            counted = self._encoded.by_counting(number)
            if counted is None or counted == by_offset:
                raise
            return self._decode(counted)

    def _decode(self, encoded: bytes) -> Frame:
        options, stream = self._options, Codestream.of(encoded)
        if stream.size > MAX_FRAME_BYTES:
            raise Rejected(Reason.OVER_LIMITS, "a frame's own header states more pixels than the limits allow")
        if stream.breaks_off(encoded):
            return self._decode_unterminated(encoded)
        if self._parsed.transfer_syntax == JPEGBaseline8Bit:
            photometric = options["photometric_interpretation"]
            frame = decode_baseline_jpeg(encoded, stream, photometric, options["rows"], options["columns"])
            if frame is not None:
                return frame
        return self._to_grey(as_only_frame(encoded), 0, self._stream_options(stream), stream.precision)

    def _decode_unterminated(self, encoded: bytes) -> Frame:
        """A JPEG without an end marker, if nothing else is missing: then no decoder reads what is appended."""
        frame, other = (self._decode(encoded + more + END_OF_IMAGE) for more in (b"", FILLER))
        if not np.array_equal(frame.grey, other.grey):
            raise Rejected(Reason.TRUNCATED_PIXELS, "the compressed frame breaks off")
        return frame

    def _stream_options(self, stream: Codestream) -> dict[str, Any]:
        return self._options | {"number_of_frames": 1} | stream.options(self._options)

    @cached_property
    def _levels(self) -> tuple[int, int] | None:
        """The least and greatest value in some evenly spaced frames of a cine; None of a single frame."""
        levels = []
        for number in select_frames(self.frames, LEVEL_FRAMES) if self.frames > 1 else ():
            with suppress(Rejected), rejecting():
                values, _ = self._stored_values(number)
                levels += [int(values.min()), int(values.max())]
        return (min(levels), max(levels)) if levels else None

    def _stored_values(self, number: int) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        if self._decoder.is_native:
            return self._as_array(self._encoded.window(), number, self._options)
        encoded = self._encoded.by_offset(number)
        return self._as_array(as_only_frame(encoded), 0, self._stream_options(Codestream.of(encoded)))

    def _as_array(
        self, source: BinaryIO | bytes, number: int, options: dict[str, Any]
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        return decoder_for_depth(self._decoder, options).as_array(source, index=number, raw=True, **options)

    def _to_grey(
        self, source: BinaryIO | bytes, number: int, options: dict[str, Any], stream_bits: int | None
    ) -> Frame:
        values, properties = self._as_array(source, number, options)
        photometric, dataset = str(properties["photometric_interpretation"]), self._parsed.dataset
        if values.dtype.kind == "f":
            return frame_of_numbers(values, photometric, None, dataset, self.is_ultrasound)
        if photometric == PhotometricInterpretation.PALETTE_COLOR:
            return frame_of_palette(values, dataset)
        bits, signed = int(properties["bits_stored"]), bool(properties["pixel_representation"])
        depth = BitDepth(bits, self._high_bit, signed, stream_bits, self._levels if bits > 8 else None)
        if values.ndim == 2:
            return frame_of_numbers(values, photometric, depth, dataset, self.is_ultrasound)
        return frame_of_samples(depth.to_uint8(values), photometric, self._other_order())

    def _other_order(self) -> Callable[[Samples], Samples] | None:
        """The function that reorders samples against the header; only native pixels may need it."""
        halved = self._options["photometric_interpretation"] == PhotometricInterpretation.YBR_FULL_422
        if not self._decoder.is_native or halved:
            return None
        return by_pixel if self._options["planar_configuration"] else by_plane


def _end(parsed: ParsedFile, pixels: PixelElement, native: bool) -> int:
    """The latest position at which the pixel data can end."""
    if pixels.length != UNDEFINED:
        return min(pixels.start + pixels.length, parsed.size)
    delimiter = parsed.find_sequence_delimiter() if native else None  # encapsulated frames have a length per item
    return parsed.size if delimiter is None else delimiter


def _count_frames(parsed: ParsedFile, options: dict[str, Any], native: bool) -> int:
    """The stated frames that are there; all of them if the pixel data break off, so that each is tried."""
    stated: int = options["number_of_frames"]
    if native:
        found = count_native_frames(parsed, stated, lambda count: stored_length(options, count))
    else:
        found = count_encapsulated_frames(parsed, stated)
    return found or stated


def _spacing(fields: Fields) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = fields.decimals(keyword)
        if len(values) == 2 and min(values) > 0:
            return values[0], values[1]
    return None
