"""All selected frames of a cine determine one crop region; the expected one is the box that the tissue is drawn in."""

import numpy as np
import pytest

from pipeline.archive.crop_sheet import read_preview
from pipeline.dicom import cine as cine_module
from pipeline.dicom.cine import Cine
from pipeline.dicom.pixel_file import PixelFile
from pipeline.images.cache import CroppedImage
from pipeline.prediction.new_images import NewImage, NewImageReader
from tests.pipeline.archive.synthetic import read_frames, write_dicom

TOP, BOTTOM, LEFT, RIGHT = 40, 200, 64, 256
BLOCK = 3  # pixels of 320 / 128: detection is as fine as that


def tissue(seed, top=TOP, bottom=BOTTOM, left=LEFT, right=RIGHT, size_HW=(240, 320)):
    """Smoothed noise within a box on black."""
    grain = np.random.default_rng(seed).normal(size=size_HW)
    grain = (grain + np.roll(grain, 1, 1) + np.roll(grain, 1, 0)) / 3
    frame = np.zeros(size_HW, np.uint8)
    frame[top:bottom, left:right] = np.clip(100 + 40 * grain, 5, 255)[top:bottom, left:right]
    return frame


def crop_of(folder, frames):
    path = write_dicom(folder / "cine.dcm", np.stack(frames))
    with path.open("rb") as file:
        return Cine(PixelFile.open(file), tuple(range(len(frames)))).crop_region()


def box(crop):
    return crop.top, crop.bottom, crop.left, crop.right


DARK_BELOW = {"bottom": 90}
BLACK = np.zeros((240, 320), np.uint8)


@pytest.mark.parametrize(
    "frames",
    [
        [tissue(0, **DARK_BELOW), tissue(1), tissue(2), tissue(3)],
        [tissue(0), tissue(1), tissue(2), tissue(3, **DARK_BELOW)],
        [tissue(n, **DARK_BELOW) for n in range(3)] + [tissue(3)],
        [tissue(0, right=160), tissue(1, left=160)],
        [BLACK, tissue(1)],
        [tissue(0), np.full_like(BLACK, 255)],
    ],
    ids=["first dark below", "last dark below", "all but one dark below", "half each", "first black", "one white"],
)
def test_all_frames_together_determine_the_crop_region(tmp_path, frames):
    crop = crop_of(tmp_path, frames)
    assert crop.found_by == "detected"
    assert np.abs(np.subtract(box(crop), (TOP, BOTTOM, LEFT, RIGHT))).max() <= BLOCK


def test_one_frame_full_of_tissue_keeps_all_of_every_frame(tmp_path):
    full = {"top": 0, "bottom": 240, "left": 0, "right": 320}
    crop = crop_of(tmp_path, [tissue(0, **full | {"bottom": 100}), tissue(1, **full)])
    assert (crop.found_by, box(crop)) == ("whole", (0, 240, 0, 320))


@pytest.mark.parametrize("held", [2**28, 0])
def test_images_of_a_cine_are_cropped_alike_whether_its_frames_fit_into_memory_or_not(tmp_path, monkeypatch, held):
    monkeypatch.setattr(cine_module, "MAX_CACHED_BYTES", held)
    frames = [tissue(0, **DARK_BELOW), tissue(1), tissue(2)]
    write_dicom(tmp_path / "cine.dcm", np.stack(frames))
    write_dicom(tmp_path / "alone.dcm", frames[1])
    cine = read_frames(tmp_path / "cine.dcm", (0, 1, 2), 60, 80)
    alone = read_frames(tmp_path / "alone.dcm", (0,), 60, 80)
    assert all(isinstance(image, CroppedImage) and image.cropped_by == "detected" for image in cine)
    assert np.abs(cine[1].pixels.astype(int) - alone[0].pixels).mean() < 8
    assert cine[0].pixels[32:].mean() < 1
    assert cine[0].pixels[:15].mean() > 20


def test_prediction_and_crop_sheet_crop_a_cine_as_the_cache_does(tmp_path):
    write_dicom(tmp_path / "cine.dcm", np.stack([tissue(0, **DARK_BELOW), tissue(1), tissue(2)]))
    made = read_frames(tmp_path / "cine.dcm", (0, 1, 2), 60, 80)
    new = NewImageReader(60, 80, ("US",), True, 3, False)(str(tmp_path / "cine.dcm")).images
    assert all(isinstance(image, NewImage) for image in new)
    assert [image.pixels.tobytes() for image in new] == [image.pixels.tobytes() for image in made]
    pair = read_preview(str(tmp_path), 3, ("f", b"cine.dcm", 3, 0))
    assert box(pair.crop) == box(new[0].crop) and np.array_equal(pair.before_HW, tissue(0, **DARK_BELOW))
