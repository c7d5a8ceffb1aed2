"""The decoder of SparK: from the visible features of four levels to the whole image (Tian et al. 2023, section 3.3)."""

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from pipeline.networks.encoders import Encoder
from pipeline.networks.sparse import VisibleCells, sparse

_WIDTHS: Final = (256, 128, 64, 32, 16, 8)
"""Channels at strides 32 to 1. The authors' code begins with 768, for nine times the arithmetic."""
_LEVELS: Final = 4
_TOKEN_SD: Final = 0.02


class HierarchicalDecoder(nn.Module):
    """Fill the hidden positions of each level with its mask token, and join the levels from stride 32 to 4.

    A level passes batch norm over its visible positions; after the tokens are filled in, a convolution projects it
    (1×1 at stride 32, else 3×3) and it is added to the features decoded so far. Every doubling of the resolution is a
    4×4 up-convolution, 3×3 convolution, batch norm, ReLU6, 3×3 convolution and batch norm. A 1×1 convolution makes
    grey levels.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        channels = encoder.channels[: -_LEVELS - 1 : -1]
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in channels])
        self.tokens = nn.ParameterList([_token(width) for width in channels])
        kernels = [1, *[3] * (_LEVELS - 1)]
        self.projections = nn.ModuleList(
            nn.Conv2d(inputs, width, kernel, padding=kernel // 2)
            for inputs, width, kernel in zip(channels, _WIDTHS, kernels, strict=False)
        )
        self.blocks = nn.ModuleList([_up_block(*widths) for widths in pairwise(_WIDTHS)])
        self.to_grey = nn.Conv2d(_WIDTHS[-1], 1, kernel_size=1)

    def forward(self, pyramid: list[Tensor], visible: VisibleCells) -> Tensor:
        """The decoded image, shape (N, 1, H, W), of the features of an encoder at stride 32 and the three before it."""
        x: Tensor | float = 0.0
        for i, block in enumerate(self.blocks):
            x = block(x + self._densified(i, pyramid[-1 - i], visible) if i < _LEVELS else x)
        grey_N1HW: Tensor = self.to_grey(x)
        return grey_N1HW

    def _densified(self, level: int, features_NCHW: Tensor, visible: VisibleCells) -> Tensor:
        with sparse(self.norms[level], visible):
            features_NCHW = self.norms[level](features_NCHW)
        token_1C11 = self.tokens[level].to(features_NCHW.dtype)
        filled_NCHW = torch.where(visible.at(*features_NCHW.shape[2:]), features_NCHW, token_1C11)
        projected_NCHW: Tensor = self.projections[level](filled_NCHW)
        return projected_NCHW


def _token(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(1, channels, 1, 1).normal_(std=_TOKEN_SD))


def _up_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, inputs, 4, stride=2, padding=1),
        nn.Conv2d(inputs, inputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(inplace=True),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )
