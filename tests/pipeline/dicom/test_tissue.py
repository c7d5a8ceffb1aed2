import io
import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from numpy.random import default_rng
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread

from pipeline.dicom.colour_flow import has_colour_flow
from pipeline.dicom.crop import CropRegion, crop_frame, crop_region_of_frame
from pipeline.dicom.regions import UltrasoundRegion
from pipeline.dicom.rejections import Reason, Rejected
from pipeline.phantom.anatomy import Scene, Tissue
from pipeline.phantom.scanner import (
    AIXPLORER_LIKE,
    CURVILINEAR,
    LINEAR_HIGH,
    LINEAR_LOW,
    LOGIQ_LIKE,
    THIRD,
    Setup,
    picture,
)
from pipeline.phantom.settings import Phantom
from pipeline.phantom.studies import clinic, write_image
from tests.pipeline.archive.real import shared_data

HEIGHT, WIDTH = 480, 640
B_MODE = UltrasoundRegion(1, 1, 2, 100, 60, 499, 419, 3, 3, 0.02, 0.03)
SPECTRUM = replace(B_MODE, spatial_format=3, data_type=3, y0=421, y1=470, units_x=4, units_y=7)
SHAPES = ("sector", "curved sector", "phased array", "rectangle", "steered rectangle")


def inside_of(shape: str) -> npt.NDArray[np.bool_]:
    """Where beams of a known geometry go, by the inequalities that define it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    if shape == "rectangle":
        return (x >= 170) & (x < 470) & (y >= 60) & (y < 400)
    if shape == "steered rectangle":
        return (x >= 200 - (y - 60) / 4) & (x < 440 + (y - 60) / 4) & (y >= 60) & (y < 380)
    apex, half, near, far = {
        "sector": (-40, np.radians(30), 110, 480),
        "curved sector": (-120, np.radians(28), 200, 520),
        "phased array": (50, np.radians(42), 0, 390),
    }[shape]
    radius, angle = np.hypot(x - 320, y - apex), np.arctan2(x - 320, y - apex)
    return (np.abs(angle) <= half) & (radius >= near) & (radius <= far) & (y >= 40)


def speckle(inside: npt.NDArray[np.bool_], seed: int = 0) -> npt.NDArray[np.uint8]:
    """Compressed Rayleigh speckle, darker with depth, within the beams; black elsewhere."""
    coarse = default_rng(seed).rayleigh(1, (HEIGHT // 2, WIDTH // 2))
    grain = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    grey = 90 + 45 * np.log(grain + 0.05) - np.arange(HEIGHT)[:, None] / 20
    return np.where(inside, np.clip(grey, 5, 255), 0).astype(np.uint8)


def overlay() -> npt.NDArray[np.uint8]:
    """What a scanner writes around the image: a name, settings, a grey bar, a ruler, a logo."""
    canvas = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(canvas)
    big, small = ImageFont.load_default(20), ImageFont.load_default(12)
    draw.text((8, 2), "MUSTERMANN^ERIKA  1964-08-12", fill=220, font=big)
    draw.text((400, 6), "C5-1  15.0 cm  MI 1.1", fill=180, font=small)
    for line in range(7):
        draw.text((6, 60 + 16 * line), f"Gn {50 + line} FR", fill=170, font=small)
    draw.text((240, 456), "LIVER RIGHT", fill=200, font=big)
    canvas.paste(Image.fromarray(np.linspace(255, 0, 160).astype(np.uint8)[:, None].repeat(12, 1)), (8, 220))
    for tick in range(12):
        draw.line((628, 60 + 30 * tick, 636, 60 + 30 * tick), fill=200)
    draw.ellipse((600, 4, 632, 30), fill=210)
    return np.array(canvas)


def as_jpeg(grey: npt.NDArray[np.uint8], quality: int = 75) -> npt.NDArray[np.uint8]:
    packed = io.BytesIO()
    Image.fromarray(grey).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed))


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def kept(area: CropRegion, shape_HW: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The area as a mask of the whole frame."""
    mask = np.zeros(shape_HW, np.bool_)
    mask[area.top : area.bottom, area.left : area.right] = True if area.inside is None else area.inside
    return mask


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Intersection over union of two boxes (top, bottom, left, right)."""
    height = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    width = max(0, min(one[3], other[3]) - max(one[2], other[2]))
    areas = [(box[1] - box[0]) * (box[3] - box[2]) for box in (one, other)]
    return height * width / (sum(areas) - height * width)


def whole(shape_HW: tuple[int, int] = (HEIGHT, WIDTH)) -> CropRegion:
    return CropRegion(0, shape_HW[0], 0, shape_HW[1], None, "whole", None, None)


# By the pixels


@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_insonated_area_is_kept_and_text_beside_it_is_removed(shape, jpeg):
    inside = inside_of(shape)
    written = np.where(inside, 0, overlay())
    frame = np.maximum(speckle(inside), written)
    area = crop_region_of_frame(as_jpeg(frame) if jpeg else frame, (), None)
    mask = kept(area, frame.shape)
    assert area.found_by == "detected"
    assert overlap((area.top, area.bottom, area.left, area.right), box_of(inside)) >= 0.93
    assert np.count_nonzero(mask & inside) >= 0.98 * np.count_nonzero(inside)
    assert np.count_nonzero(mask & (written > 40)) <= 0.01 * np.count_nonzero(written > 40)


@pytest.mark.parametrize("scanner", [AIXPLORER_LIKE, LOGIQ_LIKE, THIRD])
@pytest.mark.parametrize(
    ("probe", "depth"), [(CURVILINEAR, 150), (CURVILINEAR, 110), (LINEAR_HIGH, 40), (LINEAR_LOW, 60)]
)
def test_the_phantoms_field_of_view_is_found_and_its_marks_are_gone(scanner, probe, depth):
    rng = default_rng(7)
    view = picture(Scene(Tissue.LIVER, ()), Setup(scanner, scanner.random_tuning(rng), probe, float(depth)), rng)
    area = crop_region_of_frame(view.grey, (), None)
    mask, marks = kept(area, view.grey.shape), (view.grey > 40) & ~view.inside
    assert overlap((area.top, area.bottom, area.left, area.right), box_of(view.inside)) >= 0.93
    assert np.count_nonzero(mask & marks) <= 0.01 * np.count_nonzero(marks)
    assert np.count_nonzero(mask & view.inside) >= 0.97 * np.count_nonzero(view.inside)


def test_views_of_the_clinic_with_bladders_ribs_and_needles_keep_their_tissue(tmp_path):
    plans = clinic(Phantom(), 0)
    scores, lost = [], []
    for plan in plans[:: len(plans) // 40]:
        write_image(tmp_path, plan)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        dataset = dcmread(path)
        pixels = dataset.pixel_array[0] if "NumberOfFrames" in dataset else dataset.pixel_array
        if dataset.PhotometricInterpretation != "MONOCHROME2" or "SequenceOfUltrasoundRegions" not in dataset:
            continue
        region = dataset.SequenceOfUltrasoundRegions[0]
        truth = (region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1, region.RegionLocationMinX0)
        box = (*truth, region.RegionLocationMaxX1 + 1)
        area = crop_region_of_frame(pixels, (), None)
        scores.append(overlap((area.top, area.bottom, area.left, area.right), box))
        shown = pixels[box[0] : box[1], box[2] : box[3]] > 60
        cut = shown & ~kept(area, pixels.shape)[box[0] : box[1], box[2] : box[3]]
        lost.append(np.count_nonzero(cut) / np.count_nonzero(shown))
    assert len(scores) > 10
    assert np.median(scores) > 0.95
    assert np.mean(np.array(scores) >= 0.9) > 0.8
    assert np.median(lost) < 0.005


@pytest.mark.parametrize("levels", [(20, 200), (0, 255), (80, 120), (100, 101)], ids=str)
@pytest.mark.parametrize("size_HW", [(240, 320), (480, 640), (768, 1024)], ids=str)
def test_coarse_noise_and_even_fields_are_areas_too_and_a_name_beside_them_is_gone(levels, size_HW):
    height, width = size_HW
    grey = np.zeros(size_HW, np.uint8)
    rows, columns = slice(height // 4, height - 10), slice(width // 16, width - 20)
    grey[rows, columns] = np.random.default_rng(0).integers(*levels, grey[rows, columns].shape, dtype=np.uint8)
    picture = Image.fromarray(grey)
    ImageDraw.Draw(picture).text((8, 4), "SENTINEL NAME 12", fill=255, font_size=height // 14)
    area = crop_region_of_frame(np.asarray(picture), (), None)
    assert area.found_by == "detected"
    edges = np.array([area.top, area.bottom, area.left, area.right])
    assert np.abs(edges - [rows.start, rows.stop, columns.start, columns.stop]).max() <= 2 * width / 128


def test_a_picture_of_a_few_pixels_is_kept_whole():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert crop_region_of_frame(noise, (), None).found_by == "whole"


def test_a_dark_half_is_completed_from_the_other():
    inside = inside_of("curved sector")
    dark = inside & (np.arange(WIDTH) < 250) & (np.arange(HEIGHT)[:, None] > 150)
    frame = np.maximum(np.where(dark, 0, speckle(inside)), np.where(inside, 0, overlay()))
    area = crop_region_of_frame(frame, (), None)
    assert overlap((area.top, area.bottom, area.left, area.right), box_of(inside)) >= 0.93


def test_a_name_in_the_corner_that_would_complete_the_area_stays_out():
    inside = inside_of("curved sector")
    dark = inside & (np.arange(WIDTH) < 250) & (np.arange(HEIGHT)[:, None] > 150)
    canvas = Image.fromarray(np.where(dark, 0, speckle(inside)))
    ImageDraw.Draw(canvas).text((5, 330), "MUSTERMANN^ERIKA", fill=220, font=ImageFont.load_default(20))
    frame = np.array(canvas)
    written = (np.arange(WIDTH) < 190) & (np.arange(HEIGHT)[:, None] > 320) & (frame > 100) & ~(inside & ~dark)
    assert not (kept(crop_region_of_frame(frame, (), None), frame.shape) & written).any()


def test_a_near_field_above_a_full_bladder_and_faint_echoes_below_are_kept():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    near = (y >= 50) & (y < 78) & (x >= 200) & (x < 440)
    deep = (y >= 180) & (y < 330) & (x >= 120) & (x < 520)
    faint = (y >= 390) & (y < 410) & (x >= 280) & (x < 340)
    tissue = speckle(near | deep | faint)
    frame = np.where(faint, tissue // 5 + 6, tissue).astype(np.uint8)
    area = crop_region_of_frame(frame, (), None)
    assert overlap((area.top, area.bottom, area.left, area.right), (50, 410, 120, 520)) >= 0.93
    bright = crop_region_of_frame(np.where(faint & (x % 4 < 2), 220, frame).astype(np.uint8), (), None)
    assert bright.bottom < 350  # the same patch, written


def test_both_halves_of_a_split_screen_are_kept():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (y >= 60) & (y < 400) & (((x >= 40) & (x < 300)) | ((x >= 340) & (x < 600)))
    area = crop_region_of_frame(speckle(inside), (), None)
    assert overlap((area.top, area.bottom, area.left, area.right), (60, 400, 40, 600)) >= 0.93


def test_a_grey_screen_around_a_black_window_is_no_tissue():
    inside = inside_of("sector")
    window = (np.arange(WIDTH) > 60) & (np.arange(WIDTH) < 580) & (np.arange(HEIGHT)[:, None] > 30)
    frame = np.where(inside, speckle(inside), np.where(window, 0, 45)).astype(np.uint8)
    area = crop_region_of_frame(frame, (), None)
    assert area.found_by == "detected"
    assert overlap((area.top, area.bottom, area.left, area.right), box_of(inside)) >= 0.93


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.full((HEIGHT, WIDTH), 255, np.uint8),
        default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8),
        overlay(),
        speckle(np.ones((HEIGHT, WIDTH), np.bool_)),
        np.minimum(speckle(inside_of("sector")), 2),
        np.where(np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - 240)) < 40, speckle(np.ones((HEIGHT, WIDTH), bool)), 0),
        np.where(inside_of("rectangle"), speckle(inside_of("rectangle")), default_rng(0).integers(0, 256, (480, 640))),
        np.kron(np.diag([1, 0, 0, 0, 0, 0, 0, 1]), np.ones((60, 80))) * speckle(np.ones((HEIGHT, WIDTH), bool)),
        np.zeros((1, 1), np.uint8),
        np.full((3, 700), 9, np.uint8),
        default_rng(0).integers(0, 256, (2, 2), dtype=np.uint8),
    ],
    ids=[
        "black",
        "white",
        "noise",
        "text",
        "cropped",
        "dark",
        "small",
        "mostly noise",
        "two corners",
        "pixel",
        "strip",
        "four pixels",
    ],
)
def test_in_doubt_the_whole_frame_is_kept(frame):
    frame = frame.astype(np.uint8)
    area = crop_region_of_frame(frame, (), None)
    assert area == CropRegion(0, frame.shape[0], 0, frame.shape[1], None, "whole", None, None)
    assert np.array_equal(crop_frame(frame, area), frame)


def test_detection_is_quick():
    frame = np.maximum(speckle(inside_of("sector")), overlay())
    times = []
    for _ in range(15):
        started = time.perf_counter()
        crop_region_of_frame(frame, (), None)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.010  # 2.3 ms on a quiet machine


@pytest.mark.parametrize("source", ["ABDOMEN", "BREAST", "FETAL", "LUNG", "MUSCLE", "NERVE", "THYCINE"])
def test_frames_of_public_sources_lose_next_to_nothing_that_is_lit(source):
    paths = sorted(path for path in (shared_data() / "real_archive" / source).rglob("*") if path.is_file())
    for path in paths[:: len(paths) // 12]:
        grey = dcmread(path).pixel_array
        outside = ~kept(crop_region_of_frame(grey, (), None), grey.shape)
        # Rulers, grey bars and text are 5 % of what is lit in the sources that have them.
        assert np.count_nonzero(grey[outside] > 12) <= 0.07 * np.count_nonzero(grey > 12)


# By the regions


def grey() -> npt.NDArray[np.uint8]:
    return speckle(np.ones((HEIGHT, WIDTH), np.bool_))


def test_a_tissue_region_is_cut_out_with_its_spacing_in_millimetres():
    area = crop_region_of_frame(grey(), (B_MODE,), (9.0, 9.0))
    assert (area.top, area.bottom, area.left, area.right, area.inside) == (60, 420, 100, 500, None)
    assert area.found_by == "regions"
    assert (area.row_spacing_mm, area.column_spacing_mm) == (pytest.approx(0.3), pytest.approx(0.2))
    assert np.array_equal(crop_frame(grey(), area), grey()[60:420, 100:500])


def test_two_tissue_regions_are_kept_in_one_box_with_black_between():
    left, right = replace(B_MODE, x0=20, x1=199), replace(B_MODE, x0=300, x1=599, y1=300)
    area = crop_region_of_frame(grey(), (left, right), None)
    cut = crop_frame(grey(), area)
    assert (area.top, area.bottom, area.left, area.right) == (60, 420, 20, 600)
    assert np.array_equal(cut[:, :180], grey()[60:420, 20:200])
    assert np.array_equal(cut[:241, 280:], grey()[60:301, 300:600])
    assert not cut[:, 180:280].any()
    assert not cut[241:, 280:].any()


@pytest.mark.parametrize(
    "region",
    [
        replace(B_MODE, spatial_format=0),
        replace(B_MODE, spatial_format=None),
        replace(B_MODE, data_type=0),
        replace(B_MODE, data_type=None),
        replace(B_MODE, flags=None),
    ],
)
def test_tissue_regions_without_format_or_type_are_recognised_by_units(region):
    assert crop_region_of_frame(grey(), (region,), None).found_by == "regions"


@pytest.mark.parametrize(
    "region",
    [
        replace(B_MODE, x0=900, x1=1200),
        replace(B_MODE, x0=499, x1=100),
        replace(B_MODE, x0=None),
        replace(B_MODE, y1=62),
        replace(B_MODE, x0=-(2**31), x1=2**32 - 1, y0=-(2**31), y1=2**32 - 1),
        replace(B_MODE, x0=0, y0=0, x1=WIDTH - 1, y1=HEIGHT - 1),
        replace(B_MODE, x0=168, y0=62, x1=1190, y1=828),  # of a frame of twice the size
    ],
    ids=["outside", "inverted", "missing", "absurdly small", "huge", "the whole screen", "scaled down"],
)
def test_a_region_that_cannot_be_used_leaves_it_to_the_pixels(region):
    inside = inside_of("sector")
    area = crop_region_of_frame(np.maximum(speckle(inside), np.where(inside, 0, overlay())), (region,), None)
    assert area.found_by == "detected"
    assert overlap((area.top, area.bottom, area.left, area.right), box_of(inside)) >= 0.93


def test_a_region_that_passes_the_edge_is_clipped():
    area = crop_region_of_frame(grey(), (replace(B_MODE, x1=WIDTH, y1=HEIGHT + 40),), None)
    assert (area.bottom, area.right, area.found_by) == (HEIGHT, WIDTH, "regions")


@pytest.mark.parametrize(
    ("regions", "spacing", "expected"),
    [
        ((replace(B_MODE, delta_x=-0.02, delta_y=-0.03),), None, (0.3, 0.2)),
        ((replace(B_MODE, units_x=4),), (0.5, 0.4), (0.5, 0.4)),
        ((replace(B_MODE, delta_x=None),), (0.5, 0.4), (0.5, 0.4)),
        ((replace(B_MODE, delta_x=float("nan")),), (0.5, 0.4), (0.5, 0.4)),
        ((), (0.5, 0.4), (0.5, 0.4)),
        ((), (0.0, 0.4), (None, None)),
        ((), (float("inf"), 0.4), (None, None)),
        ((), None, (None, None)),
    ],
)
def test_spacing_is_the_regions_else_the_files_else_unknown(regions, spacing, expected):
    area = crop_region_of_frame(grey(), regions, spacing)
    assert (area.row_spacing_mm, area.column_spacing_mm) == tuple(
        pytest.approx(side) if side else None for side in expected
    )


@pytest.mark.parametrize(
    "regions",
    [
        (replace(B_MODE, data_type=2),),
        (B_MODE, replace(B_MODE, data_type=2, x0=200, x1=300)),
        (SPECTRUM,),
        (replace(SPECTRUM, data_type=4),),
        (replace(B_MODE, spatial_format=2, units_x=4),),
        (replace(SPECTRUM, spatial_format=4, data_type=6),),
    ],
    ids=["flow", "flow on tissue", "pulsed wave", "continuous wave", "m-mode", "doppler trace"],
)
def test_frames_whose_regions_state_another_mode_than_b_mode_are_rejected(regions):
    with pytest.raises(Rejected) as rejected:
        crop_region_of_frame(grey(), regions, None)
    assert rejected.value.rejection.reason is Reason.NOT_B_MODE


@pytest.mark.parametrize(
    "other",
    [
        SPECTRUM,
        replace(B_MODE, spatial_format=2, y0=421, y1=470),
        replace(B_MODE, data_type=2, x0=510, x1=639),
        replace(B_MODE, spatial_format=4, data_type=10),
        UltrasoundRegion(*[None] * 11),
    ],
    ids=["spectrum below", "m-mode below", "flow beside", "ecg", "nothing readable"],
)
def test_tissue_beside_something_else_is_cut_out_and_kept(other):
    area = crop_region_of_frame(grey(), (other, B_MODE), None)
    assert (area.top, area.bottom, area.left, area.right) == (60, 420, 100, 500)


def test_an_ecg_or_a_grey_bar_alone_does_not_mean_that_there_is_no_tissue():
    ecg, bar = (
        replace(B_MODE, spatial_format=4, data_type=10),
        replace(B_MODE, spatial_format=0, data_type=13, units_x=0),
    )
    assert crop_region_of_frame(speckle(inside_of("sector")), (ecg, bar), None).found_by == "detected"


# Colour


def rgb_of(grey_HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(grey_HW[..., None], 3, axis=-1)


def with_vessel(colours: list[tuple[int, int, int]], radius: int = 30) -> npt.NDArray[np.uint8]:
    """A sector whose vessels, one beside the other, flow in `colours`, brighter and darker."""
    rgb = rgb_of(speckle(inside_of("sector")))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    strength = default_rng(3).uniform(0.6, 1, (HEIGHT, WIDTH))[..., None]
    for number, colour in enumerate(colours):
        vessel = np.hypot(rows - 260, columns - 280 - 80 * number) < radius
        rgb[vessel] = (strength * colour).astype(np.uint8)[vessel]
    return rgb


def in_jpeg(rgb: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    packed = io.BytesIO()
    Image.fromarray(rgb).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed).convert("RGB"))


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize(
    "colours", [[(230, 30, 20), (30, 40, 230)], [(255, 140, 0)], [(60, 220, 230)]], ids=["flow", "power", "cyan"]
)
def test_colour_flow_is_recognised_in_whole_and_reduced_pictures(colours, factor):
    rgb = with_vessel(colours)
    small = np.asarray(Image.fromarray(rgb).reduce(factor))
    assert has_colour_flow(small, whole(), (HEIGHT, WIDTH))
    assert has_colour_flow(in_jpeg(small, 60), whole(), (HEIGHT, WIDTH))


def test_flow_that_fills_most_of_the_tissue_is_no_tint():
    assert has_colour_flow(with_vessel([(255, 140, 0), (255, 120, 0)], radius=120), whole(), (HEIGHT, WIDTH))


@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.85, 0.6), (0.55, 0.75, 1), (1, 0.9, 0.76), (1, 0.75, 0.2)])
def test_one_tint_all_over_is_no_colour_flow(tint):
    rgb = (rgb_of(grey()) * np.array(tint)).astype(np.uint8)
    assert not has_colour_flow(rgb, whole(), (HEIGHT, WIDTH))
    assert not has_colour_flow(in_jpeg(rgb, 40), whole(), (HEIGHT, WIDTH))


def test_a_tint_that_fades_to_white_is_no_colour_flow():
    level = grey().astype(float)[..., None] / 255
    level[200:240] = 1  # a fascia, white as nothing else is
    rgb = (255 * level ** np.array([0.5, 1.2, 3.0])).astype(np.uint8)
    assert not has_colour_flow(rgb, whole(), (HEIGHT, WIDTH))


def test_colour_flow_on_a_tinted_map_is_recognised():
    rgb = with_vessel([(30, 40, 230)])
    sepia = (rgb * np.array([1, 0.85, 0.6])).astype(np.uint8)
    flow = (rgb[..., 2] > rgb[..., 0])[..., None]
    assert has_colour_flow(np.where(flow, rgb, sepia), whole(), (HEIGHT, WIDTH))


def test_colour_outside_the_crop_region_does_not_count():
    inside = inside_of("sector")
    rgb = rgb_of(speckle(inside))
    rgb[:40, :] = (20, 60, 220)
    rgb[100:300, 5:60] = (255, 200, 0)
    rgb[300:460, 600:] = (0, 230, 0)
    area = crop_region_of_frame(speckle(inside), (), None)
    assert not has_colour_flow(rgb, area, (HEIGHT, WIDTH))
    assert has_colour_flow(rgb, whole(), (HEIGHT, WIDTH))


def test_thin_calipers_and_letters_on_the_tissue_are_no_flow():
    canvas = Image.fromarray(rgb_of(speckle(inside_of("sector"))))
    draw = ImageDraw.Draw(canvas)
    draw.line((200, 200, 420, 330), fill=(255, 255, 0), width=2)
    draw.rectangle((220, 180, 420, 380), outline=(0, 255, 80))
    for row in range(160, 420, 30):  # thicker, and more than 1 % of the bright pixels
        draw.line((240, row, 400, row), fill=(0, 255, 80), width=4)
    draw.text((240, 300), "1.06 cm", fill=(255, 220, 0), font=ImageFont.load_default(14))
    assert not has_colour_flow(np.array(canvas), whole(), (HEIGHT, WIDTH))


def test_a_highlighted_row_on_a_nearly_black_image_is_no_flow():
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[40:80, 200:300] = 120
    rgb[380:400, 500:540] = (30, 60, 220)
    assert not has_colour_flow(rgb, whole(), (HEIGHT, WIDTH))


@pytest.mark.parametrize("level", [0, 30, 255])
def test_a_frame_without_bright_or_coloured_pixels_has_no_flow(level):
    assert not has_colour_flow(np.full((HEIGHT, WIDTH, 3), level, np.uint8), whole(), (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("dicom-test-files__US1_RLE", True),
        ("pydicom-data__color-pl.dcm", True),
        ("pydicom__examples_ybr_color.dcm", False),
        ("orthanc-tests__2023-04-21-RLEPlanarConfigurationYBR_FULL.dcm", False),
        ("dcm4che__YBR_422.dcm", False),
        ("orthanc-tests__jp2k91YBR-ICT.dcm", False),
    ],
)
def test_real_frames_with_and_without_flow(name, colour):
    dataset = dcmread(shared_data() / "dicom_samples" / "ultrasound" / name)
    rgb = dataset.pixel_array[0] if "NumberOfFrames" in dataset else dataset.pixel_array
    if dataset.PhotometricInterpretation.startswith("YBR_FULL"):
        rgb = np.asarray(Image.fromarray(rgb, "YCbCr").convert("RGB"))
    grey_HW = np.asarray(Image.fromarray(rgb).convert("L"))
    items = dataset.get("SequenceOfUltrasoundRegions") or []
    names = ("RegionSpatialFormat", "RegionDataType", "RegionFlags", "RegionLocationMinX0", "RegionLocationMinY0")
    names += ("RegionLocationMaxX1", "RegionLocationMaxY1", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection")
    names += ("PhysicalDeltaX", "PhysicalDeltaY")
    regions = tuple(UltrasoundRegion(*[item.get(field) for field in names]) for item in items)
    assert has_colour_flow(rgb, crop_region_of_frame(grey_HW, regions, None), grey_HW.shape) is colour
