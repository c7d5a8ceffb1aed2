"""Contradictory rows of labelled sets, and ambiguous masks."""

import struct
import zlib

import numpy as np
import psutil
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.dicom.image_files import MAX_PIXELS
from pipeline.dicom.rejections import Reason, Rejection
from pipeline.errors import UserError
from pipeline.tasks.labelled_files import read_labelled_mask
from tests.pipeline.archive.synthetic import noise, write_dicom
from tests.pipeline.tasks.test_manifests import read, segmentation, task, with_masks, write_csv

pytestmark = pytest.mark.integration

HALF = np.repeat(np.array([0, 1], np.uint8), 32)[:, None] * np.ones((1, 64), np.uint8)  # class 1 below


def refusal(made_task):
    with pytest.raises(UserError) as error:
        read(made_task)
    assert "\n" not in str(error.value)
    return str(error.value)


def png(pixels, depth, colour):
    """A PNG of rows of bytes as they are to be stored, of 64 x 64 pixels, as Pillow cannot write it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 64, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# One picture in two rows


@pytest.mark.parametrize("same", ["file", "copy", "colour", "dicom"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patient": "p9", "split": "test"}, "of another patient and in another split"),
        ({"patient": "p9"}, "of another patient"),
        ({"quality": "2"}, "with another label"),
    ],
)
def test_equal_pixels_in_two_contradictory_rows_are_refused(tmp_path, rows, same, change, says):
    pixels = noise(64, 64, 0)
    Image.fromarray(pixels).save(tmp_path / "copy.png", compress_level=1)
    Image.fromarray(np.dstack([pixels] * 3)).save(tmp_path / "colour.png")
    write_dicom(tmp_path / "dicom.png", pixels)
    image = rows[0]["image"] if same == "file" else f"{same}.png"
    manifest = write_csv(tmp_path / "m.csv", [*rows, rows[0] | {"image": image} | change])
    said = refusal(task(manifest))
    assert said.startswith(f"Manifest {manifest}, line 8: image ")
    assert f"line 2, {says};" in said


def test_one_file_listed_twice_is_refused_and_another_frame_of_the_same_look_is_not(tmp_path, rows):
    assert "line 2, which lists the same file" in refusal(task(write_csv(tmp_path / "m.csv", [*rows, rows[0]])))
    (tmp_path / "sub").mkdir()
    other_way = [*rows, rows[0] | {"image": "sub/../0.png"}]
    assert "which lists the same file" in refusal(task(write_csv(tmp_path / "m.csv", other_way)))
    (tmp_path / "frozen.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert read(task(write_csv(tmp_path / "m.csv", [*rows, rows[0] | {"image": "frozen.png"}]))).num_rows == 7


def test_one_image_with_two_masks_is_refused_though_they_differ_by_one_pixel(tmp_path, rows):
    mask = np.asarray(Image.open(tmp_path / "0_mask.png")).copy()
    (tmp_path / "again.png").write_bytes((tmp_path / "0.png").read_bytes())
    masked = with_masks(rows)
    again = masked[0] | {"image": "again.png", "mask": "again_mask.png"}
    Image.fromarray(mask * 255).save(tmp_path / "again_mask.png")  # the same classes, stored in another way
    assert read(segmentation(write_csv(tmp_path / "m.csv", [*masked, again]))).num_rows == 7
    mask[63, 63] = 1
    Image.fromarray(mask).save(tmp_path / "again_mask.png")
    assert "line 2, with another label" in refusal(segmentation(tmp_path / "m.csv"))


def test_all_contradictory_rows_are_named(tmp_path, rows):
    more = [row | {"patient": f"q{number}"} for number, row in enumerate(rows[:4])]
    said = refusal(task(write_csv(tmp_path / "m.csv", [*rows, *more])))
    assert ", line 8: image " in said and "3 more such rows: line 9, line 10, line 11" in said


def test_no_message_quotes_a_cell_since_folders_may_be_named_after_patients(tmp_path, rows):
    masked = with_masks(rows)
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    (folder / "text.png").write_text("no picture")
    Image.fromarray(noise(64, 64, 5)).save(folder / "grey.png")
    for field in ("image", "mask"):
        for name in ("gone.png", "text.png", "grey.png") if field == "mask" else ("gone.png", "text.png"):
            wrong = [masked[1] | {field: f"DOE^JANE/{name}"}, *(row for row in masked if row != masked[1])]
            said = refusal(segmentation(write_csv(tmp_path / "m.csv", wrong)))
            assert "DOE" not in said and f", line 2: {field} " in said
    for field in ("quality", "split"):
        said = refusal(task(write_csv(tmp_path / "m.csv", [rows[0] | {field: "DOE^JANE"}, *rows[1:]])))
        assert "DOE" not in said and f", line 2: {field} " in said


# EXIF orientation

_TURNS = {  # EXIF orientation: how the picture looks, from how it is stored (EXIF 2.3, table 6)
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.transpose(np.rot90(a, 2)),
    8: np.rot90,
}


def stored_for(look, orientation):
    """The pixels that look like `look` when shown with that orientation."""
    number = np.arange(look.size).reshape(look.shape if orientation < 5 else look.shape[::-1])
    stored = np.empty(look.size, look.dtype)
    stored[_TURNS[orientation](number).ravel()] = look.ravel()
    return stored.reshape(number.shape)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_and_masks_are_rotated_as_their_exif_states(tmp_path, rows, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    look = np.kron(noise(4, 8, 3), np.ones((8, 8), np.uint8))  # 32 x 64, flat blocks that JPEG keeps
    mask = (look > 100).astype(np.uint8)
    Image.fromarray(stored_for(look, orientation)).save(tmp_path / f"e.{ending}", exif=exif, quality=100)
    Image.fromarray(stored_for(mask, orientation)).save(tmp_path / "e_mask.png", exif=exif)
    row = {"image": f"e.{ending}", "mask": "e_mask.png", "patient": "p9", "split": "train"}
    table = read(segmentation(write_csv(tmp_path / "m.csv", [*with_masks(rows), row])))
    image = np.frombuffer(table["image"][6].as_py(), np.uint8).reshape(32, 64).astype(int)
    assert np.abs(image - look).max() <= 2
    assert table["mask"][6].as_py() == mask.tobytes()  # of the recipe's size already


@pytest.mark.parametrize("broken", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0rubbish", b""])
def test_unreadable_exif_rotates_nothing(tmp_path, rows, broken):
    Image.fromarray(noise(32, 64, 3)).save(tmp_path / "e.png", exif=broken)
    row = {"image": "e.png", "quality": "1", "patient": "p9", "split": "train"}
    table = read(task(write_csv(tmp_path / "m.csv", [*rows, row])))
    assert table["image"][6].as_py() == noise(32, 64, 3).tobytes()


# Ambiguous masks


def masked_with(tmp_path, rows, content, *classes):
    (tmp_path / "0_mask.png").write_bytes(content) if isinstance(content, bytes) else content.save(
        tmp_path / "0_mask.png"
    )
    return segmentation(write_csv(tmp_path / "m.csv", with_masks(rows)), *classes)


def palette(indices, *colours):
    image = Image.fromarray(indices)
    image.putpalette([level for colour in colours for level in colour])
    return image


WHITE = np.full_like(HALF, 255)
AMBIGUOUS = {
    "white RGBA": Image.fromarray(np.dstack([WHITE] * 3 + [255 * HALF])),
    "black RGBA": Image.fromarray(np.dstack([0 * HALF] * 3 + [255 * HALF])),
    "colours and alpha differ": Image.fromarray(np.dstack([np.fliplr(255 * HALF)] * 3 + [255 * HALF])),
    "half transparent": Image.fromarray(np.dstack([255 * HALF] * 3 + [WHITE // 2])),
    "LA": Image.fromarray(np.dstack([WHITE, 255 * HALF])),
    "16 bits and alpha": png([struct.pack(">128H", *[1, 65535] * 64)] * 64, 16, 4),
    "16 bits of colour": png([struct.pack(">192H", *[1] * 192)] * 64, 16, 2),  # Pillow would return 0
    "palette of swapped greys": palette(1 - HALF, (255, 255, 255), (0, 0, 0)),
    "palette without its greys": palette(HALF, (0, 0, 0), (2, 2, 2)),
    "palette with black last": palette(1 - HALF, (255, 0, 0), (0, 0, 0)),
    "colours": Image.fromarray(np.dstack([255 * HALF, 0 * HALF, 0 * HALF])),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_mask_is_refused(tmp_path, rows, name):
    said = refusal(masked_with(tmp_path, rows, AMBIGUOUS[name]))
    assert ", line 2: mask " in said


def test_a_transparent_grey_is_refused(tmp_path, rows):
    Image.fromarray(255 * HALF).save(tmp_path / "t.png", transparency=0)
    assert "transparent" in refusal(masked_with(tmp_path, rows, (tmp_path / "t.png").read_bytes()))


UNAMBIGUOUS = {
    "opaque RGBA": Image.fromarray(np.dstack([HALF] * 3 + [WHITE])),
    "opaque LA": Image.fromarray(np.dstack([255 * HALF, WHITE])),
    "grey RGB": Image.fromarray(np.dstack([255 * HALF] * 3)),
    "1 bit": Image.fromarray(HALF.astype(bool)),
    "2 bits": png([bytes([0x55] * 16 if row >= 32 else [0] * 16) for row in range(64)], 2, 0),
    "2 bits in white": png([bytes([0xFF] * 16 if row >= 32 else [0] * 16) for row in range(64)], 2, 0),
    "4 bits": png([bytes([0x11] * 32 if row >= 32 else [0] * 32) for row in range(64)], 4, 0),
    "16 bits": Image.fromarray(HALF.astype(np.uint16)),
    "16 bits in white": Image.fromarray(HALF.astype(np.uint16) * 65535),
    "palette of colours": palette(HALF, (0, 0, 0), (128, 0, 0)),
    "palette of black and white": palette(HALF, (0, 0, 0), (255, 255, 255)),
    "palette that is grey": palette(255 * HALF, *((level,) * 3 for level in range(256))),
}


@pytest.mark.parametrize("name", UNAMBIGUOUS)
def test_an_unambiguous_mask_is_read(tmp_path, rows, name):
    mask = np.frombuffer(read(masked_with(tmp_path, rows, UNAMBIGUOUS[name]))["mask"][0].as_py(), np.uint8)
    expected = np.repeat(np.array([0, 1], np.uint8), 16)[:, None] * np.ones((1, 64), np.uint8)
    assert np.array_equal(mask.reshape(32, 64), expected)


def test_one_bit_of_three_classes_is_the_class_of_that_number(tmp_path, rows):
    table = read(masked_with(tmp_path, rows, Image.fromarray(HALF.astype(bool)), "liver", "kidney"))
    assert set(table["mask"][0].as_py()) == {0, 1}


# Values between the classes


def blended():
    steps = np.zeros((64, 64), np.uint8)
    steps[:, 20:] = np.clip((np.arange(44) * 8), 0, 255)[None]
    return Image.fromarray(steps)


@pytest.mark.parametrize(
    ("image", "classes", "says"),
    [
        (blended(), (), ("8, 16, 24, 32, 40 and 26 more", "0 to 1 (or 0 and 255 alone)", "blended")),
        (Image.fromarray(128 * HALF), (), (" 128;", "0 to 1 ", "0 to 255")),
        (Image.fromarray(255 * HALF), ("liver", "kidney"), (" 255;", "0 to 2.", "white")),
        (Image.fromarray(3 * HALF), ("liver", "kidney"), (" 3;", "0 to 2.", "too few classes")),
        (Image.fromarray(np.where(HALF == 1, np.eye(64) * 254 + 1, 0).astype(np.uint8)), (), ("0, 1, 255;", "blended")),
    ],
)
def test_invalid_values_are_named_with_the_allowed_ones_and_a_probable_cause(
    tmp_path,
    rows,
    image,
    classes,
    says,
):
    said = refusal(masked_with(tmp_path, rows, image, *classes))
    assert ", line 2: mask " in said
    for part in says:
        assert part in said


# Pictures that are too large


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path):
    side = 13_300
    Image.new("L", (side, side)).save(tmp_path / "large.png", compress_level=1)
    before = psutil.Process().memory_info().rss
    assert side * side > MAX_PIXELS
    read_of = read_labelled_mask(str(tmp_path / "large.png"))
    assert isinstance(read_of, Rejection) and read_of.reason is Reason.OVER_LIMITS
    assert psutil.Process().memory_info().rss - before < 20e6


def test_a_mask_that_exhausts_its_reader_is_refused(tmp_path, rows):
    texts = PngInfo()
    for number in range(100):
        texts.add_text(f"k{number}", "0" * 1_000_000, zip=True)  # a hundred megabytes from a hundred kilobytes
    Image.fromarray(HALF).save(tmp_path / "texts.png", pnginfo=texts)
    said = refusal(masked_with(tmp_path, rows, (tmp_path / "texts.png").read_bytes()))
    assert ", line 2: mask " in said
