"""Features of frozen encoders and of images alone."""

import numpy as np
import pytest
import torch

from pipeline.images.batches import Normalization
from pipeline.networks.encoders import build_encoder
from pipeline.representation.features import (
    brightness_features,
    encoder_features,
    pixel_features,
    pooled_features,
    size_features,
)

IMAGES = np.random.default_rng(0).integers(0, 255, (5, 64, 96), dtype=np.uint8)
NORMALIZATION = Normalization(100.0, 50.0)


@pytest.fixture(scope="module", params=["resnet50", "vgg16_bn"])
def encoder(request):
    torch.manual_seed(0)
    return build_encoder(request.param)


def test_pooled_features_are_means_of_the_last_level_in_evaluation_mode(encoder):
    found = encoder_features(encoder.train(), NORMALIZATION, IMAGES, maps=False)
    with torch.no_grad():
        x = torch.from_numpy((IMAGES.astype(np.float32) - 100) / 50)[:, None]
        expected = encoder.eval()(x).mean((2, 3)).numpy()
    assert found.pooled_ND == pytest.approx(expected, rel=1e-5)
    assert found.maps_NCHW.size == 0


def test_pooled_features_of_batches_are_those_of_all_images_at_once(encoder):
    batches = (torch.from_numpy(IMAGES[part]) for part in (slice(0, 2), slice(2, 5)))
    found = pooled_features(encoder.train(), batches, NORMALIZATION)
    expected = encoder_features(encoder, NORMALIZATION, IMAGES, maps=False).pooled_ND
    assert found == pytest.approx(expected, abs=3e-6 * float(expected.max()))


def test_maps_have_a_position_for_every_fourth_pixel_and_follow_the_image(encoder):
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    found, other = (
        encoder_features(encoder, NORMALIZATION, images, maps=True).maps_NCHW for images in (IMAGES, mirrored)
    )
    assert found.shape[0] == 5 and found.shape[2:] == (16, 24) and found.shape[1] <= 4 * 64
    assert not np.allclose(found, other)


def test_an_image_s_features_do_not_depend_on_the_others(encoder):
    alone, together = (encoder_features(encoder, NORMALIZATION, images, maps=False) for images in (IMAGES[2:3], IMAGES))
    assert alone.pooled_ND[0] == pytest.approx(together.pooled_ND[2], abs=3e-6 * float(together.pooled_ND.max()))


def test_brightness_knows_neither_place_nor_order():
    shuffled = np.random.default_rng(1).permuted(IMAGES.reshape(5, -1), axis=1).reshape(IMAGES.shape)
    found = brightness_features(IMAGES).pooled_ND
    assert found == pytest.approx(brightness_features(shuffled).pooled_ND)
    assert found[:, 0] == pytest.approx(IMAGES.mean((1, 2)), rel=1e-5)


def test_sizes_are_told_apart_and_their_order_means_nothing():
    found = size_features([(600, 800), (480, 640), (600, 800), (800, 600)]).pooled_ND
    assert (found @ found.T).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_pixels_are_means_of_blocks():
    found = pixel_features(IMAGES, maps=True)
    assert found.pooled_ND == pytest.approx(
        IMAGES.reshape(5, 16, 4, 16, 6).mean((2, 4)).reshape(5, 256) / 255, abs=1e-5
    )
    assert found.maps_NCHW[:, 0] == pytest.approx(IMAGES.reshape(5, 16, 4, 24, 4).mean((2, 4)) / 255, abs=1e-3)
