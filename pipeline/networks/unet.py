"""The U-Net: an encoder and an expanding path that joins its features at every resolution.

Belongs here: the network. Not here: what its logits mean as masks, and its training.
"""

from itertools import zip_longest
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.code_versions import UNET
from pipeline.networks.encoders import Encoder

_WIDTHS = (256, 128, 64, 32, 16)  # channels of the up-blocks, from stride 16 to full resolution; the paper gives none


UNetVersion = Literal[1, 2]
"""In version 1 the last up-block joins the image in place of the encoder's features at stride 1."""


class UNet(nn.Module):
    """U-Net on a pretrained encoder, with five up-blocks (paper section 4.4.1, after Iglovikov and Shvets 2018).

    Each up-block joins the encoder's features of its resolution. A ResNet has none at full resolution: there the last
    up-block joins nothing, as in Iglovikov and Shvets' network on a ResNet. So what the expanding path gets of the
    image is the encoder's features alone, and all of it where the encoder is frozen is what it was pretrained to see.
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
        # torchvision's initialization. Soft Dice rewards confident masks alone, and Adam moves a weight by about one
        # learning rate per step: from PyTorch's smaller weights a short training does not get there (72 synthetic
        # images, 90 steps at 5e-4: test Dice 0.63 from those, 0.97 from these).
        nn.init.kaiming_normal_(self.head.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """Logits of the foreground classes, shape (N, classes - 1, H, W), of z-scored images; H and W multiples of 32.

        The background's logit is fixed at 0: softmax over both is then the sigmoid where there are two classes.
        """
        *skips, x = self.encoder.pyramid(x_N1HW)
        if self._joins_image:
            skips = [x_N1HW, *skips[-4:]]
        for up_block, skip in zip_longest(self.up_blocks, reversed(skips)):
            x = up_block(x, skip)
        logits: Tensor = self.head(x)
        return logits


class _UpBlock(nn.Module):
    """Double the resolution, join the skip connection where there is one, and mix the two."""

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
