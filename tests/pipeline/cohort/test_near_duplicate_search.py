"""Near-duplicates: planted variants are found, unrelated frames are not, and the search by cells finds them too."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.cohort import near_duplicate_search
from pipeline.cohort.near_duplicate_score import MIN_SIMILARITY, SIDE, similarity, thumbnails, with_structure
from pipeline.cohort.near_duplicate_search import _nearest_cells, duplicates_between, duplicates_within
from pipeline.dicom.grey import resize_grey

ROWS, COLUMNS = 64, 96


def scene(seed, fan=True):
    """A frame of 240 x 320 as a scanner would draw it: bright near the probe, round structures, speckle, in a fan."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:240, 0:320]
    grey = 90 * np.exp(-y / 180) + 30
    for _ in range(40):
        row, column, size = rng.uniform(0, 240), rng.uniform(20, 300), rng.uniform(5, 30)
        grey += rng.uniform(-110, 110) * np.exp(-(((y - row) ** 2) + (x - column) ** 2) / size**2)
    grey *= 1 + 0.25 * gaussian_filter(rng.standard_normal((240, 320)), 1) * 3
    if fan:
        grey[np.abs(x - 160) > 60 + 0.5 * y] = 0
    return np.clip(grey, 0, 255).astype(np.uint8)


def thumbs(*frames):
    return thumbnails(np.stack([resize_grey(frame, ROWS, COLUMNS) for frame in frames]))


def jpeg(frame, quality):
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


def cropped(frame, top, bottom, left, right):
    height, width = frame.shape
    return frame[
        round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)
    ]


def brighter(frame, gain, gamma):
    return np.clip(255 * gain * (frame / 255) ** gamma, 0, 255).round().astype(np.uint8)


VARIANTS = {
    "jpeg": lambda frame: jpeg(frame, 50),
    "cropped on all sides": lambda frame: cropped(frame, 0.05, 0.05, 0.05, 0.05),
    "cropped at a corner": lambda frame: cropped(frame, 0.05, 0, 0.05, 0),
    "cropped unevenly": lambda frame: cropped(frame, 0.013, 0.037, 0.05, 0.022),
    "brighter": lambda frame: brighter(frame, 1.3, 0.8),
    "darker": lambda frame: brighter(frame, 0.7, 1.4),
    "mirrored": np.fliplr,
    "all together": lambda frame: jpeg(np.fliplr(brighter(cropped(frame, 0.04, 0.01, 0.02, 0.05), 1.2, 0.8)), 60),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("fan", [True, False])
@pytest.mark.integration
def test_variants_of_a_frame_are_found_among_unrelated_ones(name, fan):
    frames = [scene(seed, fan) for seed in range(40)]
    others = thumbs(*frames)
    found = duplicates_between(thumbs(*(VARIANTS[name](frame) for frame in frames)), others)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len({(n, n) for n in range(40)} & pairs) >= 39
    assert pairs <= {(n, n) for n in range(40)}
    assert (found.score >= MIN_SIMILARITY).all()


def test_the_score_of_aligned_images_is_that_of_scipy_and_numpy():
    first, second = thumbs(scene(0), brighter(scene(0), 0.9, 1.2)).astype(float)

    def sharp(image):  # the definition in words: less a copy blurred by three pixels
        return image - gaussian_filter(image, 3.0, mode="reflect")

    expected = np.corrcoef(sharp(first).ravel(), sharp(second).ravel())[0, 1]
    assert similarity(first.astype(np.uint8), second.astype(np.uint8)) == pytest.approx(expected, abs=0.01)


def test_the_score_is_symmetric_and_1_for_a_copy():
    one, other = thumbs(scene(1), scene(2))
    assert similarity(one, other) == pytest.approx(similarity(other, one))
    assert similarity(one, one) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_is_found_in_its_whole_whichever_comes_first(turned):
    whole, crop = thumbs(scene(6), cropped(scene(6), 0.05, 0.05, 0.05, 0.05))
    pair = (crop, whole) if turned else (whole, crop)
    assert similarity(*pair) >= MIN_SIMILARITY


def test_images_of_one_owner_are_not_paired():
    images = thumbs(scene(1), jpeg(scene(1), 60), scene(2))
    assert len(duplicates_within(images, ["a", "a", "b"]).first) == 0
    found = duplicates_within(images, ["a", "b", "b"])
    assert (found.first.tolist(), found.second.tolist()) == ([0], [1])


def letters():
    frame = np.zeros((240, 320), np.uint8)
    frame[5:12, 5:40:3] = 255
    return frame


def test_blank_frames_and_letters_on_black_are_not_paired():
    blank = [
        np.zeros((240, 320), np.uint8),
        np.full((240, 320), 90, np.uint8),
        jpeg(np.full((240, 320), 1, np.uint8), 50),
    ]
    nearly = np.random.default_rng(0).integers(0, 3, (240, 320)).astype(np.uint8)
    images = thumbs(*blank, nearly, letters(), scene(0))
    assert with_structure(images).tolist() == [False] * 5 + [True]
    assert len(duplicates_within(np.repeat(images[:5], 3, axis=0), [str(n) for n in range(15)]).first) == 0


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_pairs(count):
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    assert len(duplicates_within(images, ["a"] * count).first) == 0
    assert len(duplicates_between(images, images).first) == 0


@pytest.mark.integration
def test_the_search_by_cells_finds_the_same_pairs_as_the_full_comparison(monkeypatch):
    frames = [scene(seed) for seed in range(150)]
    variants = [VARIANTS["all together"](frame) for frame in frames[:50]]
    images = thumbs(*frames, *variants)
    owners = [str(number) for number in range(len(images))]
    everything = duplicates_within(images, owners)
    assert len(everything.first) >= 49
    monkeypatch.setattr(near_duplicate_search, "EXACT", 50)
    found = duplicates_within(images, owners)
    assert (found.first < found.second).all()
    pairs, expected = (set(zip(p.first.tolist(), p.second.tolist(), strict=True)) for p in (found, everything))
    assert pairs <= expected and len(pairs) >= 0.97 * len(expected)


def test_many_copies_of_one_picture_are_found_without_comparing_all_their_pairs():
    images = np.repeat(thumbs(scene(3)), 60, axis=0)
    found = duplicates_within(images, [str(number) for number in range(60)])
    assert set(found.first.tolist()) | set(found.second.tolist()) == set(range(60))
    assert len(found.first) <= 60 * near_duplicate_search.SCORED


def test_all_of_many_near_duplicates_of_one_image_are_found():
    """Else pairs that a reviewer has cleared would hide the rest."""
    variants = [brighter(scene(3), 0.7 + 0.02 * number, 1.0) for number in range(12)]
    found = duplicates_between(thumbs(scene(3), scene(4)), thumbs(scene(5), *variants))
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, n) for n in range(1, 13)]


def test_the_nearest_cells_are_those_with_the_smallest_distance():
    """Centres of different lengths, so that the greatest product is not the smallest distance."""
    random = np.random.default_rng(0)
    centres = (random.normal(size=(12, 5)) * random.uniform(0.2, 2, (12, 1))).astype(np.float32)
    vectors = random.normal(size=(200, 5)).astype(np.float32)
    distances = np.linalg.norm(vectors[:, None] - centres[None], axis=2)
    found = _nearest_cells(vectors, centres, 3)
    assert np.array_equal(np.sort(found, axis=1), np.sort(np.argsort(distances, axis=1)[:, :3], axis=1))
