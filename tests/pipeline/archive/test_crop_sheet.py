import numpy as np
from numpy.random import default_rng
from PIL import Image, ImageDraw, ImageFont

from pipeline.archive.crop_sheet import MAX_PREVIEWS, MOSAIC, CropPreview, crop_sheet
from pipeline.dicom.crop import CropRegion, crop_frame

BOX = CropRegion(60, 220, 80, 240, None, "regions", None, None)


def written() -> np.ndarray:
    """A frame of 240 x 320: text above, noise within the area."""
    canvas = Image.new("L", (320, 240))
    ImageDraw.Draw(canvas).text((4, 4), "MUSTERMANN^ERIKA 1964-08-12", fill=255, font=ImageFont.load_default(16))
    grey = np.array(canvas)
    grey[60:220, 80:240] = default_rng(0).integers(0, 256, (160, 160))
    return grey


def drawn(pair: CropPreview, tmp_path) -> np.ndarray:
    crop_sheet([pair], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("L"))


def test_what_is_written_outside_the_area_cannot_be_read(tmp_path):
    grey = written()
    sheet = drawn(CropPreview(grey, BOX, crop_frame(grey, BOX), "f1"), tmp_path)
    banner = sheet[2:40, 2:218].astype(float)  # the tile is 216 wide: 0.675 of the frame
    # Strokes are far narrower than a block of 1/24 of the width (9 pixels here): no neighbouring pixels may differ
    # more often than at the borders of blocks.
    edges = np.abs(np.diff(banner, axis=1)) > 12
    assert edges.any(axis=0).sum() <= 3 * (MOSAIC + 1)
    assert banner.max() < 160
    plain = np.abs(np.diff(np.asarray(Image.fromarray(grey).resize((216, 162)), float)[:38], axis=1)) > 12
    assert plain.any(axis=0).sum() > 100  # as it was, it could be read


def test_frames_that_differ_outside_the_area_within_blocks_alone_give_the_same_sheet(tmp_path):
    rng = default_rng(2)
    inside = np.zeros((160, 160), np.bool_)
    inside[40:120, 40:120] = True
    area = CropRegion(40, 200, 40, 200, inside, "detected", None, None)
    kept = np.zeros((240, 240), np.bool_)
    kept[80:160, 80:160] = True
    first = rng.integers(0, 256, (240, 240), dtype=np.uint8)
    second = first.copy()
    side = 240 // MOSAIC
    for top in range(0, 240, side):
        for left in range(0, 240, side):
            here = np.s_[top : top + side, left : left + side]
            if not kept[here].any():
                second[here] = rng.permutation(first[here].ravel()).reshape(side, side)
    assert not np.array_equal(first, second)
    sheets = [
        drawn(CropPreview(frame, area, crop_frame(frame, area), "f1"), tmp_path).astype(int)
        for frame in (first, second)
    ]
    assert np.abs(sheets[0] - sheets[1]).max() <= 2  # the averages are rounded twice


def test_the_kept_area_is_shown_as_it_is(tmp_path):
    grey = np.zeros((216, 216), np.uint8)
    grey[50:150, 50:150] = default_rng(1).integers(0, 256, (100, 100))
    area = CropRegion(50, 150, 50, 150, None, "detected", None, None)
    sheet = drawn(CropPreview(grey, area, crop_frame(grey, area), "f1"), tmp_path)
    assert np.array_equal(sheet[52:152, 52:152], grey[50:150, 50:150])  # tiles begin at pixel 2
    assert np.array_equal(sheet[2:102, 222:322], grey[50:150, 50:150])


def test_a_sheet_holds_24_pairs_and_leaves_out_further_ones(tmp_path):
    pair = CropPreview(written(), BOX, crop_frame(written(), BOX), "0123456789abcdef")
    sizes = []
    for count in (0, 1, MAX_PREVIEWS, MAX_PREVIEWS + 10):
        crop_sheet([pair] * count, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            sizes.append(sheet.size)
    assert sizes[2] == sizes[3] == (sizes[0][0], 12 * sizes[0][1])


def test_frames_of_any_shape_are_drawn(tmp_path):
    for shape in ((1, 1), (2, 900), (900, 2), (5, 7)):
        grey = np.full(shape, 9, np.uint8)
        crop_sheet(
            [CropPreview(grey, CropRegion(0, *shape[:1], 0, shape[1], None, "whole", None, None), grey, "f")],
            tmp_path / "s.png",
        )
