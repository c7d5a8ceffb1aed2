"""The decoder: the size of what it paints.

Belongs here: shapes and range. Not here: training.
"""

import torch

from pipeline.networks.decoder import Decoder


def test_paper_size_features_become_a_patch_of_half_the_height_and_width():
    with torch.no_grad():
        assert Decoder(512)(torch.zeros(1, 512, 8, 12)).shape == (1, 1, 128, 192)


def test_it_has_four_blocks_of_3x3_upconvolution_batch_norm_and_relu():
    decoder = Decoder(2048)
    kinds = [[type(layer).__name__ for layer in block] for block in decoder.blocks]
    assert kinds == [["ConvTranspose2d", "BatchNorm2d", "ReLU"]] * 4
    assert all(block[0].kernel_size == (3, 3) and block[0].stride == (2, 2) for block in decoder.blocks)


def test_its_output_is_not_bounded_below_as_a_z_score_is_not():
    decoder = Decoder(8)
    with torch.no_grad():
        decoder.to_grey.bias.fill_(-7.0)
        assert decoder(torch.zeros(2, 8, 1, 1)).min() < -5
