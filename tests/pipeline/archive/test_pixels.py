"""Grey values, against values computed here in float64, for each photometric interpretation and depth."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.archive.pixels import (
    Job,
    decode_grey,
    decode_image_file,
    decode_small,
    frames_to_take,
    pixel_identity,
    resize_grey,
)
from pipeline.archive.quarantine import Rejected, Rejection
from pipeline.archive.reading import Unopened
from tests.pipeline.archive.synthetic import dataset, noise, write_dicom

RGB = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def luma(rgb):
    """ITU-R BT.601 in float64."""
    return 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]


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
    assert np.array_equal(grey, np.rint(luma(RGB)))


def test_rgb_by_planes_becomes_the_same_luma(tmp_path):
    path = write_dicom(tmp_path / "x", RGB, PlanarConfiguration=1, PixelData=RGB.transpose(2, 0, 1).tobytes())
    assert np.array_equal(decode_grey(path, 0), np.rint(luma(RGB)))


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
    """(16, 255): entries stated as 16 bits of which 8 are filled, as many makers do."""
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
def test_a_window_that_says_nothing_is_passed_over(tmp_path, width):
    pixels = np.arange(192, dtype=np.uint16).reshape(12, 16) * 300
    path = write_dicom(tmp_path / "x", pixels, WindowCenter="5", WindowWidth=width)
    assert np.array_equal(decode_grey(path, 0), np.rint(pixels.astype(float) * 255 / 65535))


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
    assert np.abs(grey - (luma(rgb) if colour else rgb[..., 0].astype(float))).max() <= (0.5 + 1e-9 if colour else 0)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_native_encodings_give_the_same_grey(tmp_path, syntax):
    pixels = np.arange(192, dtype=np.uint16).reshape(12, 16) * 300
    stored = pixels.astype(">u2") if syntax == ExplicitVRBigEndian else pixels
    path = write_dicom(tmp_path / "x", pixels, TransferSyntaxUID=syntax, PixelData=stored.tobytes())
    assert np.array_equal(decode_grey(path, 0), np.rint(pixels.astype(float) * 255 / 65535))


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
def test_what_a_jpeg_stores_is_told_by_its_own_markers_before_the_header(tmp_path, photometric, stored_rgb):
    encoded = jpeg(SMOOTH, keep_rgb=stored_rgb)  # with Adobe's marker if RGB, else with JFIF's
    path = write_jpeg(tmp_path / "x", encoded, PhotometricInterpretation=photometric)
    assert np.abs(decode_grey(path, 0) - luma(SMOOTH.astype(float))).max() <= 2


def test_a_jpeg_without_markers_stores_what_the_header_says(tmp_path):
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
    assert frames_to_take(frames, per_cine) == expected


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


def test_one_bad_frame_costs_that_frame(tmp_path):
    good = jpeg(SMOOTH)
    data = encapsulate([good, b"\xff\xd8 no JPEG at all!", good])
    fields = {"NumberOfFrames": "3", "PhotometricInterpretation": "YBR_FULL_422", "PixelData": data}
    path = write_dicom(tmp_path / "x", np.zeros((16, 16, 3), np.uint8), TransferSyntaxUID=JPEGBaseline8Bit, **fields)
    first, second, third = decode_small(Job(str(path), (0, 1, 2), 8, 8))
    assert isinstance(second, Rejection) and np.array_equal(first, third)


def test_a_file_that_cannot_be_read_is_told_from_a_bad_one(tmp_path):
    assert decode_small(Job(str(tmp_path / "gone"), (0,), 8, 8)) == Unopened(True, "No such file or directory")
    assert decode_small(Job(str(tmp_path), (0,), 8, 8)) == Unopened(False, "Is a directory")


def test_the_identity_of_pixels_is_that_of_what_is_seen(tmp_path):
    same = {pixel_identity(str(write_dicom(tmp_path / name, PatientID=name))) for name in ("a", "b")}
    assert len(same) == 1 and None not in same
    assert pixel_identity(str(write_dicom(tmp_path / "c", noise(seed=1)))) not in same
    assert pixel_identity(str(write_dicom(tmp_path / "d", PixelData=b"12"))) is None


def test_resizing_averages_rather_than_picks(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 64))  # one pixel wide
    small = resize_grey(stripes, 16, 16)
    assert small.shape == (16, 16) and small.dtype == np.uint8
    assert np.abs(small.astype(float) - 127.5).max() < 16


def test_pictures_of_manifests_are_decoded_by_content(tmp_path):
    for name, image, expected in (
        ("grey.png", Image.fromarray(noise()), noise()),
        ("colour.txt", Image.fromarray(RGB), np.rint(luma(RGB))),
        ("deep.png", Image.fromarray(noise().astype(np.uint16) * 257), noise()),
    ):
        image.save(tmp_path / name, "PNG")
        assert np.array_equal(decode_image_file(tmp_path / name), expected)
    Image.fromarray(SMOOTH).save(tmp_path / "x.jpg", quality=100)
    assert np.abs(decode_image_file(tmp_path / "x.jpg") - luma(SMOOTH.astype(float))).max() <= 2
    assert np.array_equal(decode_image_file(write_dicom(tmp_path / "x.dcm")), noise())


@pytest.mark.parametrize("content", [b"", b"GIF89a not taken", b"\x89PNG\r\n\x1a\nbroken", b"\xff\xd8\xff broken"])
def test_other_files_of_manifests_are_rejected(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Rejected):
        decode_image_file(tmp_path / "x")
