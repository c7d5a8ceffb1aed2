"""Where training runs, and how networks lie and compute there.

Belongs here: the choice of device, memory layout and memory, precision, compilation, the optimizer both loops use. Not
here: the loops.
"""

import ctypes
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from pipeline.progress import Log
from pipeline.recipe import Precision

Network = TypeVar("Network", bound=nn.Module)

COMPILE_FROM_STEPS = 2000
"""Compiling costs the better part of a minute: shorter trainings do without."""

_BF16_SINCE = (8, 0)  # CUDA capability from which tensor cores multiply bfloat16
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


def training_device() -> torch.device:
    """The CUDA device of this process where there is one, the CPU otherwise."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def to_device(network: Network, device: torch.device) -> Network:
    """`network`, moved in place to `device` in the layout that convolutions are fastest in (channels last)."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam whose step is one fused kernel over `parameters`, on the CPU as on a GPU."""
    return _Adam(parameters, lr=learning_rate, betas=betas, fused=True)


class _Adam(torch.optim.Adam):
    """Adam that shows the CPU's fused kernel weights that lie channels last as what they are in memory: contiguous.

    That kernel walks storage, but first copies every gradient that does not call itself contiguous, and does not look
    at the copy: a third of its time. A gradient that lies otherwise than its weights would be taken in the wrong order;
    here it is brought into theirs.
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


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within the block convolutions and matrix products of networks compute in `precision`; weights stay float32.

    bfloat16 is taken where the device multiplies it in hardware: a GPU since Ampere, a CPU with AVX512-BF16 or AMX.
    Elsewhere it would be slower than float32, which is then kept. The choice depends on the device alone, never on a
    timing, so that a resumed training computes as before.
    """
    if precision == "bfloat16" and supports_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def supports_bfloat16(device: torch.device) -> bool:
    """Whether the device has arithmetic for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BF16_SINCE
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def configure_backends(device: torch.device) -> None:
    """Settings of the process that make every step faster; they change no result on a CPU.

    On Linux the memory of a step's tensors stays with the process from step to step: glibc would give blocks of this
    size back to the system each time, and take them again page by page (7 % of a ResNet-50 step at 64×96). On a GPU
    what stays float32 may use tensor cores (TF32), and convolutions are chosen by trying.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    elif sys.platform == "linux":
        _keep_freed_memory()


@cache
def _keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def maybe_compile(network: nn.Module, steps: int, log: Log, *, as_graph: bool = False) -> nn.Module:
    """`network` with its forward compiled, on a GPU and where a training of `steps` steps is long enough to gain by it.

    `as_graph` records forward and backward as CUDA graphs too, which are launched as one: for batches so small that
    launching the kernels takes longer than they do. A step must then let go of its gradients before its next forward.

    The choice depends on device and `steps` alone, so that a resumed training computes as before. Where the machine
    cannot compile, that is said, and `network` itself is returned. On CPUs compiling brought nothing that could be
    measured beyond the memory layout and `configure_backends`.
    """
    if training_device().type == "cpu" or steps < COMPILE_FROM_STEPS:
        return network
    problem = _compiler_problem()
    if problem:
        log(f"Training steps are not compiled ({problem}); they are slower so.")
        return network
    mode = "reduce-overhead" if as_graph else "default"
    return cast("nn.Module", torch.compile(network, dynamic=False, mode=mode))


@cache
def _compiler_problem() -> str:
    """Why nothing can be compiled here; empty where a first try succeeds."""

    def probe(x: Tensor) -> Tensor:
        return (x + 1).relu()

    try:
        torch.compile(probe, dynamic=False)(torch.zeros(8, device=training_device()))
    except Exception as error:  # whatever the compiler's own toolchain raises
        return type(error).__name__
    return ""
