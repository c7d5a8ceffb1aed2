"""Run by torchrun: three steps of CE+DCM by every process, and what each one measured and ended with.

Belongs here: the processes' side of test_data_parallel.py. Not here: what is expected of them.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.images.batches import fit_normalization
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.pretraining.context_encoder import TRAIN_METRICS, ContextEncoder, ContextEncoderTraining
from pipeline.pretraining.dataset import Batch
from pipeline.training.device import to_device
from pipeline.training.distributed import mean_over_processes, process_group
from pipeline.training.seeds import seeded
from pipeline.training.tensors import write_tensors
from tests.pipeline.pretraining.conftest import LABELS, TinyEncoder, make_pool, without_augmentation

STEPS = 3
HALF = 3
"""Images of each of two processes in a step."""


def settings() -> ContextEncoderSettings:
    return without_augmentation(
        ContextEncoderSettings(batch_size=HALF, learning_rate=1e-3, discriminator_learning_rate=1e-3, lambda_adv=0.1)
    )


def networks() -> tuple[ContextEncoder, Discriminator]:
    """In double precision: Adam's first steps take the sign of a gradient, so single precision's noise would show."""
    with seeded(0, "data parallel"):
        encoder = TinyEncoder()
        context_encoder = ContextEncoder(encoder, Decoder(encoder.channels[-1]))
        discriminator = Discriminator(len(LABELS))
    cpu = torch.device("cpu")
    return to_device(context_encoder.double(), cpu), to_device(discriminator.double(), cpu)


def double(batch: Batch) -> Batch:
    return replace(batch, x_N1HW=batch.x_N1HW.double(), labels_NL=batch.labels_NL.double())


def main(folder: Path) -> None:
    pool = make_pool(count=28, train=20)
    with process_group() as group:
        share = pool.shard(group.rank, group.world_size)
        normalization = fit_normalization(pool.images, pool.train)
        training = ContextEncoderTraining(*networks(), share, normalization, settings())
        rows = [training.step(double(batch)) for batch, _ in zip(training.batches(1, 0), range(STEPS), strict=False)]
        means = mean_over_processes(torch.stack(rows))
        for network in (training.context_encoder, training.discriminator):
            network.float()
        metrics = training.validate()
        tensors = {f"weights.{name}": tensor for name, tensor in training.context_encoder.state_dict().items()}
        tensors |= {f"d.{name}": tensor for name, tensor in training.discriminator.state_dict().items()}
        measured = {"steps": means, "validation": torch.tensor(list(metrics.values()))}
        assert means.shape == (STEPS, len(TRAIN_METRICS))
        write_tensors(folder / f"rank-{group.rank}.safetensors", tensors | measured)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
