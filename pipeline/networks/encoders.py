"""VGG16-BN and ResNet-50 without their heads as encoders of grey images, and their weight files."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.settings import Backbone
from pipeline.training.tensors import read_tensors, require_finite, write_tensors


class WeightsUnavailable(Exception):  # noqa: N818 - an outcome, not a fault
    """There are no ImageNet weights; the message explains how to supply them."""


class Encoder(nn.Module):
    """A torchvision backbone without its head, as an encoder of grey images (paper section 4.2.1).

    `backbone` holds every parameter under torchvision's names. `channels` are those of the levels of `pyramid`. Grey is
    repeated to three channels, so that ImageNet weights fit.
    """

    backbone: nn.Module
    channels: tuple[int, ...]

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """Features at stride 32, shape (N, channels[-1], H/32, W/32), of z-scored images; H and W multiples of 32."""
        return self.pyramid(x_N1HW)[-1]

    def pyramid(self, x_N1HW: Tensor) -> list[Tensor]:
        """Features at strides 1 (VGG16-BN only), 2, 4, 8, 16 and 32, in this order, with `channels` channels."""
        raise NotImplementedError


class _ResNet50(Encoder):
    channels = (64, 256, 512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet50()
        del self.backbone.fc

    def pyramid(self, x_N1HW: Tensor) -> list[Tensor]:
        net: Any = self.backbone
        stem = net.relu(net.bn1(net.conv1(_three_channels(x_N1HW))))
        features = [stem, net.layer1(net.maxpool(stem))]
        for layer in (net.layer2, net.layer3, net.layer4):
            features.append(layer(features[-1]))
        return features


class _Vgg16Bn(Encoder):
    channels = (64, 128, 256, 512, 512, 512)

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.vgg16_bn()
        del self.backbone.classifier

    def pyramid(self, x_N1HW: Tensor) -> list[Tensor]:
        net: Any = self.backbone
        x = _three_channels(x_N1HW)
        before_pooling = []  # the last features of strides 1, 2, 4, 8 and 16
        for layer in net.features:
            if isinstance(layer, nn.MaxPool2d):
                before_pooling.append(x)
            x = layer(x)
        return [*before_pooling, x]


def _three_channels(x_N1HW: Tensor) -> Tensor:
    return x_N1HW.expand(-1, 3, -1, -1)


def build_encoder(backbone: Backbone) -> Encoder:
    """An encoder with torchvision's random initialization from torch's global generator."""
    return _ResNet50() if backbone == "resnet50" else _Vgg16Bn()


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write the backbone's state under torchvision's names to the safetensors file `path`."""
    write_tensors(path, encoder.backbone.state_dict())


def load_encoder(backbone: Backbone, path: Path) -> Encoder:
    """The encoder with the backbone state in the safetensors file `path`, on the CPU, in training mode.

    Ignores a classification head (`fc`, `classifier`). Raises `UserError` if the file is not a safetensors file or its
    tensors do not fit the backbone.
    """
    tensors = require_finite(path, read_tensors(path))
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(("fc.", "classifier."))}
    with torch.device("meta"):  # without allocating random weights
        encoder = build_encoder(backbone)
    encoder.to_empty(device="cpu")
    try:
        encoder.backbone.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold a {backbone}: {' '.join(str(error).split())[:300]}.") from None
    return encoder


def imagenet_encoder(backbone: Backbone, weights_file: Path | None) -> Encoder:
    """The encoder with torchvision's IMAGENET1K_V1 weights from a local safetensors file.

    Raises `WeightsUnavailable`, which explains how to supply the file, if there is none, and `UserError` as
    `load_encoder`. Reports print the former's message, so it names the file without its folder. Nothing is downloaded:
    torchvision's files are pickles, which this project never opens.
    """
    if weights_file is not None and weights_file.is_file():
        return load_encoder(backbone, weights_file)
    problem = "no file is named" if weights_file is None else f"{weights_file.name} does not exist"
    raise WeightsUnavailable(
        f"ImageNet weights of {backbone}: {problem} in pretraining.imagenet_weights.{backbone}; on a machine with a"
        f' network, run `python -c "from torchvision.models import get_model; from safetensors.torch import save_file;'
        f" save_file(get_model('{backbone}', weights='IMAGENET1K_V1').state_dict(), '{backbone}.safetensors')\"`"
        " and name that file there"
    )
