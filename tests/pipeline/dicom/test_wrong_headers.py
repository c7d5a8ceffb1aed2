"""One picture stored in many ways under headers that are wrong about it: it comes out right, or not at all.

The reference is ITU-R BT.601 luma of the picture, computed here in float64.
"""

import io
from itertools import product

import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage

from pipeline.dicom.rejections import Reason, Rejected
from tests.pipeline.archive.synthetic import dataset, decode_grey, write_dicom

HEIGHT, WIDTH = 240, 322
LABELS = ("RGB", "YBR_FULL", "YBR_RCT", "YBR_ICT")


def picture(kind: str, seed: int = 1):
    """Speckle in a sector-like box on black, height x width x 3: grey, with colour flow, or in one tint."""
    random = np.random.default_rng(seed)
    echoes = random.normal(size=(2, HEIGHT, WIDTH))
    grain = np.hypot(*(ndimage.gaussian_filter(part, (0.8, 1.4)) for part in echoes)) * 4
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (rows > 20) & (rows < 220) & (columns > 40) & (columns < 280)
    grey = np.where(inside, np.clip(60 + 25 * grain + 40 * np.sin(columns / 40), 0, 250), 0)
    rgb = np.repeat(grey[..., None], 3, -1)
    if kind == "flow":
        vessel = np.hypot(rows - 120, columns - 160) < 45
        rgb[vessel] = np.stack([rgb[vessel, 0], rgb[vessel, 0] / 3, 0 * rgb[vessel, 0] + 10], -1)
    if kind == "sepia":
        rgb = rgb * (1, 0.85, 0.6)
    return np.rint(rgb).astype(np.uint8)


def luma(rgb):
    return rgb.astype(float) @ (0.299, 0.587, 0.114)


def ybr(rgb):
    """PS3.3 section C.7.6.3.1.2."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    blue_ness = -0.168736 * red - 0.331264 * green + 0.5 * blue + 128
    red_ness = 0.5 * red - 0.418688 * green - 0.081312 * blue + 128
    return np.rint(np.clip(np.stack([luma(rgb), blue_ness, red_ness], -1), 0, 255)).astype(np.uint8)


def right_or_left_out(folder, rgb, near=1.0, **fields):
    """Whether the file is decoded to `rgb`'s luma; False if it is rejected. Fails if it is decoded wrongly."""
    path = write_dicom(folder / "x.dcm", rgb, **fields)
    try:
        grey = decode_grey(path, 0)
    except Rejected:
        return False
    assert np.abs(grey - luma(rgb)).mean() < near, {key: value for key, value in fields.items() if key != "PixelData"}
    return True


@pytest.mark.parametrize("kind", ["grey", "flow", "sepia"])
@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_native_colours_in_either_order_and_space_under_any_label(tmp_path, kind, syntax):
    rgb = picture(kind)
    told = []
    for label, as_ybr, by_planes, says_planes in product(LABELS[:2], (False, True), (False, True), (0, 1)):
        stored = ybr(rgb) if as_ybr else rgb
        content = (stored.transpose(2, 0, 1) if by_planes else stored).tobytes()
        fields = {"PhotometricInterpretation": label, "PlanarConfiguration": says_planes, "PixelData": content}
        told.append(right_or_left_out(tmp_path, rgb, **fields, **({"TransferSyntaxUID": syntax} if syntax else {})))
    assert all(told)


