"""The U-Net's shape and skip connections."""

import pytest
import torch

from pipeline.networks.encoders import build_encoder
from pipeline.networks.unet import UNet
from pipeline.settings import Backbone


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


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_the_skip_connections_carry_what_the_deepest_features_do_not(backbone: Backbone) -> None:
    torch.manual_seed(0)
    network = UNet(build_encoder(backbone), 2).eval()
    image = torch.randn(1, 1, 64, 64)
    pyramid = network.encoder.pyramid
    with torch.no_grad():
        whole = network(image)
        for level in range(len(network.encoder.channels) - 1):
            cut = [f * (i != level) for i, f in enumerate(pyramid(image))]
            network.encoder.pyramid = lambda _, cut=cut: cut  # type: ignore[method-assign, misc]
            assert not torch.allclose(network(image), whole), f"features {level} of the pyramid do not matter"


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_the_expanding_path_gets_the_encoders_features_and_nothing_else_of_the_image(backbone: Backbone) -> None:
    network = UNet(build_encoder(backbone), 2).eval()
    with torch.no_grad():
        features = network.encoder.pyramid(torch.randn(1, 1, 32, 64))
        network.encoder.pyramid = lambda _: features  # type: ignore[method-assign]
        assert torch.equal(network(torch.zeros(1, 1, 32, 64)), network(torch.randn(1, 1, 32, 64)))


def test_on_vgg16_the_last_up_block_joins_the_64_channels_of_the_first_block_before_its_pooling() -> None:
    """As in TernausNet; in torchvision's VGG16-BN the second convolution's ReLU is layer 5, the pooling layer 6."""
    network = UNet(build_encoder("vgg16_bn"), 2).eval()
    joined: list[torch.Tensor] = []
    network.up_blocks[-1].mix.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    image = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        network(image)
        first_block = network.encoder.backbone.features[:6]  # type: ignore[index]
        expected = first_block(image.expand(-1, 3, -1, -1))
    assert expected.shape == (1, 64, 32, 64)
    torch.testing.assert_close(joined[0][:, -64:], expected)


@pytest.mark.parametrize(("backbone", "channels"), [("resnet50", 16), ("vgg16_bn", 16 + 64)])
def test_a_resnet_has_nothing_to_join_at_full_resolution(backbone: Backbone, channels: int) -> None:
    assert UNet(build_encoder(backbone), 2).up_blocks[-1].mix[0].in_channels == channels


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_the_first_versions_last_up_block_joins_the_image(backbone: Backbone) -> None:
    network = UNet(build_encoder(backbone), 2, version=1).eval()
    joined: list[torch.Tensor] = []
    network.up_blocks[-1].mix.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    image = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        network(image)
    assert joined[0].shape[1] == 16 + 1
    assert torch.equal(joined[0][:, -1:], image)
