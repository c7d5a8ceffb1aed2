"""Run by torchrun: three steps of CE+DCM, twice, of SupCon and of SparK by every process, and what each ended with.

Belongs here: the processes' side of test_data_parallel.py. Not here: what is expected of them.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.images.batches import Normalization, fit_normalization
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.methods.contrastive import ContrastiveSettings
from pipeline.methods.spark import SparkSettings
from pipeline.methods.supcon import SUPCON
from pipeline.networks import hierarchical_decoder
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.hierarchical_decoder import HierarchicalDecoder
from pipeline.pretraining.context_encoder import TRAIN_METRICS, ContextEncoder, ContextEncoderTraining
from pipeline.pretraining.contrastive import ContrastiveTraining, ProjectionHead
from pipeline.pretraining.dataset import Batch, PretrainingSet
from pipeline.pretraining.encoder_scores import EncoderScores
from pipeline.pretraining.spark import Spark, SparkTraining
from pipeline.settings import Augmentation
from pipeline.training.device import to_device
from pipeline.training.distributed import mean_over_processes, process_group
from pipeline.training.seeds import seeded
from pipeline.training.tensors import write_tensors
from tests.pipeline.pretraining.conftest import LABELS, NARROW, TinyEncoder, make_pool, without_augmentation

STEPS = 3
HALF = 3
"""Images of each of two processes in a step."""


def settings() -> ContextEncoderSettings:
    return without_augmentation(
        ContextEncoderSettings(batch_size=HALF, learning_rate=1e-3, discriminator_learning_rate=1e-3, lambda_adv=0.1)
    )


def controlled() -> ContextEncoderSettings:
    return settings().model_copy(update={"adversarial_share": 0.3, "discriminator_spectral_norm": True})


def networks(spectral: bool = False) -> tuple[ContextEncoder, Discriminator]:
    """In double precision: Adam's first steps take the sign of a gradient, so single precision's noise would show."""
    with seeded(0, "data parallel"):
        encoder = TinyEncoder()
        context_encoder = ContextEncoder(encoder, Decoder(encoder.channels[-1]))
        discriminator = Discriminator(len(LABELS), spectral=spectral)
    cpu = torch.device("cpu")
    return to_device(context_encoder.double(), cpu), to_device(discriminator.double(), cpu)


NORMALIZATION = Normalization(70.0, 50.0)
CONTRAST = ContrastiveSettings(batch_size=HALF, learning_rate=1e-3)
MASKED = SparkSettings(batch_size=HALF, learning_rate=1e-3)


def contrastive_networks() -> tuple[TinyEncoder, ProjectionHead]:
    """In double precision, as `networks`."""
    with seeded(0, "data parallel"):
        return TinyEncoder().double(), ProjectionHead(8, 16).double()


def contrast(share: PretrainingSet) -> dict[str, torch.Tensor]:
    """The losses of three steps of SupCon, the weights after them, and the validation loss."""
    encoder, head = contrastive_networks()
    training = ContrastiveTraining(SUPCON, encoder, head, share, NORMALIZATION, CONTRAST)
    batches = (replace(batch, x_M1HW=batch.x_M1HW.double()) for batch in training.batches(1, 0))
    losses = torch.stack([training.step(batch) for batch, _ in zip(batches, range(STEPS), strict=False)])
    training.network.float()
    validation = torch.tensor(training.validate()["val_loss"])
    weights = {f"contrast.{name}": tensor for name, tensor in training.network.state_dict().items()}
    return {"losses": losses, "validation loss": validation, **weights}


def spark_network() -> Spark:
    """In double precision, as `networks`."""
    hierarchical_decoder._WIDTHS = NARROW
    with seeded(0, "data parallel"):
        encoder = TinyEncoder()
        return Spark(encoder, HierarchicalDecoder(encoder)).double()


def masked(share: PretrainingSet) -> dict[str, torch.Tensor]:
    """The losses of three steps of SparK, the weights after them, and the validation loss."""
    training = SparkTraining(spark_network(), share, NORMALIZATION, MASKED)
    batches = (replace(batch, images=double(batch.images)) for batch in training.batches(1, 0))
    losses = torch.stack([training.step(batch) for batch, _ in zip(batches, range(STEPS), strict=False)])
    training.network.float()
    validation = torch.tensor(training.validate()["val_loss"])
    weights = {f"spark.{name}": tensor for name, tensor in training.network.state_dict().items()}
    return {"masked losses": mean_over_processes(losses), "masked validation loss": validation, **weights}


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
        other = ContextEncoderTraining(*networks(spectral=True), share, normalization, controlled())
        for batch, _ in zip(other.batches(1, 0), range(STEPS), strict=False):
            other.step(double(batch))
        tensors |= {f"spectral.{name}": tensor for name, tensor in other.discriminator.state_dict().items()}
        tensors["adjusted"] = other.share.adjusted
        scores = EncoderScores(training.context_encoder.encoder, pool, normalization, Augmentation())()
        measured = {"steps": means, "validation": torch.tensor(list(metrics.values()))}
        measured["scores"] = torch.tensor(list(scores.values()))
        assert means.shape == (STEPS, len(TRAIN_METRICS))
        write_tensors(folder / f"rank-{group.rank}.safetensors", tensors | measured | contrast(share) | masked(share))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