@pytest.mark.parametrize("kind", ["grey", "flow", "sepia"])
@pytest.mark.parametrize("as_ybr", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_run_lengths_and_jpeg_ls_in_either_space_under_any_label(tmp_path, kind, as_ybr, syntax):
    rgb = picture(kind)
    made = dataset(ybr(rgb) if as_ybr else rgb)
    made.compress(
        syntax, encoding_plugin="pylibjpeg" if syntax == RLELossless else "pyjpegls", generate_instance_uid=False
    )
    for label, says_planes in product(LABELS[:2], (0, 1)):
        fields = {"PhotometricInterpretation": label, "PlanarConfiguration": says_planes}
        fields |= {"PixelData": made.PixelData, "TransferSyntaxUID": syntax}
        assert right_or_left_out(tmp_path, rgb, **fields)


@pytest.mark.parametrize("kind", ["grey", "flow", "sepia"])
@pytest.mark.parametrize(("as_ybr", "transformed"), [(False, False), (False, True), (True, False)])
def test_jpeg_2000_with_and_without_transform_under_any_label(tmp_path, kind, as_ybr, transformed):
    rgb = picture(kind)
    stream = encode_array(ybr(rgb) if as_ybr else rgb, photometric_interpretation=1, use_mct=transformed)
    for label in LABELS:
        fields = {"PhotometricInterpretation": label, "TransferSyntaxUID": JPEG2000Lossless}
        assert right_or_left_out(tmp_path, rgb, PixelData=encapsulate([stream]), **fields)


def jpeg(samples, subsampling, markers):
    """A JPEG whose components are `samples` as they are, with or without JFIF's or Adobe's marker."""
    packed = io.BytesIO()
    Image.fromarray(samples, "YCbCr").save(packed, "JPEG", quality=95, subsampling=subsampling)
    content = packed.getvalue()
    at = content.index(b"\xff\xe0")
    bare = content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    inserted = {"none": b"", "jfif": content[at : at + 18], "adobe 0": adobe + b"\0", "adobe 1": adobe + b"\1"}[markers]
    return bare[:2] + inserted + bare[2:]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("kind", ["grey", "flow", "sepia"])
@pytest.mark.parametrize("markers", ["none", "jfif", "adobe 0", "adobe 1"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpegs_of_either_colour_space_are_decoded_regardless_of_marker_and_label(tmp_path, kind, markers, subsampling):
    rgb = picture(kind)
    for label, as_ybr in product(("RGB", "YBR_FULL_422", "YBR_FULL"), (True, False)):
        if not as_ybr and subsampling:
            continue  # halved components are chroma
        content = encapsulate([jpeg(ybr(rgb) if as_ybr else rgb, subsampling, markers)])
        fields = {"PhotometricInterpretation": label, "TransferSyntaxUID": JPEGBaseline8Bit, "PixelData": content}
        assert right_or_left_out(tmp_path, rgb, 2.5, **fields)


def test_sample_layout_is_detected_in_each_frame_of_a_cine(tmp_path):
    frames = np.stack([picture("grey", seed) for seed in range(3)])
    content = frames.transpose(0, 3, 1, 2).tobytes()
    path = write_dicom(tmp_path / "x", frames, PlanarConfiguration=0, PixelData=content)
    for number, rgb in enumerate(frames):
        assert np.abs(decode_grey(path, number) - luma(rgb)).max() < 1


def test_noise_and_even_colours_have_the_stated_layout(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    even = np.full((HEIGHT, WIDTH, 3), (10, 200, 90), np.uint8)
    for rgb in (noise, even, even * 0):
        assert right_or_left_out(tmp_path, rgb)
        path = write_dicom(tmp_path / "y", rgb, PhotometricInterpretation="YBR_FULL")
        assert np.array_equal(decode_grey(path, 0), rgb[..., 0])


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
def test_samples_that_are_not_counted_are_three_of_colour(tmp_path, label):
    rgb = picture("flow")
    stored = rgb if label == "RGB" else ybr(rgb)
    fields = {"PhotometricInterpretation": label, "SamplesPerPixel": None, "PixelData": stored.tobytes()}
    assert right_or_left_out(tmp_path, rgb, **fields)


@pytest.mark.parametrize(
    "stated", [{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, {"SamplesPerPixel": None}]
)
def test_a_compressed_frame_determines_its_number_of_samples(tmp_path, stated):
    rgb = picture("grey")
    for syntax, content in ((JPEG2000Lossless, encode_array(rgb, photometric_interpretation=1)),):
        assert right_or_left_out(tmp_path, rgb, TransferSyntaxUID=syntax, PixelData=encapsulate([content]), **stated)
    grey = rgb[..., 0].copy()
    path = write_dicom(
        tmp_path / "y", rgb, TransferSyntaxUID=JPEG2000Lossless, PixelData=encapsulate([encode_array(grey)])
    )
    assert np.array_equal(decode_grey(path, 0), grey)


@pytest.mark.parametrize("label", ["ARGB", "CMYK", "HSV"])
def test_retired_kinds_of_colour_are_left_out(tmp_path, label):
    path = write_dicom(tmp_path / "x", picture("flow"), PhotometricInterpretation=label)
    with pytest.raises(Rejected) as rejected:
        decode_grey(path, 0)
    assert rejected.value.rejection.reason is Reason.UNSUPPORTED_PIXELS


# Depth


def ramp(bits):
    """Every level of `bits` bits, in rows."""
    return np.arange(2**bits, dtype=np.uint16).reshape(-1, 64 if bits > 8 else 16)


@pytest.mark.parametrize(
    ("held", "stated", "high"), [(8, 16, 15), (8, 12, 11), (8, 10, 9), (8, 16, 7), (10, 16, 15), (12, 16, 15)]
)
def test_levels_far_below_the_bits_stated_span_the_bits_that_they_fill(tmp_path, held, stated, high):
    path = write_dicom(tmp_path / "x", ramp(held), BitsStored=stated, HighBit=high)
    assert np.array_equal(decode_grey(path, 0), np.rint(ramp(held) * (255 / (2**held - 1))))


@pytest.mark.parametrize(("stored", "high"), [(8, 15), (10, 15), (12, 15), (8, 11)])
def test_levels_at_the_upper_end_of_a_pixel_are_shifted_down(tmp_path, stored, high):
    shifted = ramp(stored) << (high + 1 - stored)
    path = write_dicom(tmp_path / "x", shifted.astype(np.uint16), BitsStored=stored, HighBit=high)
    assert np.array_equal(decode_grey(path, 0), np.rint(ramp(stored) * (255 / (2**stored - 1))))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("held", "stated"), [(12, 12), (16, 16), (12, 16)])
def test_a_dark_frame_of_a_cine_stays_dark(tmp_path, held, stated, compressed):
    frames = np.stack([ramp(held), np.minimum(ramp(held), 200), 0 * ramp(held)])
    encoded = {"TransferSyntaxUID": JPEG2000Lossless} if compressed else {}
    if compressed:
        encoded["PixelData"] = encapsulate([encode_array(frame, bits_stored=stated) for frame in frames])
    path = write_dicom(tmp_path / "x", frames, BitsStored=stated, HighBit=stated - 1, **encoded)
    for number, frame in enumerate(frames):
        assert np.array_equal(decode_grey(path, number), np.rint(frame * (255 / (2**held - 1))))


def test_a_frame_without_negative_levels_of_a_signed_cine_is_scaled_as_the_others(tmp_path):
    levels = ramp(12).astype(np.int16)
    path = write_dicom(tmp_path / "x", np.stack([levels - 2048, levels // 2]), BitsStored=12, HighBit=11)
    assert np.array_equal(decode_grey(path, 1), np.rint((levels // 2 + 2048) * (255 / 4095)))


def test_a_frame_without_a_drawing_of_a_cine_with_one_is_read(tmp_path):
    drawn = ramp(12)
    drawn[3, :] |= 0x8000
    path = write_dicom(tmp_path / "x", np.stack([ramp(12), drawn]), BitsStored=12, HighBit=11)
    for number in (0, 1):
        assert np.array_equal(decode_grey(path, number), np.rint(ramp(12) * (255 / 4095)))


def test_a_drawing_in_an_unused_bit_is_taken_out(tmp_path):
    drawn = ramp(12)
    drawn[3, :] |= 0x8000
    path = write_dicom(tmp_path / "x", drawn, BitsStored=12, HighBit=11)
    assert np.array_equal(decode_grey(path, 0), np.rint(ramp(12) * (255 / 4095)))


@pytest.mark.parametrize(("held", "stated"), [(12, 8), (16, 12), (16, 8)])
def test_levels_beyond_the_bits_stated_are_left_out(tmp_path, held, stated):
    path = write_dicom(tmp_path / "x", ramp(held), BitsStored=stated, HighBit=stated - 1)
    with pytest.raises(Rejected) as rejected:
        decode_grey(path, 0)
    assert rejected.value.rejection.reason is Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize("stored", [7, 8, 12])
def test_a_pixel_of_eight_bits_has_eight(tmp_path, stored):
    path = write_dicom(tmp_path / "x", ramp(8).astype(np.uint8), BitsStored=stored, HighBit=stored - 1)
    assert np.array_equal(decode_grey(path, 0), ramp(8))


def test_signed_levels_without_negative_ones_start_at_0(tmp_path):
    path = write_dicom(tmp_path / "x", ramp(8).astype(np.int16))
    assert np.array_equal(decode_grey(path, 0), ramp(8))


@pytest.mark.parametrize(("bits", "stated", "allocated"), [(8, 16, 16), (12, 16, 16), (12, 8, 16), (12, 12, 16)])
def test_the_depth_of_a_compressed_frame_is_read_from_its_stream(tmp_path, bits, stated, allocated):
    pixels = np.tile(ramp(bits), (4, 4))
    stream = encode_array(pixels, bits_stored=bits)
    fields = {"BitsStored": stated, "HighBit": stated - 1, "BitsAllocated": allocated}
    path = write_dicom(
        tmp_path / "x", pixels, TransferSyntaxUID=JPEG2000Lossless, PixelData=encapsulate([stream]), **fields
    )
    assert np.array_equal(decode_grey(path, 0), np.rint(pixels * (255 / (2**bits - 1))))


def test_a_window_that_shows_nothing_of_an_ultrasound_frame_is_passed_over(tmp_path):
    path = write_dicom(tmp_path / "x", ramp(12), WindowCenter=40000, WindowWidth=100, BitsStored=12, HighBit=11)
    assert np.array_equal(decode_grey(path, 0), np.rint(ramp(12) * (255 / 4095)))
