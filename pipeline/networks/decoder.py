"""The decoder of the context encoder.

Belongs here: features to the inpainted centre. Not here: losses, the encoder.
"""

from torch import Tensor, nn

_WIDTHS = (512, 256, 128, 64)  # the paper gives none; those of the context encoder of 2016


class Decoder(nn.Module):
    """Four up-sampling blocks, each 3×3 up-convolution, batch norm and ReLU (paper section 4.2.1), then one 3×3
    convolution to grey.

    Input: features at stride 32, shape (N, channels, H/32, W/32). Output: the z-scored centre, shape
    (N, 1, H/2, W/2): four doublings of H/32 give exactly half the image's height.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = (channels, *_WIDTHS)
        self.blocks = nn.Sequential(*[_up_block(inputs[i], inputs[i + 1]) for i in range(len(_WIDTHS))])
        self.to_grey = nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """The inpainted centre; not bounded, as z-scores are not."""
        patch_N1HW: Tensor = self.to_grey(self.blocks(features_NCHW))
        return patch_N1HW


def _up_block(inputs: int, outputs: int) -> nn.Sequential:
    up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(up, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
