"""Convolutions computed by matrix products on a CPU, if they have many weights for each position of their output.

oneDNN's convolutions reorder the weights for every call, and spread the positions over the cores: a level of 2 × 3
positions and 512 channels takes up to ten times as long as the product of the same matrices.
"""

from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad

_PRODUCT: Final = (100, 2000)
"""Weights per output position from which a product is faster: without and with neighbours (kernels 1×1 and larger)."""
_WEIGHT_GRADIENT_BF16: Final = (1, 100)
"""The same for the gradient of bfloat16 weights, which oneDNN computes slowest."""


def use_matrix_products(network: nn.Module) -> None:
    """Let the convolutions of `network` choose, by shape alone, between a matrix product and oneDNN, in training.

    Names, values and layout of parameters stay; results differ by rounding. Convolutions of other kinds (grouped,
    dilated, oblong, of a subclass) stay as they are.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _is_plain(layer):
            layer.__class__ = _Convolution


def _is_plain(layer: nn.Conv2d) -> bool:
    alike = (layer.kernel_size, layer.stride, layer.padding)
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in alike)
    )


class _Convolution(nn.Conv2d):
    def _conv_forward(self, x_NCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (torch.is_grad_enabled() and x_NCHW.device.type == "cpu"):
            return cast("Tensor", super()._conv_forward(x_NCHW, weight, bias))
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x_NCHW, weight, bias = x_NCHW.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        y_NOHW: Tensor = _Product.apply(x_NCHW, weight, bias, _Window(*(int(pair[0]) for pair in self._window)))
        return y_NOHW

    @property
    def _window(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding


@dataclass(frozen=True)
class _Window:
    """Side of a square kernel, its stride, and the zeros around the input."""

    kernel: int
    stride: int
    padding: int

    def output(self, size: int) -> int:
        """Positions along a side of `size` pixels."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def rows(self, x_NCHW: Tensor) -> Tensor:
        """What the kernel covers at each output position, shape (M, kernel · kernel · C)."""
        x_NHWC = x_NCHW.permute(0, 2, 3, 1)
        if self.kernel == 1 and not self.padding:
            return x_NHWC[:, :: self.stride, :: self.stride].flatten(0, 2)
        x_NHWC = pad(x_NHWC, (0, 0, *(self.padding,) * 4))
        windows = x_NHWC.unfold(1, self.kernel, self.stride).unfold(2, self.kernel, self.stride)
        return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)

    def sums(self, rows: Tensor, size: torch.Size) -> Tensor:
        """The transpose of `rows`: the sum over the positions that cover a pixel, for an input of `size` N, C, H, W."""
        count, channels, height, width = size
        down, across = self.output(height), self.output(width)
        rows = rows.view(count, down, across, self.kernel, self.kernel, channels)
        if self.kernel == self.stride == 1 and not self.padding:
            return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
        padded = (count, height + 2 * self.padding, width + 2 * self.padding, channels)
        sums = rows.new_zeros(padded, dtype=torch.promote_types(rows.dtype, torch.float32))
        for i in range(self.kernel):
            for j in range(self.kernel):
                sums[:, i :: self.stride, j :: self.stride][:, :down, :across] += rows[:, :, :, i, j]
        inside = sums[:, self.padding :][:, :height, self.padding :][:, :, :width]
        return inside.to(rows.dtype).permute(0, 3, 1, 2)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, bias: Tensor | None, window: _Window) -> Tensor:
        """A convolution, in channels-last layout."""
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x_NCHW, weight)
        ctx.window, ctx.bias_sizes = window, None if bias is None else list(bias.shape)
        count, _, height, width = x_NCHW.shape
        shape = (count, window.output(height), window.output(width), len(weight))
        if not _is_faster(_PRODUCT, weight, shape):
            return conv2d(x_NCHW, weight, bias, window.stride, window.padding)
        size = (count, len(weight), *shape[1:3])
        y_NOHW = torch.empty(size, dtype=x_NCHW.dtype, memory_format=torch.channels_last)
        rows_MO = y_NOHW.permute(0, 2, 3, 1).view(-1, len(weight))  # a result that is a view could not change in place
        if bias is None:
            torch.mm(window.rows(x_NCHW), _matrix(weight).t(), out=rows_MO)
        else:
            torch.addmm(bias, window.rows(x_NCHW), _matrix(weight).t(), out=rows_MO)
        return y_NOHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NOHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """The gradients that are needed, each by the faster way."""
        x_NCHW, weight = ctx.saved_tensors
        window: _Window = ctx.window
        gradient_NOHW = gradient_NOHW.contiguous(memory_format=torch.channels_last)
        gradient_NHWO = gradient_NOHW.permute(0, 2, 3, 1)
        rows_MO = gradient_NHWO.flatten(0, 2)
        of_weights = _WEIGHT_GRADIENT_BF16 if weight.dtype == torch.bfloat16 else _PRODUCT
        needs = list(ctx.needs_input_grad[:3])
        found: list[Tensor | None] = [None, None, None]
        if needs[0] and _is_faster(_PRODUCT, weight, gradient_NHWO.shape):
            found[0], needs[0] = window.sums(rows_MO @ _matrix(weight), x_NCHW.shape), False
        if needs[1] and _is_faster(of_weights, weight, gradient_NHWO.shape):
            found[1], needs[1] = _weights(rows_MO.t() @ window.rows(x_NCHW), weight.shape), False
        if any(needs):
            sides = [[side] * 2 for side in (window.stride, window.padding)]
            others = torch.ops.aten.convolution_backward(
                gradient_NOHW, x_NCHW, weight, ctx.bias_sizes, *sides, [1, 1], False, [0, 0], 1, needs
            )
            found = [other if need else one for one, other, need in zip(found, others, needs, strict=True)]
        return found[0], found[1], found[2], None


def _is_faster(least: tuple[int, int], weight: Tensor, output_NHWO: tuple[int, ...]) -> bool:
    """Whether there are enough weights for each output position of the batch."""
    count, height, width, _ = output_NHWO
    return weight.numel() >= least[weight.shape[2] > 1] * count * height * width


def _matrix(weight: Tensor) -> Tensor:
    """Weights as a matrix, shape (O, kernel · kernel · C): a view of channels-last weights."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _weights(matrix: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of `_matrix`."""
    outputs, channels, kernel, _ = shape
    return matrix.view(outputs, kernel, kernel, channels).permute(0, 3, 1, 2)
