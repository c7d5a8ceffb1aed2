"""Methods simclr, supcon and metadata_pairs: training an encoder by the contrast of two views."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization
from pipeline.methods import Method
from pipeline.methods.contrastive import ContrastiveSettings
from pipeline.methods.metadata_pairs import MetadataPairsSettings
from pipeline.networks.encoders import Encoder
from pipeline.pretraining.contrastive_loss import contrastive_loss, ignored_views, label_weights, pair_weights
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.job import Job, MethodRun, compiled_for, own_share, placed, plan_of
from pipeline.pretraining.two_views import TwoViews, ViewBatch
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam, autocast, training_device
from pipeline.training.distributed import (
    average_statistics,
    gather_over_processes,
    group,
    sum_over_processes,
    wrap_for_ddp,
)
from pipeline.training.loop import VALIDATION_LOSS, Metrics
from pipeline.training.seeds import seeded


class ProjectionHead(nn.Module):
    """Global average pooling and two fully connected layers, batch norm between them: features to an embedding."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Linear(channels, length),
        )

    def forward(self, features_MCHW: Tensor) -> Tensor:
        """Embeddings, shape (M, length)."""
        embeddings_MD: Tensor = self.layers(features_MCHW.mean(dim=(2, 3)))
        return embeddings_MD


class ContrastiveTraining:
    """Training of an encoder and a projection head by `method` on a pool; networks and pool are on one device.

    Steps call the encoder as `encode`, if given: the encoder compiled.
    """

    result_networks: tuple[str, ...] = ("encoder",)
    metrics: tuple[str, ...] = ("train_loss",)
    selected_by = VALIDATION_LOSS

    def __init__(
        self,
        method: Method,
        encoder: Encoder,
        head: ProjectionHead,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: ContrastiveSettings,
        encode: nn.Module | None = None,
    ) -> None:
        self.method, self.settings = method, settings
        self.network = nn.Sequential(encoder, head)
        self._embed = wrap_for_ddp(nn.Sequential(encoder if encode is None else encode, head))
        self._computing = partial(autocast, settings.precision)
        self._views = TwoViews(pool, normalization, settings, _groups(pool, settings))
        self.optimizer = adam(self.network.parameters(), settings.learning_rate, settings.betas)
        self.trained = Trained({"encoder": encoder, "head": head}, {"contrast": self.optimizer})

    def batches(self, epoch: int, first_step: int) -> Iterator[ViewBatch]:
        """The batches of an epoch from `first_step` on; the network is in training mode."""
        self.network.train()
        return self._views.training(epoch, first_step)

    def step(self, batch: ViewBatch) -> Tensor:
        """Learn from a batch; returns its loss, shape (1,), left on the device.

        The views of all processes are compared: each computes the loss of all, and its gradient for its own.
        """
        with self._computing(batch.x_M1HW.device):
            embeddings_MD = self._embed(batch.x_M1HW)
        loss = self._loss(*_of_all_processes(embeddings_MD, batch))
        self.optimizer.zero_grad()
        (loss * group().world_size).backward()
        self.optimizer.step()
        return loss.detach().unsqueeze(0)

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The loss (`val_loss`) on fixed views of the validation images; each process compares its own."""
        self.network.eval()
        average_statistics(self.network)
        losses_S = torch.stack([self._validation_loss(batch) for batch in self._views.validation()]).double()
        sums = torch.stack([losses_S.sum(), torch.ones_like(losses_S).sum()])
        total, count = sum_over_processes(sums).tolist()
        return {VALIDATION_LOSS: total / count}

    def _validation_loss(self, batch: ViewBatch) -> Tensor:
        with self._computing(batch.x_M1HW.device):
            embeddings_MD = self.network(batch.x_M1HW)
        return self._loss(embeddings_MD, batch.labels_NL, batch.known_NL, batch.patients_N)

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Never raises: embeddings that are all alike still have a finite loss, that of chance."""

    def _loss(self, embeddings_MD: Tensor, labels_NL: Tensor, known_NL: Tensor, patients_N: Tensor) -> Tensor:
        if self.method.labelled:
            weights_MM = label_weights(labels_NL, known_NL)
        else:
            weights_MM = pair_weights(len(patients_N), embeddings_MD.device)
        ignored_MM = ignored_views(weights_MM, patients_N if self.method.paired else None)
        return contrastive_loss(embeddings_MD, weights_MM, ignored_MM, self.settings.temperature)


class ContrastiveRun(MethodRun):
    """Trains an encoder with a projection head, which is discarded."""

    def __init__(self, job: Job[ContrastiveSettings], normalization: Normalization) -> None:
        pool, settings = own_share(job.pool, job.settings)
        self.encoder = placed(job.fresh_encoder(), settings)
        with seeded(settings.seed, "projection head"):
            head = placed(ProjectionHead(self.encoder.channels[-1], settings.projection), settings)
        pool, encode = pool.to(training_device()), compiled_for(job, self.encoder)
        trainer = ContrastiveTraining(job.method, self.encoder, head, pool, normalization, settings, encode)
        self.training = trainer, plan_of(job)


def _groups(pool: PretrainingSet, settings: ContrastiveSettings) -> Tensor | None:
    """One number per image of `pool`, equal for images that make a pair; None if the method pairs no images."""
    if not isinstance(settings, MetadataPairsSettings):
        return None
    return pool.patients_N if settings.pairs == "patient" else pool.files_N


def _of_all_processes(embeddings_MD: Tensor, batch: ViewBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, labels, which are known, and patients of the views of all processes, in the order of a batch."""
    embeddings_W2ND = gather_over_processes(embeddings_MD.unflatten(0, (2, -1)))
    embeddings_MD = embeddings_W2ND.transpose(0, 1).flatten(0, 2)
    of_images = (batch.labels_NL, batch.known_NL, batch.patients_N)
    labels_NL, known_NL, patients_N = (gather_over_processes(values_N).flatten(0, 1) for values_N in of_images)
    return embeddings_MD, labels_NL, known_NL, patients_N
