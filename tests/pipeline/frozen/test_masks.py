"""Masks by one linear layer, and the mean mask."""

import numpy as np
import pytest

from pipeline.frozen.masks import LinearMasks, mean_dice, mean_masks
from pipeline.representation.features import STRIDE, pixel_features
from tests.pipeline.frozen.conftest import squares


def dice_of(problem, maps):
    asked = problem.evaluated
    predicted = LinearMasks(maps, problem, problem.train).classes(asked)
    return mean_dice(predicted, problem.masks_NHW[asked], len(problem.names)).mean()


@pytest.mark.parametrize("classes", [1, 2])
def test_brightness_finds_bright_squares_and_noise_does_not(classes):
    problem = squares(classes=classes)
    maps = pixel_features(problem.images_NHW, maps=True).maps_NCHW
    noise = np.random.default_rng(2).normal(size=maps.shape).astype(np.float16)
    assert dice_of(problem, maps) > 0.8
    assert dice_of(problem, noise) < 0.5


def test_the_truth_as_a_map_gives_the_mask_but_for_its_edges():
    problem = squares()
    blocks = problem.masks_NHW.reshape(60, 64 // STRIDE, STRIDE, 64 // STRIDE, STRIDE).mean((2, 4))
    assert dice_of(problem, blocks[:, None].astype(np.float16)) > 0.93


def test_masks_of_the_images_that_are_scored_are_not_read():
    problem, other = squares(), squares()
    other.masks_NHW[problem.evaluated] = 0
    maps = pixel_features(problem.images_NHW, maps=True).maps_NCHW
    first, second = (LinearMasks(maps, one, one.train).classes(one.evaluated) for one in (problem, other))
    assert np.array_equal(first, second)


def test_one_patient_is_enough():
    problem = squares()
    maps = pixel_features(problem.images_NHW, maps=True).maps_NCHW
    assert LinearMasks(maps, problem, np.arange(2)).classes(np.arange(4)).shape == (4, 64, 64)


def test_the_mean_mask_is_the_same_for_every_image_and_covers_what_most_have():
    problem = squares()
    problem.masks_NHW[:] = 0
    problem.masks_NHW[:, 8:40, 8:40] = 1
    problem.masks_NHW[::4, 48:, 48:] = 1  # in a quarter of the images
    found = mean_masks(problem, problem.train, problem.evaluated)
    assert found.shape == (20, 64, 64) and (found == found[0]).all()
    assert found[0, 8:40, 8:40].all() and not found[0, 48:, 48:].any() and not found[0, :8].any()


def test_dice_by_hand():
    truth = np.zeros((3, 2, 2), np.uint8)
    truth[0, 0] = 1
    predicted = np.zeros_like(truth)
    predicted[0, :, 0] = 1
    predicted[1, 0, 0] = 1
    assert mean_dice(predicted, truth, 1).tolist() == [0.5, 0, 1]  # 2·1/(2+2); a false pixel; both empty
