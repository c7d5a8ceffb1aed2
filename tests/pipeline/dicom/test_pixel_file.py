"""Grey levels of each photometric interpretation, depth and encoding, against values computed here in float64."""

import base64
import tracemalloc
from io import BytesIO

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_rescale, apply_windowing
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.archive.header_reader import digest_pixels
from pipeline.dicom.decoders import decoding_libraries
from pipeline.dicom.grey import resize_grey
from pipeline.dicom.image_files import decode_image_file
from pipeline.dicom.pixel_file import PixelFile, select_frames
from pipeline.dicom.regions import MAX_REGIONS, UltrasoundRegion
from pipeline.dicom.rejections import Rejected
from tests.pipeline.archive.real import shared_data
from tests.pipeline.archive.synthetic import dataset, decode_grey, noise, write_dicom

RGB = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def luma(rgb):
    """ITU-R BT.601 in float64."""
    return 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]


NEAR = 0.502  # luma is rounded from weights of 16 bits


def opened(path):
    """The file's pixels, from memory."""
    return PixelFile.open(BytesIO(path.read_bytes()))


def reason_of(path, frame=0):
    with pytest.raises(Rejected) as rejected:
        decode_grey(path, frame)
    return rejected.value.rejection.reason.value


def test_monochrome2_is_taken_as_it_is_and_monochrome1_inverted(tmp_path):
    assert np.array_equal(decode_grey(write_dicom(tmp_path / "2"), 0), noise())
    one = write_dicom(tmp_path / "1", PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(decode_grey(one, 0), 255 - noise())


def test_rgb_becomes_luma(tmp_path):
    grey = decode_grey(write_dicom(tmp_path / "x", RGB), 0)
    assert np.abs(grey - luma(RGB)).max() <= NEAR


def test_rgb_by_planes_becomes_the_same_luma(tmp_path):
    path = write_dicom(tmp_path / "x", RGB, PlanarConfiguration=1, PixelData=RGB.transpose(2, 0, 1).tobytes())
    assert np.abs(decode_grey(path, 0) - luma(RGB)).max() <= NEAR


def test_the_y_of_ybr_full_is_the_grey(tmp_path):
    path = write_dicom(tmp_path / "x", RGB, PhotometricInterpretation="YBR_FULL")
    assert np.array_equal(decode_grey(path, 0), RGB[..., 0])


def test_the_ys_of_ybr_full_422_are_the_grey(tmp_path):
    y = noise()
    pairs = np.stack([y[:, 0::2], y[:, 1::2], np.full((12, 8), 90), np.full((12, 8), 160)], axis=-1).astype(np.uint8)
    path = write_dicom(tmp_path / "x", RGB, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())
    assert np.array_equal(decode_grey(path, 0), y)


@pytest.mark.parametrize(("bits", "largest"), [(8, 255), (16, 255), (16, 65535)])
def test_a_palette_is_looked_up_and_its_colours_become_luma(tmp_path, bits, largest):
    """(16, 255): entries stated as 16 bits with only 8 filled, as by many makers."""
    table = np.random.default_rng(2).integers(0, largest + 1, (256, 3)).astype(f"<u{bits // 8}")
    table[0] = largest
    fields = {
        f"{colour}PaletteColorLookupTable{part}": value
        for number, colour in enumerate(("Red", "Green", "Blue"))
        for part, value in (("Descriptor", [256, 0, bits]), ("Data", table[:, number].tobytes()))
    }
    path = write_dicom(tmp_path / "x", PhotometricInterpretation="PALETTE COLOR", **fields)
    expected = luma(table[noise()].astype(float)) * 255 / largest
    assert np.abs(decode_grey(path, 0) - expected).max() <= 1  # entries are rounded to 8 bits before they are weighed


def test_a_palette_that_is_missing_is_named_as_the_reason(tmp_path):
    path = write_dicom(tmp_path / "x", PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(Rejected, match="palette"):
        decode_grey(path, 0)


@pytest.mark.parametrize("stored", [10, 12, 16])
def test_deep_pixels_are_scaled_by_the_bits_stored(tmp_path, stored):
    pixels = np.random.default_rng(3).integers(0, 2**stored, (12, 16)).astype(np.uint16)
    path = write_dicom(tmp_path / "x", pixels, BitsStored=stored, HighBit=stored - 1)
    assert np.array_equal(decode_grey(path, 0), np.rint(pixels.astype(float) * 255 / (2**stored - 1)))


def test_signed_pixels_start_at_the_smallest_value(tmp_path):
    pixels = np.random.default_rng(3).integers(-2048, 2048, (12, 16)).astype(np.int16)
    path = write_dicom(tmp_path / "x", pixels, BitsStored=12, HighBit=11)
    assert np.array_equal(decode_grey(path, 0), np.rint((pixels.astype(float) + 2048) * 255 / 4095))


def test_deep_pixels_go_through_the_window_after_the_rescale(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 4096, (12, 16)).astype(np.uint16)
    fields = {"WindowCenter": [900, 1], "WindowWidth": [1000, 1], "RescaleSlope": 2, "RescaleIntercept": -100}
    path = write_dicom(tmp_path / "x", pixels, BitsStored=12, HighBit=11, **fields)
    x = pixels.astype(float) * 2 - 100
    expected = np.clip(((x - 899.5) / 999 + 0.5) * 255, 0, 255)  # PS3.3 section C.11.2.1.2.1
    assert np.abs(decode_grey(path, 0) - expected).max() <= 0.5


@pytest.mark.parametrize("width", ["0", "1", None])
def test_an_unusable_window_is_ignored(tmp_path, width):
    pixels = np.arange(192, dtype=np.uint16).reshape(12, 16) * 300
    path = write_dicom(tmp_path / "x", pixels, WindowCenter="5", WindowWidth=width)
    assert np.array_equal(decode_grey(path, 0), np.rint(pixels.astype(float) * 255 / 65535))


def slice_of(name, tmp_path, **fields):
    """One of the slices that pydicom ships, with other fields; its data set, and its grey."""
    made = dcmread(get_testdata_file(name))
    for keyword, value in fields.items():
        setattr(made, keyword, value)
    made.save_as(tmp_path / "slice")
    return made, decode_grey(tmp_path / "slice", 0)


def test_a_ct_slice_without_a_window_spans_from_its_least_to_its_greatest_value(tmp_path):
    made, grey = slice_of("CT_small.dcm", tmp_path)
    stored = made.pixel_array.astype(float)  # 128 to 2191 of signed 16 bits: Hounsfield units but for 1024
    assert np.array_equal(grey, np.rint((stored - stored.min()) / np.ptp(stored) * 255))
    assert (grey.min(), grey.max()) == (0, 255)


@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500)])
def test_a_ct_slice_goes_through_its_window_in_hounsfield_units(tmp_path, center, width):
    made, grey = slice_of("CT_small.dcm", tmp_path, WindowCenter=center, WindowWidth=width)
    hounsfield = made.pixel_array.astype(float) * 1 - 1024  # its RescaleSlope and RescaleIntercept
    expected = np.clip(((hounsfield - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)  # PS3.3 C.11.2.1.2.1
    assert np.abs(grey - expected).max() <= 0.5
    by_pydicom = apply_windowing(apply_rescale(made.pixel_array, made), made)  # -32768 to 32767, less 1024
    assert np.abs(grey - (by_pydicom + 32768 + 1024) * 255 / 65535).max() <= 0.51


def test_an_mr_slice_goes_through_the_window_that_it_states(tmp_path):
    made, grey = slice_of("MR_small.dcm", tmp_path)
    expected = np.clip(((made.pixel_array.astype(float) - 599.5) / 1599 + 0.5) * 255, 0, 255)  # 600, 1600
    assert np.abs(grey - expected).max() <= 0.5 and grey.std() > 20


def test_a_slice_in_monochrome1_is_inverted_and_one_of_a_single_level_is_black(tmp_path):
    made, grey = slice_of("CT_small.dcm", tmp_path, PhotometricInterpretation="MONOCHROME1")
    stored = made.pixel_array.astype(float)
    assert np.array_equal(grey, 255 - np.rint((stored - stored.min()) / np.ptp(stored) * 255))
    flat = np.full((128, 128), 500, np.int16).tobytes()
    assert not slice_of("CT_small.dcm", tmp_path, PixelData=flat)[1].any()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("colour", [False, True])
def test_lossless_encodings_give_the_same_grey(tmp_path, syntax, colour):
    rgb = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = dataset(rgb if colour else rgb[..., 0])
    if syntax == JPEG2000Lossless and colour:
        made.PhotometricInterpretation = "YBR_RCT"
    made.compress(syntax, rgb if colour else None)
    made.save_as(tmp_path / "x", enforce_file_format=True)
    grey = decode_grey(tmp_path / "x", 0)
    assert np.abs(grey - (luma(rgb) if colour else rgb[..., 0].astype(float))).max() <= (NEAR if colour else 0)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_native_encodings_give_the_same_grey(tmp_path, syntax):
    pixels = np.arange(192, dtype=np.uint16).reshape(12, 16) * 300
    stored = pixels.astype(">u2") if syntax == ExplicitVRBigEndian else pixels
    path = write_dicom(tmp_path / "x", pixels, TransferSyntaxUID=syntax, PixelData=stored.tobytes())
    assert np.array_equal(decode_grey(path, 0), np.rint(pixels.astype(float) * 255 / 65535))


def test_bytes_that_big_endian_stores_in_words_are_put_in_order(tmp_path):
    cine = np.stack([noise(3, 5, seed=n) for n in range(3)])  # 15 bytes a frame: frames begin within a word
    stored = np.frombuffer(cine.tobytes() + b"\0", ">u2").astype("<u2").tobytes()
    made = dataset(cine, TransferSyntaxUID=ExplicitVRBigEndian, PixelData=stored)
    made["PixelData"].VR = "OW"
    made.save_as(tmp_path / "x", enforce_file_format=True)
    for number, expected in enumerate(cine):
        assert np.array_equal(decode_grey(tmp_path / "x", number), expected)


def test_bits_that_are_packed_across_frames_become_black_and_white(tmp_path):
    bits = np.random.default_rng(5).integers(0, 2, (3, 12, 13), dtype=np.uint8)
    data = np.packbits(bits, bitorder="little").tobytes()
    fields = {"NumberOfFrames": 3, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": data + bytes(1)}
    path = write_dicom(tmp_path / "x", bits[0], **fields)
    for number in range(3):
        assert np.array_equal(decode_grey(path, number), bits[number] * 255)


@pytest.mark.parametrize("kind", ["u4", "i4", "u8"])
def test_pixels_of_more_than_16_bits_are_scaled(tmp_path, kind):
    pixels = np.linspace(np.iinfo(kind).min, np.iinfo(kind).max, 192).astype(kind).reshape(12, 16)
    fields = {"BitsStored": pixels.itemsize * 8, "HighBit": pixels.itemsize * 8 - 1}
    path = write_dicom(tmp_path / "x", pixels, **fields)
    least = float(np.iinfo(kind).min)
    expected = (pixels.astype(float) - least) * 255 / (float(np.iinfo(kind).max) - least)
    assert np.abs(decode_grey(path, 0) - expected).max() <= 0.5 + 1e-6


def with_fractions(path, values, **fields):
    bits = values.itemsize * 8
    absent = dict.fromkeys(("PixelData", "PixelRepresentation", "BitsStored", "HighBit"))
    made = dataset(noise(), **absent, **fields)
    made.BitsAllocated = bits
    setattr(made, "FloatPixelData" if bits == 32 else "DoubleFloatPixelData", values.tobytes())
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_fractions_span_from_their_least_to_their_greatest_or_their_window(tmp_path, kind):
    values = np.linspace(-3, 9, 192).astype(kind).reshape(12, 16)
    grey = decode_grey(with_fractions(tmp_path / "x", values), 0)
    assert np.abs(grey - (values.astype(float) + 3) * 255 / 12).max() <= 0.51
    broken = values.copy()
    broken[0, :3] = np.nan, np.inf, -np.inf
    grey = decode_grey(with_fractions(tmp_path / "y", broken), 0)
    assert not grey[0, :3].any() and np.ptp(grey) == 255
    windowed = decode_grey(with_fractions(tmp_path / "z", values, WindowCenter=3, WindowWidth=5), 0)
    expected = np.clip(((values.astype(float) - 2.5) / 4 + 0.5) * 255, 0, 255)
    assert np.abs(windowed - expected).max() <= 0.51


def test_colours_called_halved_that_are_not_are_read_in_full(tmp_path):
    path = write_dicom(tmp_path / "x", RGB, PhotometricInterpretation="YBR_FULL_422")  # as many bytes as YBR_FULL
    assert np.array_equal(decode_grey(path, 0), RGB[..., 0])


def test_partial_range_is_stretched(tmp_path):
    path = write_dicom(tmp_path / "x", RGB, PhotometricInterpretation="YBR_PARTIAL_422")
    expected = np.clip((RGB[..., 0].astype(float) - 16) * 255 / 219, 0, 255)
    assert np.abs(decode_grey(path, 0) - expected).max() <= 0.51


def encoded_by_gdcm(path, pixels, syntax, **fields):
    """`pixels` in an encoding that pydicom cannot write."""
    write_dicom(path, pixels, **fields)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path


def test_lossless_jpeg_gives_the_same_grey(tmp_path):
    path = encoded_by_gdcm(tmp_path / "x", noise(64, 64), gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    assert dcmread(path).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert np.array_equal(decode_grey(path, 0), noise(64, 64))


def test_extended_jpeg_of_12_bits_is_scaled_to_8(tmp_path):
    smooth = (np.add.outer(np.arange(64), np.arange(64)) * 32).astype(np.uint16)
    syntax = gdcm.TransferSyntax.JPEGExtendedProcess2_4
    path = encoded_by_gdcm(tmp_path / "x", smooth, syntax, BitsStored=12, HighBit=11)
    assert dcmread(path).file_meta.TransferSyntaxUID == JPEGExtended12Bit
    assert np.abs(decode_grey(path, 0) - smooth.astype(float) * 255 / 4095).max() <= 2


HTJ2K = base64.b64decode(  # (13 row + 7 column) mod 256, reversible, encoded by OpenJPH 0.26
    "/0//UQApQAAAAAAYAAAAEAAAAAAAAAAAAAAAGAAAABAAAAAAAAAAAAABBwEB/1AACAACAAAAAv9SAAwAAgABAAUEBEAB/1wAEyBIUFBQUFBQUFBQ"
    "UFBQSEhI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAPoAAf+TwCX9AMd0AMASgLwBB3QAwBLAE0ASgPIAx3QABKIBgXQA7AAHdADA"
    "E0AVcAVQBD8Z9VQAdgPQQNMAEAG8VgAADR9P/BBAfFUAwBaEAWrAFoCHByRMBZLfm/vALmPQIFcAA8Q1ACExFpB4pPD8wMuIAB4sA1kAQwxEeMO3"
    "YQf7gZJ4owbHAMAuhgF00Atg5DPmn+/7vg+D8eP5/P1+no+x86gCDJihd7SC+wsbQn8AH17/cOvx9f3AiFjCo7w31geGB4PBsP1IK6HC6XyeywR7"
    "dhRAsAG//2efv/9f3/9f3/1MQIK9CELpCChCfQD/2Q=="
)


def test_high_throughput_jpeg_2000_gives_the_same_grey(tmp_path):
    rows, columns = np.mgrid[:16, :24]
    expected = ((13 * rows + 7 * columns) % 256).astype(np.uint8)
    fields = {"TransferSyntaxUID": HTJ2KLossless, "PixelData": encapsulate([HTJ2K])}
    assert np.array_equal(decode_grey(write_dicom(tmp_path / "x", expected, **fields), 0), expected)


def test_lossy_jpeg_2000_colours_become_luma(tmp_path):
    made = dataset(np.asarray(SMOOTH.repeat(4, 0).repeat(4, 1)), PhotometricInterpretation="YBR_ICT")
    made.compress(JPEG2000, np.asarray(SMOOTH.repeat(4, 0).repeat(4, 1)), j2k_psnr=[60])
    made.save_as(tmp_path / "x", enforce_file_format=True)
    expected = luma(SMOOTH.repeat(4, 0).repeat(4, 1).astype(float))
    assert np.abs(decode_grey(tmp_path / "x", 0) - expected).max() <= 3


def jpeg(pixels, **options):
    """A JPEG of smooth pixels at the best quality."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, subsampling=0, **options)
    return buffer.getvalue()


def write_jpeg(path, encoded, **fields):
    smooth = np.zeros((16, 16, 3), np.uint8)
    return write_dicom(path, smooth, TransferSyntaxUID=JPEGBaseline8Bit, PixelData=encapsulate([encoded]), **fields)


SMOOTH = np.stack(np.broadcast_arrays(np.arange(0, 240, 15)[:, None], np.arange(16) * 10, 80), axis=-1).astype(np.uint8)


def test_the_luma_of_a_jpeg_is_that_of_its_rgb(tmp_path):
    path = write_jpeg(tmp_path / "x", jpeg(SMOOTH), PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(decode_grey(path, 0) - luma(SMOOTH.astype(float))).max() <= 2


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("stored_rgb", [True, False])
def test_markers_of_a_jpeg_overrule_the_header(tmp_path, photometric, stored_rgb):
    encoded = jpeg(SMOOTH, keep_rgb=stored_rgb)  # with Adobe's marker if RGB, else with JFIF's
    path = write_jpeg(tmp_path / "x", encoded, PhotometricInterpretation=photometric)
    assert np.abs(decode_grey(path, 0) - luma(SMOOTH.astype(float))).max() <= 2


def test_a_jpeg_without_markers_follows_the_header(tmp_path):
    encoded = jpeg(SMOOTH)
    unmarked = encoded[:2] + encoded[4 + int.from_bytes(encoded[4:6], "big") :]  # without its JFIF segment
    assert b"JFIF" not in unmarked and unmarked[:2] == b"\xff\xd8"
    as_ybr = decode_grey(write_jpeg(tmp_path / "y", unmarked, PhotometricInterpretation="YBR_FULL"), 0)
    assert np.abs(as_ybr - luma(SMOOTH.astype(float))).max() <= 2
    stored = np.asarray(Image.open(BytesIO(encoded)).convert("YCbCr")).astype(float)
    as_rgb = decode_grey(write_jpeg(tmp_path / "r", unmarked, PhotometricInterpretation="RGB"), 0)
    assert np.abs(as_rgb - luma(stored)).max() <= 3


def test_a_grey_jpeg_of_monochrome1_is_inverted(tmp_path):
    fields = {"PhotometricInterpretation": "MONOCHROME1", "SamplesPerPixel": 1, "PlanarConfiguration": None}
    path = write_jpeg(tmp_path / "x", jpeg(SMOOTH[..., 0]), **fields)
    assert np.abs(decode_grey(path, 0).astype(int) - (255 - SMOOTH[..., 0].astype(int))).max() <= 2


def test_frames_of_a_cine_are_decoded_one_by_one(tmp_path):
    cine = np.stack([noise(seed=n) for n in range(5)])
    path = write_dicom(tmp_path / "x", cine)
    for frame in (0, 3, 4):
        assert np.array_equal(decode_grey(path, frame), cine[frame])


@pytest.mark.parametrize(
    ("frames", "per_cine", "expected"),
    [(1, 1, [0]), (30, 1, [15]), (30, 3, [5, 15, 25]), (4, 4, [0, 1, 2, 3]), (3, 8, [0, 1, 2]), (10, 2, [2, 7])],
)
def test_frames_are_taken_from_the_middles_of_equal_segments(frames, per_cine, expected):
    assert select_frames(frames, per_cine) == expected


def test_pixels_that_do_not_decode_have_reasons(tmp_path):
    short = write_dicom(tmp_path / "short", PixelData=noise().tobytes()[:100])
    assert reason_of(short) == "truncated_pixels"
    assert reason_of(write_dicom(tmp_path / "empty", PixelData=b"")) == "empty"
    assert reason_of(write_dicom(tmp_path / "huge", Rows=65535, Columns=65535)) == "unsupported_pixels"
    assert reason_of(write_dicom(tmp_path / "long", NumberOfFrames="2000000000")) == "unsupported_pixels"
    assert reason_of(write_dicom(tmp_path / "sizeless", Rows=None)) == "unsupported_pixels"
    assert reason_of(write_dicom(tmp_path / "frame"), frame=7) == "undecodable"
    assert reason_of(write_jpeg(tmp_path / "jpeg", b"\xff\xd8 no JPEG at all")) == "undecodable"
    video = {"TransferSyntaxUID": "1.2.840.10008.1.2.4.102", "PixelData": encapsulate([b"no video"])}
    assert reason_of(write_dicom(tmp_path / "video", **video)) == "undecodable"


def test_a_bad_frame_is_lost_alone(tmp_path):
    good = jpeg(SMOOTH)
    data = encapsulate([good, b"\xff\xd8 no JPEG at all!", good])
    fields = {"NumberOfFrames": "3", "PhotometricInterpretation": "YBR_FULL_422", "PixelData": data}
    path = write_dicom(tmp_path / "x", np.zeros((16, 16, 3), np.uint8), TransferSyntaxUID=JPEGBaseline8Bit, **fields)
    assert np.array_equal(decode_grey(path, 0), decode_grey(path, 2))
    assert reason_of(path, 1) == "undecodable"


def test_a_file_that_cannot_be_opened_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode_image_file(tmp_path / "gone")


def identity(path):
    return digest_pixels(str(path.parent), path.name)


def test_equal_pictures_have_equal_pixel_digests(tmp_path):
    same = {identity(write_dicom(tmp_path / name, PatientID=name)) for name in ("a", "b")}
    assert len(same) == 1 and None not in same
    assert identity(write_dicom(tmp_path / "c", noise(seed=1))) not in same
    assert identity(write_dicom(tmp_path / "d", PixelData=b"12")) is None


def test_the_identity_of_a_cine_is_that_of_all_its_frames_in_any_encoding(tmp_path):
    cine = np.stack([noise(64, 64, seed=n) for n in range(5)])
    native, packed = dataset(cine), dataset(cine)
    packed.compress(RLELossless)
    names = set()
    for name, made in (("native", native), ("packed", packed)):
        made.save_as(tmp_path / name, enforce_file_format=True)
        names.add(identity(tmp_path / name))
    assert len(names) == 1 and None not in names
    cine[3, 5, 5] ^= 1
    assert identity(write_dicom(tmp_path / "other", cine)) not in names


def test_resizing_averages_rather_than_picks(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 64))  # one pixel wide
    small = resize_grey(stripes, 16, 16)
    assert small.shape == (16, 16) and small.dtype == np.uint8
    assert np.abs(small.astype(float) - 127.5).max() < 16


def test_pictures_of_manifests_are_decoded_by_content(tmp_path):
    for name, image, expected in (
        ("grey.png", Image.fromarray(noise()), noise()),
        ("colour.txt", Image.fromarray(RGB), luma(RGB)),
        ("deep.png", Image.fromarray(noise().astype(np.uint16) * 257), noise()),
    ):
        image.save(tmp_path / name, "PNG")
        assert np.abs(decode_image_file(tmp_path / name) - expected.astype(float)).max() <= NEAR
    Image.fromarray(SMOOTH).save(tmp_path / "x.jpg", quality=100)
    assert np.abs(decode_image_file(tmp_path / "x.jpg") - luma(SMOOTH.astype(float))).max() <= 2
    assert np.array_equal(decode_image_file(write_dicom(tmp_path / "x.dcm")), noise())


@pytest.mark.parametrize("content", [b"", b"GIF89a not taken", b"\x89PNG\r\n\x1a\nbroken", b"\xff\xd8\xff broken"])
def test_other_files_of_manifests_are_rejected(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Rejected):
        decode_image_file(tmp_path / "x")


# Colour copies


def saturated(height, width):
    """Left half grey, right half red."""
    rgb = np.full((height, width, 3), 90, np.uint8)
    rgb[:, width // 2 :] = 200, 10, 10
    return rgb


@pytest.mark.parametrize("kind", ["native", "run lengths", "jpeg", "ybr", "palette"])
def test_colour_frames_have_a_reduced_colour_copy(tmp_path, kind):
    rgb = saturated(240, 322)
    fields = {}
    if kind == "jpeg":
        fields = {"TransferSyntaxUID": JPEGBaseline8Bit, "PixelData": encapsulate([jpeg(rgb)])}
        fields["PhotometricInterpretation"] = "YBR_FULL_422"
    if kind == "ybr":
        fields = {"PhotometricInterpretation": "YBR_FULL"}
        fields["PixelData"] = np.asarray(Image.fromarray(rgb).convert("YCbCr")).tobytes()
    if kind == "palette":
        table = {"Red": [90, 200], "Green": [90, 10], "Blue": [90, 10]}
        fields = {"PhotometricInterpretation": "PALETTE COLOR"}
        for colour, values in table.items():
            fields[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
            fields[f"{colour}PaletteColorLookupTableData"] = (np.array(values, "<u2") * 257).tobytes()
    made = dataset((rgb[..., 1] == 10).astype(np.uint8) if kind == "palette" else rgb, **fields)
    if kind == "run lengths":
        made.compress(RLELossless)
    made.save_as(tmp_path / "x", enforce_file_format=True)
    frame = opened(tmp_path / "x").frame(0)
    height, width = frame.rgb.shape[:2]
    assert frame.grey.shape == (240, 322) and (height, width) == (60, 81)  # a quarter, rounded up
    left, right = frame.rgb[5:-5, 3 : width // 2 - 4].astype(int), frame.rgb[5:-5, width // 2 + 4 : -4].astype(int)
    assert np.abs(left - 90).max() <= 4 and np.abs(right - (200, 10, 10)).max() <= 6


def test_grey_frames_come_without_a_copy_and_small_ones_in_full(tmp_path):
    assert opened(write_dicom(tmp_path / "grey")).frame(0).rgb is None
    assert np.array_equal(opened(write_dicom(tmp_path / "rgb", RGB)).frame(0).rgb, RGB)


# Regions and spacing


def region(**fields):
    item = Dataset()
    defaults = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionFlags": 2,
        "RegionLocationMinX0": 10,
        "RegionLocationMinY0": 20,
        "RegionLocationMaxX1": 300,
        "RegionLocationMaxY1": 200,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.0123,
        "PhysicalDeltaY": 0.0456,
    }
    for name, value in (defaults | fields).items():
        if value is not None:
            setattr(item, name, value)
    return item


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit])
def test_regions_are_read_in_every_encoding(tmp_path, syntax, undefined):
    items = Sequence([region(), region(RegionDataType=3, PhysicalDeltaX=None)])
    fields = {"SequenceOfUltrasoundRegions": items, "TransferSyntaxUID": syntax}
    if syntax == JPEGBaseline8Bit:
        fields["PixelData"] = encapsulate([jpeg(noise())])
    made = dataset(noise(), **fields)
    made["SequenceOfUltrasoundRegions"].is_undefined_length = undefined
    for item in items:
        item.is_undefined_length_sequence_item = undefined
    made.save_as(tmp_path / "x", enforce_file_format=True)
    first, second = opened(tmp_path / "x").regions
    assert first == UltrasoundRegion(1, 1, 2, 10, 20, 300, 200, 3, 3, 0.0123, 0.0456)
    assert (second.data_type, second.delta_x, second.delta_y) == (3, None, 0.0456)


def test_a_bad_field_of_a_region_is_lost_alone_and_regions_are_limited(tmp_path):
    path = write_dicom(tmp_path / "x", SequenceOfUltrasoundRegions=Sequence([region()]))
    broken = path.read_bytes().replace(b"\x18\x00\x14\x60US\x02\0\x01\0", b"\x18\x00\x14\x60LO\x02\0a\0")
    (only,) = PixelFile.open(BytesIO(broken)).regions
    assert only.data_type is None and only.spatial_format == 1 and only.x1 == 300
    flood = write_dicom(tmp_path / "y", SequenceOfUltrasoundRegions=Sequence([region()] * (MAX_REGIONS + 5)))
    assert len(opened(flood).regions) == MAX_REGIONS
    nonsense = path.read_bytes().replace(b"\x18\x00\x11\x60SQ\0\0", b"\x18\x00\x11\x60OB\0\0")
    assert PixelFile.open(BytesIO(nonsense)).regions == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
        ({"ImagerPixelSpacing": [0.4, 0.5]}, (0.4, 0.5)),
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.4, 0.5]}, (0.2, 0.3)),
        ({"PixelSpacing": [0, 0.3], "ImagerPixelSpacing": [0.4, 0.5]}, (0.4, 0.5)),
        ({"PixelSpacing": [0.2, 0.3, 0.4]}, None),
        ({}, None),
    ],
)
def test_spacing_is_that_of_rows_and_columns(tmp_path, fields, expected):
    assert opened(write_dicom(tmp_path / "x", **fields)).spacing_mm == expected


def test_real_regions_are_within_their_frames():
    path = shared_data() / "dicom_samples" / "ultrasound" / "dcm4che__YBR_422.dcm"
    file = opened(path)
    height, width = file.frame(0).grey.shape
    assert file.regions and all(0 <= r.x0 < r.x1 < width and 0 <= r.y0 < r.y1 < height for r in file.regions)


# Cines, frame by frame


def jpeg_cine(frames, table):
    """`frames` JPEGs of one grey each, with an offset table of the kind `table`."""
    encoded = [jpeg(np.full((64, 64), 10 * n % 250, np.uint8)) for n in range(frames)]
    fields = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "TransferSyntaxUID": JPEGBaseline8Bit}
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(encoded)
        fields |= {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths, "PixelData": data}
    elif table == "fragments":
        fields["PixelData"] = encapsulate(encoded, fragments_per_frame=3, has_bot=False)
    else:
        fields["PixelData"] = encapsulate(encoded, has_bot=table != "none")
    made = dataset(np.zeros((frames, 64, 64), np.uint8), **fields)
    if table == "wrong":  # every offset a little off
        start = made.PixelData.index(b"\xfe\xff\x00\xe0") + 12
        made.PixelData = made.PixelData[:start] + b"\x05\0\0\0" + made.PixelData[start + 4 :]
    return made


@pytest.mark.parametrize("table", ["basic", "extended", "none", "fragments", "wrong"])
def test_frames_are_found_with_and_without_offset_tables(tmp_path, table):
    jpeg_cine(9, table).save_as(tmp_path / "x", enforce_file_format=True)
    file = opened(tmp_path / "x")
    assert file.frames == 9
    for number in (7, 0, 8, 1):
        assert np.abs(file.frame(number).grey.astype(int) - 10 * number).max() <= 1
    greys = [frame.grey.mean().round() for frame in file.each_frame()]
    assert greys == pytest.approx([10 * n for n in range(9)], abs=1)
    with pytest.raises(Rejected):
        file.frame(9)


@pytest.mark.parametrize("encoding", ["native", "run lengths", "deep"])
def test_a_cine_is_never_whole_in_memory(tmp_path, encoding):
    frames = 200
    cine = np.broadcast_to(noise(240, 320)[None], (frames, 240, 320)).astype(
        np.uint16 if encoding == "deep" else np.uint8
    )
    made = dataset(cine)
    if encoding == "run lengths":
        made.compress(RLELossless)
    made.save_as(tmp_path / "x", enforce_file_format=True)
    expected, whole = cine[0], cine.nbytes
    del made, cine
    with (tmp_path / "x").open("rb") as content:
        tracemalloc.start()
        try:
            file = PixelFile.open(content)
            for number in (0, 100, 199):
                assert file.frame(number).grey.shape == (240, 320)
            assert identity(tmp_path / "x") is not None
            assert tracemalloc.get_traced_memory()[1] < whole / 10
        finally:
            tracemalloc.stop()
        if encoding != "deep":
            assert np.array_equal(file.frame(199).grey, expected)


def test_a_native_cine_that_breaks_off_gives_the_frames_that_are_there(tmp_path):
    cine = np.stack([noise(seed=n) for n in range(5)])
    path = write_dicom(tmp_path / "x", cine)
    path.write_bytes(path.read_bytes()[:-200])
    assert np.array_equal(decode_grey(path, 2), cine[2])
    assert reason_of(path, 4) == "truncated_pixels"


# Lies


def test_a_stream_that_needs_more_than_the_budget_is_not_decoded(tmp_path):
    huge = bytearray(HTJ2K)
    huge[8:16] = (65535).to_bytes(4, "big") * 2
    fields = {"TransferSyntaxUID": HTJ2KLossless, "PixelData": encapsulate([bytes(huge)])}
    assert reason_of(write_dicom(tmp_path / "x", noise(16, 24), **fields)) == "over_limits"
    big = bytearray(jpeg(SMOOTH))
    start = big.index(b"\xff\xc0")
    big[start + 5 : start + 9] = b"\xff\xdc\xff\xdc"
    assert reason_of(write_jpeg(tmp_path / "y", bytes(big))) == "over_limits"


@pytest.mark.parametrize("header", [b"\xff" * 64, (15).to_bytes(4, "little") + b"\xff\xff\xff\x7f" * 15, bytes(64)])
def test_a_false_run_length_header_is_rejected(tmp_path, header):
    fields = {"TransferSyntaxUID": RLELossless, "PixelData": encapsulate([header + bytes(100)])}
    assert reason_of(write_dicom(tmp_path / "x", **fields)) == "undecodable"


def test_a_decoder_s_panic_is_a_rejection(tmp_path, monkeypatch):
    class Panic(BaseException):  # as Rust's are in Python
        pass

    def panic(*_, **__):
        raise Panic

    path = write_dicom(tmp_path / "x")
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", panic)
    assert reason_of(path) == "undecodable"


def test_regions_of_thousands_of_levels_are_none(tmp_path):
    deep = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x18\x00\x11\x60SQ\0\0\xff\xff\xff\xff" * 5000
    content = write_dicom(tmp_path / "x").read_bytes()
    at = content.index(b"\x28\x00\x02\x00US")
    element = b"\x18\x00\x11\x60SQ\0\0" + len(deep).to_bytes(4, "little") + deep
    file = PixelFile.open(BytesIO(content[:at] + element + content[at:]))
    assert file.regions == () and np.array_equal(file.frame(0).grey, noise())


def test_each_syntax_names_the_libraries_that_decode_it():
    native = {"numpy", "pillow", "pydicom"}
    assert set(decoding_libraries(None)) == set(decoding_libraries(ImplicitVRLittleEndian)) == native
    assert set(decoding_libraries(DeflatedExplicitVRLittleEndian)) == set(decoding_libraries("1.2.3")) == native
    assert "pylibjpeg-openjpeg" in decoding_libraries(HTJ2KLossless) and "pylibjpeg-rle" not in decoding_libraries(
        HTJ2KLossless
    )
    assert "pylibjpeg-rle" in decoding_libraries(RLELossless) and "pylibjpeg-openjpeg" not in decoding_libraries(
        RLELossless
    )
    assert "pyjpegls" in decoding_libraries(JPEGLSLossless) and "python-gdcm" in decoding_libraries(JPEGExtended12Bit)
    assert "pyjpegls" not in decoding_libraries(JPEGBaseline8Bit)


def test_unsafe_decoders_are_used_only_without_an_alternative():
    only_gdcm = {JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit}
    for syntax in (*only_gdcm, JPEGBaseline8Bit, JPEGLSLossless, JPEGLSNearLossless, JPEG2000, JPEG2000Lossless):
        assert ("python-gdcm" in decoding_libraries(syntax)) == (syntax in only_gdcm)
        assert "pylibjpeg-openjpeg" not in decoding_libraries(syntax)
        used = set(get_decoder(syntax).available_plugins)
        assert used == ({"gdcm"} if syntax in only_gdcm - {JPEGExtended12Bit} else used - {"gdcm", "pylibjpeg"})
