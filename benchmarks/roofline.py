"""The least time of a training step on a device (roofline): operations and bytes per layer, and measured peaks."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.plain_pretraining import Discriminator, Generator, center, loss_d, loss_f

Direction = Literal["forward", "backward"]

_KINDS = {
    "convolution": "convolution",
    "convolution_backward": "convolution",
    "native_batch_norm": "batch norm",
    "native_batch_norm_backward": "batch norm",
    "relu": "activation",
    "relu_": "activation",
    "leaky_relu_": "activation",
    "threshold_backward": "activation",
    "leaky_relu_backward": "activation",
    "max_pool2d_with_indices": "pooling",
    "max_pool2d_with_indices_backward": "pooling",
    "addmm": "fully connected",
    "mm": "fully connected",
}
"""Operators that are a layer, or its backward pass. Sums, losses and Adam between layers are excluded, so the
least time is rather too short than too long."""


@dataclass(frozen=True)
class Layer:
    """One layer in one direction: floating-point `operations` (a multiply-add is two) and `bytes` read and written."""

    kind: str
    direction: Direction
    operations: int
    bytes: int


@dataclass(frozen=True)
class Machine:
    """Measured peaks of a device, per second."""

    operations: float
    bytes: float

    def seconds(self, layer: Layer) -> float:
        """The least time of `layer`: the longer of its arithmetic and its traffic."""
        return max(layer.operations / self.operations, layer.bytes / self.bytes)

    def bound_by_bytes(self, layer: Layer) -> bool:
        """Whether the traffic takes longer than the arithmetic."""
        return layer.bytes / self.bytes > layer.operations / self.operations


@dataclass(frozen=True)
class Peaks:
    """Measured peaks of a device: operations/s of every kind of matrix product tried, and bytes/s."""

    products: Mapping[tuple[str, torch.dtype], float]
    bytes: float

    def machine(self, dtype: torch.dtype) -> Machine:
        """The device at `dtype`, by its fastest kind of product."""
        return Machine(max(rate for (_, of), rate in self.products.items() if of == dtype), self.bytes)


class LayerRecorder(TorchDispatchMode):
    """Context that appends every computed layer to `layers`; free on the meta device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []
        self._direction: Direction = "forward"

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Context in which layers are recorded as backward."""
        self._direction = "backward"
        yield
        self._direction = "forward"

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        packet = operator.overloadpacket
        if kind := _KINDS.get(packet.__name__):
            count = flop_registry.get(packet)
            operations = count(*args, **(kwargs or {}), out_val=result) if count else 0
            self.layers.append(Layer(kind, self._direction, operations, _bytes((args, kwargs)) + _bytes(result)))
        return result


def step_layers(
    backbone: str, labels: int, batch: int, height: int, width: int, dtype: torch.dtype = torch.float32
) -> list[Layer]:
    """The layers of one CE+DCM step in their order, every tensor of type `dtype`.

    No pass is done twice: F forwards once; D on the real, on the inpainted and, after its own step, on the inpainted
    patches; D's own gradients are not computed in F's step.
    """
    with torch.device("meta"):
        generator, discriminator = Generator(backbone).to(dtype), Discriminator(labels).to(dtype)
        images, known = torch.empty(batch, 1, height, width, dtype=dtype), torch.empty(batch, labels, dtype=dtype)
    recorder = LayerRecorder()
    with recorder:
        inpainted = generator(images)
        of_d = loss_d(discriminator, center(images), inpainted, known)
        with recorder.backward():
            of_d.backward()
        discriminator.requires_grad_(False)
        of_f = loss_f(discriminator, center(images), inpainted, known)
        with recorder.backward():
            of_f.backward()
    return recorder.layers


def operations(layers: Iterable[Layer]) -> int:
    """Floating-point operations of all `layers`."""
    return sum(layer.operations for layer in layers)


def least_seconds(layers: Iterable[Layer], machine: Machine) -> float:
    """The sum of the layers' least times: no two of them overlap, none is fused with the next."""
    return sum(map(machine.seconds, layers))


def measured_peaks(device: torch.device) -> Peaks:
    """Peaks of `device`, the best of several sizes each (some seconds)."""
    dtypes = (torch.float32, torch.bfloat16)
    kinds = {"torch.mm": _mm_rate, "1×1 convolution": _convolution_rate}
    products = {(kind, dtype): rate(device, dtype) for kind, rate in kinds.items() for dtype in dtypes}
    return Peaks(products, _bandwidth(device))


def _bytes(values: Any) -> int:
    """Bytes in memory of the floating-point tensors in nested `values`.

    A max pooling's indices (int64) are left out: PyTorch's implementation writes them; the layer does not need them.
    """
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor) and value.is_floating_point()]
    return sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)


def _mm_rate(device: torch.device, dtype: torch.dtype) -> float:
    def rate(side: int) -> float:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        return 2 * side**3 / _fastest(lambda: torch.mm(a, b), device)

    return max(map(rate, (2048, 4096, 8192) if device.type == "cuda" else (512, 1024, 2048)))


def _convolution_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The same product computed by the convolution library: on a CPU often another library, with other peaks."""

    def rate(channels: int) -> float:
        x = torch.randn(32, channels, 16, 24, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 1, 1, device=device).to(dtype, memory_format=torch.channels_last)
        seconds = _fastest(lambda: torch.conv2d(x, weight), device)
        return 2 * x.numel() * channels / seconds

    return max(map(rate, (1024, 2048, 4096) if device.type == "cuda" else (128, 256, 512)))


def _bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy or a triad (a = b + 2 c) of tensors larger than any cache."""
    a, b, c = (torch.ones(2**26, device=device) for _ in range(3))
    copy = 2 * a.nbytes / _fastest(lambda: a.copy_(b), device)
    return max(copy, 3 * a.nbytes / _fastest(lambda: torch.add(b, c, alpha=2, out=a), device))


@torch.no_grad()
def _fastest(run: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Seconds of the fastest of several runs, after a warm-up run."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
