"""Batches: z-score, augmentation, order, the masked centre."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.images.batches import (
    AugmentationParameters,
    Normalization,
    center_patch,
    draw_augmentation,
    epoch_order,
    fit_normalization,
    mask_center,
    mean_center_patch,
)
from pipeline.images.loader import ResidentLoader, StreamingLoader
from pipeline.settings import Augmentation
from pipeline.training.seeds import generator


def images(count=6, height=32, width=64):
    return torch.randint(0, 256, (count, height, width), dtype=torch.uint8, generator=generator(0, "images"))


def augmentation(flip, down, right):
    return AugmentationParameters(torch.tensor([flip]), torch.tensor([down]), torch.tensor([right]))


def test_normalization_is_that_of_the_training_images_alone():
    every, train = images(), torch.tensor([0, 2, 5])
    normalization = fit_normalization(ResidentLoader(every), train)
    pixels = every.numpy()[train.numpy()].astype(np.float64)
    assert normalization.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert normalization.sd == pytest.approx(pixels.std(), rel=1e-12)


def test_statistics_do_not_depend_on_how_images_are_fed():
    every = images(600)  # more than are counted at a time
    fed, train = StreamingLoader(every, torch.device("cpu")), torch.arange(0, 600, 2)
    assert fit_normalization(fed, train) == fit_normalization(ResidentLoader(every), train)
    assert torch.equal(mean_center_patch(fed, train), mean_center_patch(ResidentLoader(every), train))


def test_images_of_one_grey_level_are_a_users_mistake():
    with pytest.raises(UserError, match="grey level"):
        fit_normalization(ResidentLoader(torch.full((2, 32, 32), 7, dtype=torch.uint8)), torch.tensor([0, 1]))


def test_z_scores_use_one_mean_for_all_images_and_turn_back_into_grey_levels():
    every, normalization = images(), Normalization(100.0, 40.0)
    x = normalization.apply(every)
    np.testing.assert_allclose(x.numpy()[:, 0], (every.numpy().astype(np.float64) - 100) / 40, atol=1e-6)
    assert torch.equal(normalization.grey_levels(x), every)
    assert torch.equal(every, images()), "they must stay as they are"
    assert normalization.grey_levels(torch.tensor([[[[99.0, -99.0]]]])).tolist() == [[[255, 0]]]


def test_a_shift_moves_pixels_and_uncovers_black():
    one = images(1)
    moved = augmentation(False, 3, -5).apply(one).numpy()[0]
    expected = np.zeros((32, 64), np.uint8)
    expected[3:, :-5] = one.numpy()[0][:-3, 5:]
    np.testing.assert_array_equal(moved, expected)


def test_a_flip_comes_before_the_shift_and_never_turns_depth_around():
    one = images(1)
    moved = augmentation(True, 0, 4).apply(one).numpy()[0]
    expected = np.zeros((32, 64), np.uint8)
    expected[:, 4:] = one.numpy()[0][:, ::-1][:, :-4]
    np.testing.assert_array_equal(moved, expected)


def test_every_image_is_augmented_by_itself_and_a_mask_like_its_image():
    every = images(64)
    drawn = draw_augmentation(64, 32, 64, Augmentation(shift=0.25), generator(1))
    moved = drawn.apply(every)
    for dtype in (torch.int64, torch.float32, torch.bool):
        mask = drawn.apply((every > 128).to(dtype))
        assert torch.equal(mask, (moved > 128).to(dtype))
    assert len(set(zip(drawn.flip_N.tolist(), drawn.down_N.tolist(), drawn.right_N.tolist(), strict=True))) > 32


def test_a_move_larger_than_the_image_leaves_black():
    for down, right in ((32, 0), (-32, 0), (0, 64), (0, -64), (100, -100)):
        assert not augmentation(True, down, right).apply(images(1) | 1).any()


def test_moves_stay_within_the_recipes_bounds():
    drawn = draw_augmentation(4000, 32, 64, Augmentation(shift=0.25), generator(2))
    assert (drawn.down_N.min(), drawn.down_N.max()) == (-8, 8)
    assert (drawn.right_N.min(), drawn.right_N.max()) == (-16, 16)
    assert 0.45 < drawn.flip_N.float().mean() < 0.55


def test_no_augmentation_leaves_images_as_they_are():
    every = images()
    none = draw_augmentation(6, 32, 64, Augmentation(horizontal_flip=False, shift=0), generator(3))
    assert torch.equal(none.apply(every), every)


def test_an_epoch_visits_each_image_at_most_once_in_whole_batches_and_drops_the_rest():
    indices = torch.arange(100, 111)
    order = epoch_order(indices, 4, generator(0, 1))
    assert order.shape == (2, 4)
    assert len(set(order.flatten().tolist())) == 8
    assert set(order.flatten().tolist()) <= set(indices.tolist())
    assert not torch.equal(order, epoch_order(indices, 4, generator(0, 2)))


def test_the_hidden_centre_of_paper_size_is_rows_64_to_192_and_columns_96_to_288():
    x = torch.ones(1, 1, 256, 384)
    expected = np.ones((256, 384))
    expected[64:192, 96:288] = 0
    np.testing.assert_array_equal(mask_center(x)[0, 0].numpy(), expected)
    assert center_patch(x).shape == (1, 1, 128, 192)
    assert x.min() == 1, "the image itself must stay as it is"


def test_mean_patch_is_that_of_the_training_images():
    every, train = images(), torch.tensor([1, 3])
    expected = every.numpy()[[1, 3]].astype(np.float64).mean(axis=0)[8:24, 16:48]
    np.testing.assert_allclose(mean_center_patch(ResidentLoader(every), train).numpy(), expected, rtol=1e-6)
