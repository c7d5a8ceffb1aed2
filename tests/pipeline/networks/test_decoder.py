"""The decoder: the size and range of its output."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d

from pipeline.networks.decoder import Decoder
from pipeline.networks.encoders import build_encoder


@pytest.mark.parametrize(("backbone", "channels"), [("resnet50", 2048), ("vgg16_bn", 512)])
def test_an_image_of_paper_size_becomes_8_by_12_features_and_they_a_patch_of_half_its_height_and_width(
    backbone, channels
):
    with torch.device("meta"):  # shapes alone
        encoder = build_encoder(backbone)
        features = encoder(torch.empty(2, 1, 256, 384))
        assert features.shape == (2, channels, 8, 12)
        assert Decoder(encoder.channels[-1])(features).shape == (2, 1, 128, 192)


def test_it_has_four_blocks_of_3x3_upconvolution_batch_norm_and_relu():
    decoder = Decoder(2048)
    assert len(decoder.blocks) == 4
    for block in decoder.blocks:
        kinds = zip(block, (nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU), strict=True)
        assert all(isinstance(layer, kind) for layer, kind in kinds)
    assert all(block[0].kernel_size == (3, 3) and block[0].stride == (2, 2) for block in decoder.blocks)


def test_the_first_upconvolution_is_that_of_the_library():
    up = Decoder(64).blocks[0][0].double()
    x = torch.randn(2, 64, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = conv_transpose2d(x, up.weight, stride=2, padding=1, output_padding=1)
    assert torch.allclose(up(x), expected, rtol=1e-12)
    weight = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(y, [x, up.weight], weight) for y in (up(x), expected))
    assert all(torch.allclose(one, other, rtol=1e-12) for one, other in zip(ours, theirs, strict=True))


def test_its_output_is_not_bounded_below_as_a_z_score_is_not():
    decoder = Decoder(8)
    with torch.no_grad():
        decoder.to_grey.bias.fill_(-7.0)
        assert decoder(torch.zeros(2, 8, 1, 1)).min() < -5
