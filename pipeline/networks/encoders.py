"""Networks of torchvision and timm without their heads as encoders of grey images, and their weight files."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.settings import STRIDE, TORCHVISION_BACKBONES, Backbone
from pipeline.training.tensors import read_tensors, require_finite, write_tensors


class WeightsUnavailable(Exception):  # noqa: N818 - an outcome, not a fault
    """There are no ImageNet weights; the message explains how to supply them."""


class Encoder(nn.Module):
    """A backbone without its head, as an encoder of grey images (paper section 4.2.1).

    `backbone` holds every parameter under the names of torchvision (`TORCHVISION_BACKBONES`) or timm (all others).
    `channels` are those of the levels of `pyramid`. Grey is repeated to three channels, so that ImageNet weights fit.
    """

    backbone: nn.Module
    channels: tuple[int, ...]
    heads: tuple[str, ...] = ("fc.", "classifier.")
    """Beginnings of the names of classification heads."""

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """Features at stride 32, shape (N, channels[-1], H/32, W/32), of z-scored images; H and W multiples of 32."""
        return self.pyramid(x_N1HW)[-1]

    def pyramid(self, x_N1HW: Tensor) -> list[Tensor]:
        """Features with `channels` channels at strides 1 (VGG only), 2 (not ConvNeXt), 4, 8, 16 and 32."""
        raise NotImplementedError


class _ResNet50(Encoder):
    channels: tuple[int, ...] = (64, 256, 512, 1024, 2048)
    architecture = "resnet50"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.get_model(self.architecture)
        del self.backbone.fc

    def pyramid(self, x_N1HW: Tensor) -> list[Tensor]:
        net: Any = self.backbone
        stem = net.relu(net.bn1(net.conv1(_three_channels(x_N1HW))))
        features = [stem, net.layer1(net.maxpool(stem))]
        for layer in (net.layer2, net.layer3, net.layer4):
            features.append(layer(features[-1]))
        return features


class _ResNet18(_ResNet50):
    channels = (64, 64, 128, 256, 512)
    architecture = "resnet18"


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


class _Timm(Encoder):
    """A convolutional network of timm. Its last features are those that timm pools, after its last convolution."""

    heads = (*Encoder.heads, "head.")

    def __init__(self, name: Backbone) -> None:
        super().__init__()
        network = self.backbone = _timm_network(name)
        for unused in _unused_parameters(name):
            _make_buffer(network, unused)
        self.channels = (*(level["num_chs"] for level in network.feature_info[:-1]), network.num_features)

    def pyramid(self, x_N1HW: Tensor) -> list[Tensor]:
        network: Any = self.backbone
        last, levels = network.forward_intermediates(_three_channels(x_N1HW))
        return [*levels[:-1], last]


@cache
def _unused_parameters(name: Backbone) -> tuple[str, ...]:
    """The parameters after the features, such as ConvNeXt's last norm: timm loads them, and no training changes them.

    Raises `UserError` if the network has no such features, or buffers that its files do not hold.
    """
    with torch.device("meta"):
        network, size = _timm_network(name), (2 * STRIDE, 3 * STRIDE)
        parameters = dict(network.named_parameters())
        try:
            last, levels = network.forward_intermediates(torch.zeros(1, 3, *size))
            strides = [side // level.shape[2 + axis] for level in levels for axis, side in enumerate(size)]
            gradients = torch.autograd.grad(last.sum(), list(parameters.values()), allow_unused=True)
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
            raise _unsuitable(name) from None
    halving = [STRIDE >> (len(strides) - 1 - at) // 2 for at in range(len(strides))]
    stored = network.state_dict().keys() >= dict(network.named_buffers()).keys()
    if strides != halving or len(levels) < 4 or last.shape[2:] != levels[-1].shape[2:] or not stored:
        raise _unsuitable(name)
    return tuple(name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None)


def _make_buffer(network: nn.Module, name: str) -> None:
    """Keep the parameter of that name in the state of `network` and take it from `parameters()`."""
    owner, _, own = name.rpartition(".")
    module, parameter = network.get_submodule(owner), network.get_parameter(name)
    delattr(module, own)
    module.register_buffer(own, parameter.detach())


def _timm_network(name: Backbone) -> Any:
    """The network of timm of that name, without its classifier, randomly initialized from torch's global generator.

    Raises `UserError` if timm is not installed or has no such network.
    """
    try:
        timm = import_module("timm")
    except ModuleNotFoundError:
        raise UserError(
            f"The backbone {name} needs timm, which is not installed: run `pip install timm` (the extra sonotag[timm])."
        ) from None
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models())
        raise UserError(f"timm has no backbone {name}{': did you mean ' + ' or '.join(close) if close else ''}.")
    return timm.create_model(name, num_classes=0)


def _unsuitable(name: Backbone) -> UserError:
    return UserError(
        f"timm's {name} cannot be a backbone: it is no convolutional network for images of any size with features at "
        f"strides 4, 8, 16 and {STRIDE}."
    )


def synchronized(network: nn.Module) -> nn.Module:
    """`network` with batch norm over all processes; that of timm's networks includes an activation."""
    if any(isinstance(module, _Timm) for module in network.modules()):
        converted: nn.Module = import_module("timm.layers").convert_sync_batchnorm(network)
        return converted
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return]


