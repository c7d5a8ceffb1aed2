"""A loss term's share of the gradient at an encoder's weights: measured in some steps, and kept at a target."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.pretraining.losses import gradient_ratio
from pipeline.training.distributed import mean_over_processes

SHARE_EVERY = 100
"""Steps between two measurements of a term of fixed weight, from an epoch's first on; these steps take longer."""
CONTROL_EVERY = 20
"""The same of a term with a target."""
GAIN = 0.2
"""The part of the deviation from the target, as a logarithm, that one adjustment corrects, after the first ones."""
BOUNDS = 1e-6, 1e6
"""Of an adjusted weight: a term whose gradient vanishes keeps a finite one."""


class GradientShare(nn.Module):
    """The weight of a loss term, and its share: the ratio of its gradient norm to that of a reference term.

    With a `target` the n-th measured share adjusts the weight, w ← w · (target / share)^g with g = 1/n, but at least
    `GAIN`, within `BOUNDS`. The logarithm of w is thus the mean over the measurements, later an exponential mean, of
    the logarithm of the weight that would have met the target. A share of 0 (a batch without a known label) and a
    weight of 0 change nothing. The adjusted weight is a buffer, so that checkpoints hold it; all processes adjust it
    equally, by the mean of their shares. An epoch has `steps` steps.
    """

    adjusted: Tensor
    measurements: Tensor

    def __init__(self, weight: float, target: float | None, steps: int) -> None:
        super().__init__()
        self._fixed, self.target = weight, target if weight else None
        self._steps, self._step = steps, 0
        if self.target is not None:
            self.register_buffer("adjusted", torch.tensor(weight))
            self.register_buffer("measurements", torch.zeros(()))

    @property
    def weight(self) -> float | Tensor:
        """The factor of the term in the loss of the next step."""
        return self._fixed if self.target is None else self.adjusted

    def names(self, share: str, weight: str) -> tuple[str, ...]:
        """Names of the values that `measure` returns, by those of both."""
        return (share,) if self.target is None else (share, weight)

    def begin_epoch(self, first_step: int) -> None:
        """Count an epoch's steps from `first_step` on."""
        self._step = first_step

    def measure(self, terms: Callable[[], tuple[Tensor, Tensor]], weights: Sequence[Tensor]) -> list[Tensor]:
        """The share at `weights` before this step, and the weight of the step if it has a target; on the device.

        `terms` returns the term, without its weight, and the reference term. It is called in one step of `SHARE_EVERY`,
        or of `CONTROL_EVERY`. The share is 0 in all other steps, and scaled so that the mean over an epoch's steps is
        the mean of those measured.
        """
        every = SHARE_EVERY if self.target is None else CONTROL_EVERY
        measured, self._step = self._step % every == 0, self._step + 1
        share = torch.zeros((), device=weights[0].device)
        if measured:
            term, reference = terms()
            share = gradient_ratio(self.weight * term, reference, weights)
            if self.target is not None:
                share = mean_over_processes(share)
                self._adjust(share, self.target)
        share = share * (self._steps / math.ceil(self._steps / every))
        return [share] if self.target is None else [share, self.adjusted.clone()]

    @torch.no_grad()
    def _adjust(self, share: Tensor, target: float) -> None:
        self.measurements.add_(share > 0)
        gain = (1 / self.measurements).clamp(min=GAIN)
        factor = torch.where(share > 0, (target / share) ** gain, torch.ones_like(share))
        self.adjusted.mul_(factor).clamp_(*BOUNDS)
