"""Speed-ups of a training step on a CPU: two that use private parts of PyTorch and glibc, and matrix products.

The first two change no result, the products only its rounding. `SONOTAG_CPU_TUNING=0` switches all of them off.
`python -m benchmarks pretraining` measures a step with and without them.
"""

import ctypes
import os
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.matrix_convolution import use_matrix_products

SWITCH = "SONOTAG_CPU_TUNING"
"""The environment variable: `0` switches the speed-ups off."""

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


def adam_class() -> type[torch.optim.Adam]:
    """The Adam whose fused step is fastest here."""
    return _ChannelsLastAdam if _enabled() else torch.optim.Adam


def tune_convolutions(network: nn.Module) -> None:
    """Compute convolutions of many weights and few positions by matrix products, in place."""
    if _enabled():
        use_matrix_products(network)


def keep_freed_memory() -> None:
    """Keep the memory of a step's tensors in this process from step to step, on Linux.

    glibc would return blocks of this size to the system each time and fetch them again page by page (7 % of a
    ResNet-50 step at 64×96).
    """
    if sys.platform == "linux" and _enabled():
        _raise_malloc_thresholds()


def _enabled() -> bool:
    return os.environ.get(SWITCH) != "0"


@cache
def _raise_malloc_thresholds() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from C libraries other than glibc
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


class _ChannelsLastAdam(torch.optim.Adam):
    """Adam that passes channels-last weights to the CPU's fused kernel as the contiguous memory that they are.

    The kernel walks storage, but first copies every gradient that is not contiguous in name, and then ignores the copy:
    a third of its time. It would read a gradient of another layout in the wrong order; here such a gradient is first
    brought into the layout of its weights.
    """

    def _init_group(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        gradients: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        *more: list[Tensor],
    ) -> bool:
        found: bool = super()._init_group(group, parameters, gradients, means, squares, *more)  # type: ignore[no-untyped-call]
        for i, parameter in enumerate(parameters):
            if parameter.is_cuda or not parameter.is_contiguous(memory_format=torch.channels_last):
                continue
            for tensors in (parameters, gradients, means, squares):
                tensors[i] = tensors[i].permute(0, 2, 3, 1)
            gradients[i] = gradients[i].contiguous()
        return found
