"""The U-Net's shape and what reaches its output."""

import pytest
import torch

from pipeline.networks.encoders import build_encoder
from pipeline.networks.unet import UNet
from pipeline.recipe import Backbone


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
@pytest.mark.parametrize(("classes", "size"), [(2, (64, 96)), (3, (32, 32))])
def test_logits_of_the_foreground_classes_have_the_images_size(
    backbone: Backbone, classes: int, size: tuple[int, int]
) -> None:
    network = UNet(build_encoder(backbone), classes).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, *size)).shape == (1, classes - 1, *size)


def test_there_are_five_up_blocks() -> None:
    assert len(UNet(build_encoder("resnet50"), 2).up_blocks) == 5


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = UNet(build_encoder("resnet50"), 3)
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_the_skip_connections_carry_what_the_deepest_features_do_not() -> None:
    torch.manual_seed(0)
    network = UNet(build_encoder("resnet50"), 2).eval()
    image = torch.randn(1, 1, 64, 64)
    pyramid = network.encoder.pyramid
    with torch.no_grad():
        whole = network(image)
        for level in range(4):
            cut = [f * (i != level) for i, f in enumerate(pyramid(image))]
            network.encoder.pyramid = lambda _, cut=cut: cut  # type: ignore[method-assign, misc]
            assert not torch.allclose(network(image), whole), f"the features at stride {2 ** (level + 1)} do not matter"
