import numpy as np
import pytest

from benchmarks.shortcuts import archive, balanced_accuracy, corners, histogram, quality, read

pytestmark = pytest.mark.integration

# With 60 patients a reader without information stays within 0.13 of chance nineteen times in twenty.
NEAR_CHANCE = 0.13


def test_the_histogram_counts_insonated_pixels_alone():
    grey, inside = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)
    grey[0], inside[0] = (10, 20, 200, 250), True
    shares = histogram(grey, inside)
    assert shares[:16] == [0.25, 0.25, *[0] * 10, 0.25, 0, 0, 0.25]
    assert np.allclose(shares[16:], (120 / 255, np.std((10, 20, 200, 250)) / 255))


def test_corners_are_upper_left_upper_right_lower_left_lower_right():
    grey = np.zeros((48, 60), np.uint8)
    grey[:2, -2:], grey[-2:, :2] = 80, 40
    assert corners(grey) == [0, 80, 40, 0]


def test_a_reader_finds_a_planted_mark_and_nothing_without_one():
    rng = np.random.default_rng(0)
    labels, patients = (np.arange(200) // 5 % 2).tolist(), (np.arange(200) // 5).tolist()
    told = [[float(rng.normal(2 * label)), 0.0] for label in labels]
    blind = [[float(value), 0.0] for value in rng.normal(size=200)]
    assert balanced_accuracy(told, labels, patients) > 0.75
    assert abs(balanced_accuracy(blind, labels, patients) - 0.5) < NEAR_CHANCE


def test_a_patients_own_mark_does_not_help_with_other_patients():
    # Each patient's feature is the patient's alone: only a reader that has seen the patient profits from it.
    rng = np.random.default_rng(1)
    patients = (np.arange(200) // 5).tolist()
    labels = rng.permutation(np.arange(40) % 2)[np.array(patients)].tolist()
    marks = rng.normal(size=40)[np.array(patients)]
    assert abs(balanced_accuracy([[float(mark)] for mark in marks], labels, patients) - 0.5) < 0.25


def test_groups_and_probe_cannot_be_read_from_grey_levels_nor_the_probe_from_corners():
    seen = list(archive(300))
    for label in ("abdomen", "drainage", "curvilinear"):  # frequent enough for a bound on so few pictures
        assert read(seen, label, "screen") < 0.5 + NEAR_CHANCE, label
    assert read(seen, "curvilinear", "corners") < 0.5 + 1.3 * NEAR_CHANCE


def test_the_grade_of_a_view_cannot_be_read_from_its_grey_levels():
    assert read(list(quality(200)), "grade", "screen") < 0.2 + NEAR_CHANCE
