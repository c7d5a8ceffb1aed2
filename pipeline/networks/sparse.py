"""Convolutional networks that compute from the visible part of their images alone (SparK, Tian et al. 2023).

Sparse convolution, emulated on dense maps: hooks on the layers, for the time of a forward pass. The network itself, its
names and its weights stay those of the dense one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from pipeline.errors import UserError
from pipeline.networks.encoders import Encoder
from pipeline.settings import STRIDE, Backbone

_NEIGHBOURS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Layers that read neighbouring positions: the others that are accepted compute position by position."""
_POINTWISE = (nn.Linear, nn.LayerNorm)


class VisibleCells:
    """The cells of N images that a network sees; an image is a grid of h × w square cells.

    `cells_Nhw` is bool, on the CPU, which counts its positions; maps and positions are on `device`.
    """

    def __init__(self, cells_Nhw: Tensor, device: torch.device) -> None:
        self.cells_Nhw, self._device = cells_Nhw, device
        self._maps: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def at(self, height: int, width: int) -> Tensor:
        """Which positions of a map of that size are visible, bool, shape (N, 1, height, width).

        A position is visible if any part of a visible cell is in it: a coarser map sees what its finer ones saw.
        """
        return self._of_size(height, width)[0]

    def positions(self, height: int, width: int) -> Tensor:
        """The M visible positions of such a map, int64, numbered through all images, row by row."""
        return self._of_size(height, width)[1]

    def mean(self, features_NCHW: Tensor) -> Tensor:
        """The mean over the visible positions, shape (N, C, 1, 1)."""
        visible_N1HW = self.at(*features_NCHW.shape[2:])
        count_N111 = visible_N1HW.sum(dim=(2, 3), keepdim=True)
        return (features_NCHW * visible_N1HW).sum(dim=(2, 3), keepdim=True) / count_N111

    def _of_size(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        if (height, width) not in self._maps:
            count, rows, columns = self.cells_Nhw.shape
            if height < rows:
                parts = self.cells_Nhw.view(count, height, rows // height, width, columns // width)
                map_NHW = parts.any(dim=4).any(dim=2)
            else:
                map_NHW = self.cells_Nhw.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)
            positions_M = map_NHW.flatten().nonzero()[:, 0]
            self._maps[height, width] = map_NHW.unsqueeze(1).to(self._device), positions_M.to(self._device)
        return self._maps[height, width]


@contextmanager
def sparse(network: nn.Module, visible: VisibleCells) -> Iterator[None]:
    """Within the block the forward passes of `network` see `visible` alone.

    Layers that read neighbours read 0 at hidden positions, and batch norm computes with the visible positions, also its
    running statistics; it returns 0 at hidden ones. What other layers return at hidden positions is read by none. The
    levels of a pyramid have a meaning at visible positions only.
    """
    handles = [handle for layer in network.modules() for handle in _hooks(layer, visible)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(layer: nn.Module, visible: VisibleCells) -> list[RemovableHandle]:
    if isinstance(layer, _BatchNorm):
        norm = _VisibleNorm(visible)
        return [layer.register_forward_pre_hook(norm.gather), layer.register_forward_hook(norm.scatter)]
    if isinstance(layer, _NEIGHBOURS) and not _is_pointwise(layer):

        def hide(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
            return inputs[0] * visible.at(*inputs[0].shape[2:])

        return [layer.register_forward_pre_hook(hide)]
    return []


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and {*layer.kernel_size, *layer.stride} == {1}


class _VisibleNorm:
    """Hooks by which a batch norm is given the visible positions as one image of M × 1 pixels."""

    def __init__(self, visible: VisibleCells) -> None:
        self._visible = visible
        self._size = torch.Size()

    def gather(self, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (x_NCHW,) = inputs
        self._size = x_NCHW.shape
        rows_MC: Tensor = _Rows.apply(x_NCHW.permute(0, 2, 3, 1).flatten(0, 2), self._positions())
        # In this layout of strides: with other ones of the same shape PyTorch 2.14 computes wrong gradients.
        return rows_MC[None, :, None].permute(0, 3, 1, 2)

    def scatter(self, layer: nn.Module, inputs: tuple[Tensor], output_1CM1: Tensor) -> Tensor:
        count, channels, height, width = self._size
        rows_MC = output_1CM1.permute(0, 2, 3, 1).flatten(0, 2)
        dense = rows_MC.new_zeros(count * height * width, channels).index_copy_(0, self._positions(), rows_MC)
        return dense.view(count, height, width, channels).permute(0, 3, 1, 2)

    def _positions(self) -> Tensor:
        return self._visible.positions(*self._size[2:])


class _Rows(torch.autograd.Function):
    """`index_select` of rows that differ: the gradient is copied, which is faster than adding it row by row."""

    @staticmethod
    def forward(ctx: Any, x_RC: Tensor, index_M: Tensor) -> Tensor:
        ctx.save_for_backward(index_M)
        ctx.rows = len(x_RC)
        return x_RC.index_select(0, index_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_MC: Tensor) -> tuple[Tensor, None]:
        (index_M,) = ctx.saved_tensors
        return gradient_MC.new_zeros(ctx.rows, gradient_MC.shape[1]).index_copy_(0, index_M, gradient_MC), None


def require_maskable(encoder: Encoder, backbone: Backbone) -> None:
    """Raise `UserError` if a layer of `encoder` mixes positions other than by a convolution or pooling of neighbours.

    Such are squeeze-and-excitation, global response norm and group norm: their means over the image would include
    hidden positions. Passes one small image through `encoder`.
    """
    names = {layer: name for name, layer in encoder.backbone.named_modules()}
    unfit: list[str] = []
    sizes = [(2 * STRIDE // stride, 3 * STRIDE // stride) for stride in (1, 2, 4, 8, 16, STRIDE)]

    def check(layer: nn.Module, inputs: Any, output: Any) -> None:
        is_map = isinstance(output, Tensor) and {output.shape[1:3], output.shape[2:4]} & {*sizes}
        if not (is_map and _is_maskable(layer)):
            unfit.append(f"{names[layer]} ({type(layer).__name__})")

    leaves = [layer for layer in encoder.backbone.modules() if next(layer.children(), None) is None]
    handles = [layer.register_forward_hook(check) for layer in leaves]
    training, first = encoder.training, next(encoder.parameters())
    with torch.no_grad():
        encoder.eval()(first.new_zeros(1, 1, 2 * STRIDE, 3 * STRIDE))
    encoder.train(training)
    for handle in handles:
        handle.remove()
    if unfit:
        raise UserError(
            f"{backbone} cannot be trained on masked images: its layer {unfit[0]} mixes positions of the whole image. "
            "Choose a network of convolutions, pooling and batch norm or layer norm, such as resnet50."
        )


def _is_maskable(layer: nn.Module) -> bool:
    """Whether masks apply to a layer without others inside; one without weights is an activation, dropout or none."""
    known = isinstance(layer, (_BatchNorm, *_NEIGHBOURS, *_POINTWISE))
    return known or not [*layer.parameters(), *layer.buffers()]
