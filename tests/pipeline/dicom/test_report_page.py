"""Report pages are rejected and images are not, regardless of their header; pages and tissue are drawn here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageDraw
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.crop_sheet import FrameSource, crop_previews, uncropped_with_text
from pipeline.archive.listing import locate
from pipeline.dicom.crop import crop_region_of_frame, whole_frame_region
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Reason, Rejection
from pipeline.dicom.report_page import is_report_page
from pipeline.images.cache import CroppedImage
from pipeline.prediction.new_images import FlaggedFrame, NewImageReader
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from tests.pipeline.archive.pages import POLARITIES, TEMPLATES, as_stored, report_page
from tests.pipeline.archive.real import shared_data
from tests.pipeline.archive.synthetic import KEY, index_folder, read_frames, write_dicom
from tests.pipeline.prediction.conftest import region

PAGES = range(1000, 1090)
CAPTURED = {
    "SOPClassUID": SecondaryCaptureImageStorage,
    "ImageType": ["DERIVED", "SECONDARY"],
    "ConversionType": "WSD",
    "BurnedInAnnotation": "YES",
}


def grey_of(rgb):
    return np.asarray(Picture.fromarray(rgb).convert("L"))


def echoes(seed=0, size_HW=(480, 640), box=(60, 440, 120, 520), level=90):
    """Smoothed noise in a box on black, a name above."""
    grain = np.random.default_rng(seed).normal(size=size_HW)
    grain = sum(np.roll(grain, by, 1) + np.roll(grain, by, 0) for by in range(3)) / 6
    frame = np.zeros(size_HW, np.uint8)
    top, bottom, left, right = box
    frame[top:bottom, left:right] = np.clip(level * (1 + 0.8 * grain), 5, 255)[top:bottom, left:right]
    picture = Picture.fromarray(frame)
    ImageDraw.Draw(picture).text((8, 4), "DOE^JANE  1964-08-12", fill=255, font_size=20)
    return np.asarray(picture)


def outcome(folder, pixels, b_mode_only=True, **fields):
    """What the reader makes of one file: how it was cut, or why it was left out."""
    write_dicom(folder / "x.dcm", pixels, **fields)
    (found,) = read_frames(folder / "x.dcm", (0,), 64, 96, b_mode_only)
    return found.cropped_by if isinstance(found, CroppedImage) else found.reason


@pytest.mark.integration
def test_of_ninety_pages_of_ten_templates_nearly_all_are_caught_by_their_pixels_alone():
    caught = {}
    for seed in PAGES:
        grey = grey_of(as_stored(report_page(seed), seed))
        caught.setdefault(TEMPLATES[seed % len(TEMPLATES)], []).append(
            is_report_page(grey, crop_region_of_frame(grey, (), None), False)
        )
    shares = {template: np.mean(each) for template, each in caught.items()}
    print(f"caught {np.mean(list(shares.values())):.3f} of {len(PAGES)} pages: {shares}")
    assert len(shares) == len(TEMPLATES)
    assert min(shares.values()) >= 0.8
    assert np.mean(list(shares.values())) >= 0.97


def scanned(grey, grain):
    """As a scanner leaves paper: a little dark, and grainy."""
    noise = np.random.default_rng(0).normal(0, grain, grey.shape)
    return np.clip(20 + grey * 0.88 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("grain", [0, 3, 5, 8])
def test_pages_on_grainy_paper_are_pages(grain):
    on_white = [seed for seed in PAGES if POLARITIES[(seed // 2) % len(POLARITIES)][0] == "white"]
    frames = [scanned(grey_of(report_page(seed)), grain) for seed in on_white]
    caught = [is_report_page(grey, crop_region_of_frame(grey, (), None), True) for grey in frames]
    assert len(caught) > 10
    assert np.mean(caught) >= 0.9


def test_bright_grain_without_writing_is_no_page():
    grain = np.random.default_rng(0).normal(200, 12, (480, 640)).clip(0, 255).astype(np.uint8)
    assert not is_report_page(grain, whole_frame_region(grain, None), True)


@pytest.mark.parametrize("seed", range(len(TEMPLATES)), ids=TEMPLATES)
def test_a_page_in_a_file_is_rejected_as_a_page_in_colour_and_in_grey(tmp_path, seed):
    page = report_page(seed)
    assert outcome(tmp_path, page) == outcome(tmp_path, grey_of(page), **CAPTURED) == Reason.REPORT_PAGE
    assert outcome(tmp_path, page, b_mode_only=False) == Reason.REPORT_PAGE
    (flag,) = NewImageReader(64, 96, ("US",), True, 1, False)(str(tmp_path / "x.dcm")).images
    assert isinstance(flag, FlaggedFrame)
    assert flag.why.reason == Reason.REPORT_PAGE


def test_a_region_that_a_page_states_does_not_make_it_an_image(tmp_path):
    for x1, y1 in ((640, 480), (600, 400)):
        stated = region()
        stated.RegionLocationMaxX1, stated.RegionLocationMaxY1 = x1 - 1, y1 - 1
        found = outcome(tmp_path, grey_of(report_page(0)), SequenceOfUltrasoundRegions=[stated])
        assert found == Reason.REPORT_PAGE


@pytest.mark.parametrize(
    "fields", [{}, CAPTURED, {"BurnedInAnnotation": "YES"}], ids=["scanner", "captured", "burned in"]
)
@pytest.mark.parametrize("level", [20, 90])
def test_tissue_is_no_report_page_regardless_of_the_header(tmp_path, fields, level):
    assert outcome(tmp_path, echoes(level=level), **fields) == "detected"
    assert outcome(tmp_path, echoes(level=level)[60:440, 120:520], **fields) == "whole"


@pytest.mark.parametrize("of_page", [0, 2])
def test_a_page_in_a_cine_is_lost_alone_and_does_not_affect_the_crop_region(tmp_path, of_page):
    frames = [echoes(1), echoes(2), echoes(3)]
    page = grey_of(report_page(0))
    frames[of_page] = np.asarray(Picture.fromarray(page).resize((640, 480)))
    write_dicom(tmp_path / "x.dcm", np.stack(frames))
    found = read_frames(tmp_path / "x.dcm", (0, 1, 2), 64, 96)
    assert [isinstance(each, Rejection) for each in found] == [number == of_page for number in range(3)]
    assert {each.cropped_by for each in found if isinstance(each, CroppedImage)} == {"detected"}


def test_a_cine_of_pages_alone_is_rejected_frame_by_frame(tmp_path):
    page = grey_of(report_page(0))
    write_dicom(tmp_path / "x.dcm", np.stack([page, page]))
    found = read_frames(tmp_path / "x.dcm", (0, 1), 64, 96)
    assert [each.reason for each in found] == [Reason.REPORT_PAGE] * 2


def test_of_other_modalities_only_captured_pages_are_left_out(tmp_path):
    page = grey_of(report_page(0))
    assert outcome(tmp_path, page, Modality="CT", SOPClassUID=CTImageStorage) == "whole"
    assert outcome(tmp_path, page, Modality="CT", **CAPTURED) == Reason.REPORT_PAGE
    assert outcome(tmp_path, echoes(), Modality="CT", **CAPTURED) == "whole"


@pytest.mark.parametrize(
    "frame", [np.zeros((480, 640), np.uint8), np.full((480, 640), 90, np.uint8)], ids=["black", "grey"]
)
def test_a_frame_without_anything_written_is_no_page(frame):
    assert not is_report_page(frame, whole_frame_region(frame, None), True)


@pytest.mark.parametrize("shape_HW", [(1, 1), (3, 700), (127, 127), (128, 5), (480, 641)], ids=str)
def test_pages_of_any_size_are_detected(shape_HW):
    noise = np.random.default_rng(0).integers(0, 256, shape_HW, dtype=np.uint8)
    assert not is_report_page(noise, whole_frame_region(noise, None), True)


@pytest.mark.parametrize("source", ["LUNG", "NERVE", "FETAL"])
def test_no_frame_of_a_public_source_is_taken_for_a_page(source):
    paths = sorted(path for path in (shared_data() / "real_archive" / source).rglob("*") if path.is_file())[::5]
    lost = 0
    for path in paths:
        with path.open("rb") as file:
            grey = PixelFile.open(file).frame(0).grey
        lost += is_report_page(grey, crop_region_of_frame(grey, (), None), True)
    print(f"{source}: {lost} of {len(paths)} lost")
    assert paths and lost == 0


def test_images_kept_whole_that_state_burned_in_text_are_named_and_not_shown(tmp_path):
    archive = tmp_path / "archive"
    tissue = {"seed": 5, "size_HW": (240, 320), "box": (0, 240, 0, 320)}
    for number, stated in enumerate(["YES", "NO", None]):
        pixels = echoes(**(tissue | {"seed": number}))
        write_dicom(archive / f"whole{number}", pixels, PatientID=f"P{number}", BurnedInAnnotation=stated)
    write_dicom(archive / "cut", echoes(9), PatientID="P9", BurnedInAnnotation="YES")
    index = index_folder(archive, tmp_path / "private")
    private = tmp_path / "private"

    cache = build_cache(
        index.records, str(archive), private, KEY, tmp_path / "images", Images(height=64, width=96), Archive()
    )
    assert sorted(cache.images["cropped_by"].to_pylist()) == ["detected", "whole", "whole", "whole"]
    files = uncropped_with_text(cache.images, index.records)
    assert [Path(locate(private, file)).name for file in files] == ["whole0"]
    shown = crop_previews(cache.images, FrameSource(index.records, str(archive), private, 1), 24)
    assert len(shown) == 3
    assert files[0] not in {pair.caption for pair in shown}
