"""Where training runs, and how networks lie there.

Belongs here: the choice of device, memory layout, the optimizer both loops use. Not here: the loops.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def training_device() -> torch.device:
    """The first CUDA device where there is one, the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_device(network: Network, device: torch.device) -> Network:
    """`network`, moved in place to `device` in the layout that convolutions are fastest in (channels last)."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam whose step is one fused kernel over `parameters`, on the CPU as on a GPU."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=betas, fused=True)
