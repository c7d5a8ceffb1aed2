"""The decoder of the context encoder: from features to the inpainted centre."""

from torch import Tensor, nn
from torch.nn.functional import fold

_WIDTHS = (512, 256, 128, 64)  # not specified in the paper; those of the context encoder of 2016


class Decoder(nn.Module):
    """Four up-sampling blocks, each 3×3 up-convolution, batch norm and ReLU (paper section 4.2.1), then one 3×3
    convolution to grey.

    Input: features at stride 32, shape (N, channels, H/32, W/32). Output: the z-scored centre, shape
    (N, 1, H/2, W/2): four doublings of H/32 give exactly half the image's height.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = (channels, *_WIDTHS)
        ups = [_DeepUpConvolution, *[nn.ConvTranspose2d] * (len(_WIDTHS) - 1)]
        self.blocks = nn.Sequential(*[_up_block(up, *inputs[i : i + 2]) for i, up in enumerate(ups)])
        self.to_grey = nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """The inpainted centre, unbounded as z-scores are."""
        patch_N1HW: Tensor = self.to_grey(self.blocks(features_NCHW))
        return patch_N1HW


class _DeepUpConvolution(nn.ConvTranspose2d):
    """An up-convolution of few pixels with many channels, computed on a CPU by one matrix product.

    The product gives every pixel's 3×3 patch of outputs; overlapping patches are added. PyTorch's own makes the whole
    training step 5 % slower there (2048 channels of 2×3 pixels).
    """

    def forward(self, x_NCHW: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x_NCHW.is_cuda or output_size is not None:
            return super().forward(x_NCHW, output_size)
        height, width = x_NCHW.shape[2:]
        patches = self.weight.flatten(1).t() @ x_NCHW.flatten(2)
        return fold(patches, (2 * height, 2 * width), kernel_size=3, padding=1, stride=2)


def _up_block(up: type[nn.ConvTranspose2d], inputs: int, outputs: int) -> nn.Sequential:
    convolution = up(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
