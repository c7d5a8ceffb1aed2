"""The discriminator with its linear projection of the labels.

Belongs here: the score of a patch, given its labels. Not here: losses made of scores.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

_WIDTHS = (64, 128, 256, 512)  # the paper gives none; those of DCGAN (Radford et al. 2015), which it names
_SLOPE = 0.2


class Discriminator(nn.Module):
    """D(x, y) = C(d(x)) + d(x)ᵀ W y (paper section 3.2), d being the mean over the features of four stride-2 blocks.

    A block is 3×3 convolution, batch norm and LeakyReLU (paper section 4.2.1); without `batch_norm` the convolution has
    a bias in its place. With `labels` = 0 there is no W, and D(x) = C(d(x)).
    """

    def __init__(self, labels: int, batch_norm: bool = True) -> None:
        super().__init__()
        inputs = (1, *_WIDTHS)
        self.features = nn.Sequential(*[_down_block(inputs[i], inputs[i + 1], batch_norm) for i in range(len(_WIDTHS))])
        self.classifier = nn.Linear(_WIDTHS[-1], 1)
        self.projection = nn.Linear(labels, _WIDTHS[-1], bias=False) if labels else None

    def forward(self, patch_N1HW: Tensor, labels_NL: Tensor) -> Tensor:
        """Scores, shape (N,), of z-scored patches, real or inpainted: positive is real.

        `labels_NL` are the labels of the patches' own images, 0 where a label is not known: that label adds nothing.
        They are not looked at where the discriminator has no W.
        """
        pooled_ND: Tensor = self.features(patch_N1HW).mean(dim=(2, 3))
        score_N: Tensor = self.classifier(pooled_ND).squeeze(1)
        if self.projection is None:
            return score_N
        projected_ND: Tensor = self.projection(labels_NL)
        return score_N + (pooled_ND * projected_ND).sum(dim=1)


@contextmanager
def held_fixed(network: nn.Module) -> Iterator[None]:
    """Within the block `network`'s forward neither asks for gradients of its parameters nor moves its running
    statistics; its batch norm still normalizes by the batch.

    It is how the context encoder's step uses D: gradients flow through D to the patch, and D stays as it is.
    """
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    network.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        network.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True


def _down_block(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=not batch_norm)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(convolution, *norm, nn.LeakyReLU(_SLOPE, inplace=True))
