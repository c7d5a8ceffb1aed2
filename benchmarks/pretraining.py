"""Speed of pretraining in memory compared with a plain loop, and the share of the device that both use.

`python -m benchmarks.pretraining` runs it alone and needs only PyTorch and this project, for instance on a GPU machine.
"""

import os
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.isolated_process import IsolatedProcess, Parts
from benchmarks.measure import Figure, Row, compare, figures_table, table
from benchmarks.plain_pretraining import BATCH, PlainTraining, memory_batches, use_tf32
from benchmarks.roofline import (
    Layer,
    Machine,
    Peaks,
    least_seconds,
    measured_peaks,
    operations,
    step_layers,
)
from pipeline.images.batches import Normalization
from pipeline.images.loader import ResidentLoader
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.encoders import build_encoder
from pipeline.pretraining.context_encoder import ContextEncoder, ContextEncoderTraining
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.settings import Backbone, Precision
from pipeline.training.cpu_tuning import SWITCH
from pipeline.training.device import (
    COMPILE_FROM_STEPS,
    configure_backends,
    maybe_compile,
    supports_bfloat16,
    to_device,
    training_device,
)

THREADS, LABELS = 2, 10
NORMALIZATION = Normalization(127.5, 73.9)
PLAIN = "an eager loop in {precision}: contiguous tensors, plain Adam, no augmentation"


@dataclass(frozen=True)
class Case:
    """A context encoder's training: CE+DCM, batches of 32 images of `height` × `width` pixels, `steps` an epoch.

    `precision` is the project's; the plain loop computes in float32, on a GPU in TF32.
    """

    backbone: Backbone
    precision: Precision
    height: int
    width: int
    steps: int

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return self.steps * BATCH

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"{self.backbone} CE+DCM, {self.height}×{self.width}, batch {BATCH}, {self.precision}"


def cases(device: torch.device) -> tuple[Case, ...]:
    """The paper's size on a GPU; on a CPU a small size with just enough steps to time."""
    if device.type == "cuda":
        return Case("resnet50", "bfloat16", 256, 384, 60), Case("vgg16_bn", "bfloat16", 256, 384, 30)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if supports_bfloat16(device) else ("float32",)
    steps: dict[Backbone, int] = {"resnet50": 4, "vgg16_bn": 2}
    return tuple(Case(b, precision, 64, 96, count) for b, count in steps.items() for precision in precisions)


def measuring_device() -> torch.device:
    """The training device; a CPU is set to two threads."""
    device = training_device()
    if device.type == "cpu":
        torch.set_num_threads(THREADS)
    return device


class Ours:
    """The project's training of a context encoder on `pool`, as in a training of the paper's length."""

    def __init__(self, case: Case, pool: PretrainingSet, device: torch.device) -> None:
        configure_backends(device)
        encoder = build_encoder(case.backbone)
        network = to_device(ContextEncoder(encoder, Decoder(encoder.channels[-1])), device)
        discriminator = to_device(Discriminator(len(pool.label_names)), device)
        inpaint = maybe_compile(network, COMPILE_FROM_STEPS, print)
        self.device = device
        self.training = ContextEncoderTraining(
            network,
            discriminator,
            pool.to(device),
            NORMALIZATION,
            ContextEncoderSettings(batch_size=BATCH, precision=case.precision),
            inpaint,
        )

    def take(self, pool: PretrainingSet) -> None:
        """Continue with another pool."""
        self.training.pool = pool.to(self.device)

    def epoch(self) -> list[float]:
        """Train one epoch and return the means of the steps' metrics."""
        steps = [self.training.step(batch) for batch in self.training.batches(1, 0)]
        means: list[float] = torch.stack(steps).mean(dim=0).tolist()
        return means


def in_memory(case: Case, device: torch.device) -> tuple[Row, list[Figure]]:
    """Compares the project's training with the plain loop; on a GPU also the memory of each."""
    with IsolatedProcess(_our_parts, case) as ours, IsolatedProcess(_plain_parts, case) as plain:
        ours("epoch")
        plain("epoch")
        figures = [
            Figure(f"{case.name}: GPU memory, {name}", f"{side('memory') / 2**30:.1f} GiB")
            for name, side in (("sonotag", ours), ("plain loop", plain))
            if device.type == "cuda"
        ]
        row = compare(
            f"train {case.name}, in memory",
            "images",
            case.images,
            lambda: ours("epoch"),
            lambda: plain("epoch"),
            PLAIN.format(precision="TF32" if device.type == "cuda" else "float32"),
        )
    return row, figures


def cpu_tuning(case: Case) -> Row:
    """The project's training with the speed-ups of `pipeline.training.cpu_tuning` and without them."""
    with IsolatedProcess(_our_parts, case) as tuned, IsolatedProcess(_untuned_parts, case) as untuned:
        tuned("epoch")
        untuned("epoch")
        what, peer_is = f"train {case.name}, tuned", f"the same with {SWITCH}=0"
        return compare(what, "images", case.images, lambda: tuned("epoch"), lambda: untuned("epoch"), peer_is)


