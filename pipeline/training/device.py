"""The training device: memory layout, precision, compilation, and the optimizer of every training."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from pipeline.progress import Log
from pipeline.settings import Precision
from pipeline.training.cpu_tuning import adam_class, keep_freed_memory, tune_convolutions

Network = TypeVar("Network", bound=nn.Module)

COMPILE_FROM_STEPS = 2000
"""Shorter trainings are not compiled, since compiling takes most of a minute."""

_BF16_SINCE = (8, 0)  # CUDA capability from which tensor cores multiply bfloat16


def training_device() -> torch.device:
    """The CUDA device of this process, or the CPU if there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def to_device(network: Network, device: torch.device) -> Network:
    """`network`, moved in place to `device` in channels-last layout, the fastest for convolutions."""
    if device.type == "cpu":
        tune_convolutions(network)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam over `parameters`, whose step is one fused kernel on CPU and GPU."""
    return adam_class()(parameters, lr=learning_rate, betas=betas, fused=True)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which convolutions and matrix products compute in `precision`; weights stay float32.

    bfloat16 needs hardware support: a GPU since Ampere, a CPU with AVX512-BF16 or AMX. Other devices compute in
    float32, which is faster there. The choice depends on the device alone, never on a timing, so that a resumed
    training computes as before.
    """
    if precision == "bfloat16" and supports_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def supports_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BF16_SINCE
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def configure_backends(device: torch.device) -> None:
    """Configure this process for fast steps; on a CPU this changes no result.

    On a GPU float32 arithmetic may use tensor cores (TF32), and cuDNN times its convolution algorithms.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()


def maybe_compile(network: nn.Module, steps: int, log: Log, *, as_graph: bool = False) -> nn.Module:
    """`network` with its forward compiled on a GPU if a training of `steps` steps is long enough to gain by it.

    `as_graph` also records forward and backward as CUDA graphs, for batches so small that launching kernels takes
    longer than running them. A step must then release its gradients before its next forward.

    The choice depends on device and `steps` alone, so that a resumed training computes as before. If the machine cannot
    compile, this is logged and `network` itself is returned. On CPUs compiling brought no measurable gain.
    """
    if training_device().type == "cpu" or steps < COMPILE_FROM_STEPS:
        return network
    problem = _compiler_problem()
    if problem:
        log(f"Training steps run uncompiled and slower: torch.compile raised {problem}.")
        return network
    mode = "reduce-overhead" if as_graph else "default"
    return cast("nn.Module", torch.compile(network, dynamic=False, mode=mode))


@cache
def _compiler_problem() -> str:
    """The error of compiling a small function on this machine; empty if it succeeds."""

    def probe(x: Tensor) -> Tensor:
        return (x + 1).relu()

    try:
        torch.compile(probe, dynamic=False)(torch.zeros(8, device=training_device()))
    except Exception as error:  # any error of the compiler's toolchain
        return type(error).__name__
    return ""
