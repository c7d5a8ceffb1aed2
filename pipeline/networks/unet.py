"""The U-Net: an encoder and an expanding path with skip connections at every resolution.

`pipeline.downstream.losses` converts its logits to class probabilities.
"""

from itertools import zip_longest
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.code_versions import UNET
from pipeline.networks.encoders import Encoder

_WIDTHS = (
    256,
    128,
    64,
    32,
    16,
)  # channels of the up-blocks, from stride 16 to full resolution; not specified in the paper

UNetVersion = Literal[1, 2]
"""In version 1 the skip connection of the last up-block is the image, not the encoder's features at stride 1."""


class UNet(nn.Module):
    """U-Net on a pretrained encoder, with five up-blocks (paper section 4.4.1, after Iglovikov and Shvets 2018).

    Each up-block has a skip connection from the encoder's features of its resolution. A ResNet has none at full
    resolution, so that its last up-block has no skip connection, as in Iglovikov and Shvets' network on a ResNet. The
    expanding path therefore sees the image through the encoder's features alone.
    """

    def __init__(self, encoder: Encoder, classes: int, version: UNetVersion = UNET) -> None:
        super().__init__()
        self.encoder = encoder
        self._joins_image = version == 1
        inputs = (encoder.channels[-1], *_WIDTHS[:-1])
        skips = [1, *encoder.channels[-5:-1]] if self._joins_image else encoder.channels[:-1]
        blocks = [_UpBlock(*channels) for channels in zip_longest(inputs, reversed(skips), _WIDTHS, fillvalue=0)]
        self.up_blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(_WIDTHS[-1], classes - 1, kernel_size=1)
        # torchvision's initialization. Soft Dice rewards only confident masks, and Adam moves a weight by about one
        # learning rate per step: PyTorch's smaller weights are too slow for a short training (72 synthetic images,
        # 90 steps at 5e-4: test Dice 0.63 with those, 0.97 with these).
        nn.init.kaiming_normal_(self.head.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """Logits of the foreground classes, shape (N, classes - 1, H, W), of z-scored images; H and W multiples of 32.

        The background's logit is fixed at 0, so that softmax over two classes is the sigmoid.
        """
        *skips, x = self.encoder.pyramid(x_N1HW)
        if self._joins_image:
            skips = [x_N1HW, *skips[-4:]]
        for up_block, skip in zip_longest(self.up_blocks, reversed(skips)):
            x = up_block(x, skip)
        logits: Tensor = self.head(x)
        return logits


class _UpBlock(nn.Module):
    """Double the resolution, concatenate the skip connection if there is one, and mix both by a convolution."""

    def __init__(self, channels: int, skip_channels: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)
        self.mix = nn.Sequential(
            nn.Conv2d(width + skip_channels, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        doubled = self.up(x)
        mixed: Tensor = self.mix(doubled if skip is None else torch.cat([doubled, skip], dim=1))
        return mixed