def _untuned_parts(case: Case) -> Parts:
    os.environ[SWITCH] = "0"
    return _our_parts(case)


def _our_parts(case: Case) -> Parts:
    ours = Ours(case, pool_of(random_images(case), random_labels(case.images + BATCH)), measuring_device())
    return {"epoch": ours.epoch, "memory": torch.cuda.max_memory_allocated}


def _plain_parts(case: Case) -> Parts:
    device = measuring_device()
    plain = PlainTraining(case.backbone, LABELS, device)
    grey, labels = random_images(case)[: case.images], random_labels(case.images)

    def epoch() -> list[tuple[float, float]]:
        return plain.epoch(memory_batches(grey, labels, NORMALIZATION.mean, NORMALIZATION.sd, device))

    return {"epoch": epoch, "memory": torch.cuda.max_memory_allocated}


def random_images(case: Case) -> Tensor:
    """Noise, uint8: an epoch's images, and a batch for validation."""
    torch.manual_seed(0)
    return torch.randint(0, 256, (case.images + BATCH, case.height, case.width), dtype=torch.uint8)


def random_labels(count: int) -> Tensor:
    """Labels of `count` images."""
    return torch.randint(0, 2, (count, LABELS)).float()


def pool_of(images: Tensor, labels: Tensor) -> PretrainingSet:
    """A pool of `images`, each from a different patient; the last batch is for validation."""
    names = tuple(f"label-{number}" for number in range(LABELS))
    numbers, known = torch.arange(len(images)), torch.ones_like(labels).bool()
    return PretrainingSet(
        ResidentLoader(images), labels, known, numbers, numbers, numbers[:-BATCH], numbers[-BATCH:], names, "", ""
    )


def device_figures(peaks: Peaks, device: torch.device) -> list[Figure]:
    """The measured peaks of the device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    products = [
        Figure(f"matrix product, {kind}, {str(dtype).removeprefix('torch.')}", f"{rate / 1e9:,.0f} GFLOP/s")
        for (kind, dtype), rate in peaks.products.items()
    ]
    bandwidth = Figure("memory bandwidth, copy or triad", f"{peaks.bytes / 1e9:,.0f} GB/s")
    return [Figure("device", f"{name}, PyTorch {torch.__version__}"), *products, bandwidth]


def use_of_device(case: Case, row: Row, peaks: Peaks) -> list[Figure]:
    """Operations of a step, its least time in the case's number format, and the share of it that each side reaches."""
    dtype = torch.bfloat16 if case.precision == "bfloat16" else torch.float32
    layers, machine = _layers(case, dtype), peaks.machine(dtype)
    least = least_seconds(layers, machine)
    bound = least_seconds((layer for layer in layers if machine.bound_by_bytes(layer)), machine) / least
    busy = operations(layers) / machine.operations
    form = str(dtype).removeprefix("torch.")
    return [
        Figure(f"{case.name}: operations per image", f"{operations(layers) / BATCH / 1e9:.2f} GFLOP"),
        Figure(f"{case.name}: least time of a step, {form}", f"{least * 1e3:,.1f} ms, {bound:.0%} bound by bandwidth"),
        Figure(f"{case.name}: forward + backward, by kind of layer", _by_kind(layers, machine)),
        Figure(f"{case.name}: share of this roofline", _shares(least, row)),
        Figure(f"{case.name}: share of the fastest matrix product, {form}", _shares(busy, row)),
    ]


def _layers(case: Case, dtype: torch.dtype) -> list[Layer]:
    return step_layers(case.backbone, LABELS, BATCH, case.height, case.width, dtype)


def _by_kind(layers: list[Layer], machine: Machine) -> str:
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for layer in layers:
        seconds[layer.kind, layer.direction] += machine.seconds(layer)
    kinds = dict.fromkeys(kind for kind, _ in seconds)
    return ", ".join(f"{k} {seconds[k, 'forward'] * 1e3:.1f} + {seconds[k, 'backward'] * 1e3:.1f} ms" for k in kinds)


def _shares(least: float, row: Row) -> str:
    """`least` seconds per step as a share of the measured times."""
    return f"sonotag {least * row.ours / BATCH:.0%}, plain loop {least * row.peer / BATCH:.0%}"


def short() -> list[Row]:
    """The row of the first case."""
    device = measuring_device()
    return [in_memory(cases(device)[0], device)[0]]


def measure() -> tuple[list[Row], list[Figure]]:
    """A row per backbone and, on a CPU, one of its tuning; how much of the device each backbone uses."""
    device = measuring_device()
    tuning = [cpu_tuning(cases(device)[0])] if device.type == "cpu" else []
    measured = [in_memory(case, device) for case in cases(device)]
    use_tf32(device)
    peaks = measured_peaks(device)
    figures = device_figures(peaks, device)
    for case, (row, memory) in zip(cases(device), measured, strict=True):
        figures += [*use_of_device(case, row, peaks), *memory]
    return [*(row for row, _ in measured), *tuning], figures


if __name__ == "__main__":
    rows, figures = measure()
    print(table(rows), figures_table(figures), sep="\n\n")
