"""How much of a contrastive step the two views take, beside the network, alternately.

On a CPU both are processor time of one thread, which other processes change little; on a GPU wall time.
`python -m benchmarks.views` runs it alone and needs only PyTorch and this project, for instance on a GPU machine.
"""

import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks.measure import Figure, figures_table
from benchmarks.pretraining import LABELS, NORMALIZATION, pool_of
from pipeline.methods.contrastive import ContrastiveSettings
from pipeline.methods.simclr import SIMCLR
from pipeline.networks.encoders import build_encoder
from pipeline.pretraining.contrastive import ContrastiveTraining, ProjectionHead
from pipeline.settings import Backbone, Precision
from pipeline.training.device import configure_backends, supports_bfloat16, to_device, training_device

BATCH, STEPS, HEIGHT, WIDTH = 64, 4, 64, 96
_BACKBONES: tuple[Backbone, ...] = ("resnet50", "resnet18")


def figures() -> list[Figure]:
    """Views per second alone, and their share of a step, for each backbone and precision."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    computed = precisions if supports_bfloat16(training_device()) else precisions[:1]
    return [figure for backbone in _BACKBONES for precision in computed for figure in _figures(backbone, precision)]


def _training(backbone: Backbone, precision: Precision) -> ContrastiveTraining:
    device = training_device()
    images = torch.randint(0, 256, ((STEPS + 1) * BATCH, HEIGHT, WIDTH), dtype=torch.uint8)
    pool = pool_of(images, torch.zeros(len(images), LABELS)).to(device)
    settings = ContrastiveSettings(batch_size=BATCH, precision=precision)
    encoder = to_device(build_encoder(backbone), device)
    head = to_device(ProjectionHead(encoder.channels[-1], settings.projection), device)
    return ContrastiveTraining(SIMCLR, encoder, head, pool, NORMALIZATION, settings)


def _figures(backbone: Backbone, precision: Precision) -> Iterator[Figure]:
    training = _training(backbone, precision)
    torch.set_num_threads(1)
    configure_backends(training_device())
    making, learning = [], []
    batches = training.batches(1, 0)
    for _ in range(STEPS):
        started = _now()
        batch = next(batches)
        made = _now()
        training.step(batch)
        making.append(made - started)
        learning.append(_now() - made)
    views, step = statistics.median(making[1:]), statistics.median(learning[1:])  # the first of each warms up
    what = f"{backbone}, two views each of {BATCH} images, {HEIGHT}×{WIDTH}, {precision}"
    yield Figure(f"{what}: making the views", f"{2 * BATCH / views:,.0f} views/s, {1000 * views:.0f} ms a step")
    yield Figure(f"{what}: network and loss", f"{2 * BATCH / step:,.0f} views/s, {1000 * step:,.0f} ms a step")
    yield Figure(f"{what}: the views' share of a step", f"{100 * views / (views + step):.1f} %")


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    print(figures_table(figures()))