def _three_channels(x_N1HW: Tensor) -> Tensor:
    return x_N1HW.expand(-1, 3, -1, -1)


def build_encoder(backbone: Backbone) -> Encoder:
    """An encoder with torchvision's or timm's random initialization from torch's global generator.

    Raises `UserError` if the backbone needs timm, which is not installed, or timm has no such convolutional network.
    """
    ours = {"resnet50": _ResNet50, "resnet18": _ResNet18, "vgg16_bn": _Vgg16Bn}
    return ours[backbone]() if backbone in ours else _Timm(backbone)


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write the backbone's state under torchvision's or timm's names to the safetensors file `path`."""
    write_tensors(path, encoder.backbone.state_dict())


def load_encoder(backbone: Backbone, path: Path) -> Encoder:
    """The encoder with the backbone state in the safetensors file `path`, on the CPU, in training mode.

    Ignores a classification head (`Encoder.heads`). Raises `UserError` if the file is not a safetensors file or its
    tensors do not fit the backbone.
    """
    tensors = require_finite(path, read_tensors(path))
    with torch.device("meta"):  # without allocating random weights
        encoder = build_encoder(backbone)
    encoder.to_empty(device="cpu")
    own = encoder.backbone.state_dict()
    state = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(encoder.heads)}
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            shapes = f"of shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            raise UserError(f"{path} does not hold a {backbone}: {name} is {shapes}.")
    try:
        encoder.backbone.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold a {backbone}: {' '.join(str(error).split())[:300]}.") from None
    return encoder


def imagenet_encoder(backbone: Backbone, weights_file: Path | None) -> Encoder:
    """The encoder with ImageNet weights of torchvision (IMAGENET1K_V1) or timm from a local safetensors file.

    Raises `WeightsUnavailable`, which explains how to supply the file, if there is none, and `UserError` as
    `load_encoder`. Reports print the former's message, so it names the file without its folder. Nothing is downloaded:
    torchvision's files are pickles, which this project never opens.
    """
    if weights_file is not None and weights_file.is_file():
        return load_encoder(backbone, weights_file)
    problem = "no file is named" if weights_file is None else f"{weights_file.name} does not exist"
    getter, weights = ("torchvision.models import get_model", "get_model('{}', weights='IMAGENET1K_V1')")
    if backbone not in TORCHVISION_BACKBONES:
        getter, weights = ("timm import create_model", "create_model('{}', pretrained=True)")
    raise WeightsUnavailable(
        f"ImageNet weights of {backbone}: {problem} in pretraining.imagenet_weights.{backbone}; on a machine with a"
        f' network, run `python -c "from {getter}; from safetensors.torch import save_file;'
        f" save_file({weights.format(backbone)}.state_dict(), '{backbone}.safetensors')\"`"
        " and name that file there"
    )
