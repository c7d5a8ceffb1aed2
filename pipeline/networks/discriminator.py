"""The discriminator: scores of patches, with a linear projection of their labels."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.linalg import matrix_norm
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList, cached, is_parametrized

_WIDTHS = (64, 128, 256, 512)  # those of DCGAN (Radford et al. 2015), which the paper cites
_SLOPE = 0.2


class Discriminator(nn.Module):
    """D(x, y) = C(d(x)) + d(x)ᵀ W y (paper section 3.2); d(x) is the spatial mean of features of four stride-2 blocks.

    A block is 3×3 convolution, batch norm and LeakyReLU (paper section 4.2.1); without `batch_norm` the convolution has
    a bias instead. With `labels` = 0 there is no W, and D(x) = C(d(x)).

    W starts with C's spectral norm, so that labels and patch contribute about equally to the first gradients. The
    reference of the projection discriminator (Miyato and Koyama 2018) keeps both spectral norms at 1. `nn.Linear`
    initializes W with about eight times C's spectral norm.

    With `spectral` normalization every weight (convolutions, C and W) is divided by its spectral norm in each forward
    pass, in place of batch norm (Miyato et al. 2018; Miyato and Koyama 2018). One power iteration in each forward pass
    of training follows the norm; a frozen network makes none.
    """

    def __init__(self, labels: int, batch_norm: bool = True, spectral: bool = False) -> None:
        super().__init__()
        inputs, batch_norm = (1, *_WIDTHS), batch_norm and not spectral
        self.features = nn.Sequential(*[_down_block(inputs[i], inputs[i + 1], batch_norm) for i in range(len(_WIDTHS))])
        self.classifier = nn.Linear(_WIDTHS[-1], 1)
        self.projection = nn.Linear(labels, _WIDTHS[-1], bias=False) if labels else None
        if spectral:
            for layer in [module for module in self.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]:
                spectral_norm(layer)
        elif self.projection is not None:
            _balance(self.projection.weight, self.classifier.weight)

    def forward(self, patch_N1HW: Tensor, labels_NL: Tensor) -> Tensor:
        """Scores, shape (N,), of z-scored patches, real or inpainted; positive means real.

        `labels_NL` are the labels of the patches' images; unknown labels are 0 and add nothing. A discriminator without
        W ignores them.
        """
        with cached():
            self._normalize_weights(patch_N1HW.device.type)
            return self._score(patch_N1HW, labels_NL)

    def _normalize_weights(self, device_type: str) -> None:
        """Divide the weights by their spectral norms, for the forward pass under way; float32 also under autocast."""
        with torch.autocast(device_type, enabled=False):
            for layer in filter(is_parametrized, self.modules()):
                _ = layer.weight

    def _score(self, patch_N1HW: Tensor, labels_NL: Tensor) -> Tensor:
        pooled_ND: Tensor = self.features(patch_N1HW).mean(dim=(2, 3))
        score_N: Tensor = self.classifier(pooled_ND).squeeze(1)
        if self.projection is None:
            return score_N
        projected_ND: Tensor = self.projection(labels_NL)
        return score_N + (pooled_ND * projected_ND).sum(dim=1)


@torch.no_grad()
def _balance(weight: Tensor, reference: Tensor) -> None:
    """Scale `weight` in place so that its spectral norm is that of `reference`."""
    weight.mul_(matrix_norm(reference, 2) / matrix_norm(weight, 2))


@contextmanager
def frozen_network(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of `network`'s parameters and keep its running statistics; batch norm uses the batch's own.

    Used in the generator step, in which gradients flow through D to the patch, and in validation.
    """
    network.requires_grad_(False)
    try:
        with without_running_statistics(network):
            yield
    finally:
        network.requires_grad_(True)


@contextmanager
def without_running_statistics(network: nn.Module) -> Iterator[None]:
    """Keep `network`'s running statistics and its estimates of spectral norms.

    In training mode batch norm normalizes by the batch.
    """
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    estimates = [module for module in network.modules() if isinstance(module, ParametrizationList)]
    for norm in norms:
        norm.track_running_stats = False
    for estimate in estimates:
        estimate.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for estimate in estimates:
            estimate.train(network.training)


def _down_block(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=not batch_norm)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(convolution, *norm, nn.LeakyReLU(_SLOPE, inplace=True))
