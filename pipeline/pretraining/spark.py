"""Methods spark and spark_aux: training an encoder by inpainting hidden patches from sparse features."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization
from pipeline.methods.spark import SparkSettings
from pipeline.methods.spark_aux import SparkAuxSettings
from pipeline.networks.encoders import Encoder
from pipeline.networks.hierarchical_decoder import HierarchicalDecoder
from pipeline.networks.sparse import VisibleCells, require_maskable, sparse
from pipeline.pretraining.curves import PATCH_ERROR
from pipeline.pretraining.dataset import Batch, PretrainingSet
from pipeline.pretraining.job import Job, MethodRun, own_share, placed, plan_of
from pipeline.pretraining.label_scores import scores_of_batches
from pipeline.pretraining.labelled_step import TRAIN_METRICS, LabelledStep, Losses
from pipeline.pretraining.losses import label_loss
from pipeline.pretraining.masked_patches import MaskedBatch, MaskedBatches, patch_errors, patch_side
from pipeline.pretraining.metadata_classifier import MetadataHead, fresh_head, known_label_sums, write_label_scores
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam, autocast, training_device
from pipeline.training.distributed import average_statistics, sum_over_processes, wrap_for_ddp
from pipeline.training.loop import VALIDATION_LOSS, History, Metrics
from pipeline.training.seeds import seeded

S = TypeVar("S", bound=SparkSettings)


class Spark(nn.Module):
    """An encoder that sees the visible patches alone, a decoder that inpaints the others, and for labels a head."""

    def __init__(self, encoder: Encoder, decoder: HierarchicalDecoder, head: MetadataHead | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, x_N1HW: Tensor, visible: VisibleCells) -> tuple[Tensor, Tensor | None]:
        """The decoded images, shape (N, 1, H, W), of z-scored images, whose hidden pixels have no effect.

        With a head also label logits, shape (N, labels), from the mean of the deepest features over visible positions.
        """
        with sparse(self.encoder, visible):
            pyramid = self.encoder.pyramid(x_N1HW)
        logits_NL = None if self.head is None else self.head(visible.mean(pyramid[-1]))
        return self.decoder(pyramid, visible), logits_NL


class _MaskedTraining:
    """What both trainings have in common; networks and pool are on one device.

    Nothing is compiled: the number of visible positions of coarse levels differs from batch to batch.
    """

    def __init__(
        self, network: Spark, pool: PretrainingSet, normalization: Normalization, settings: SparkSettings
    ) -> None:
        self.network, self.pool, self.settings = network, pool, settings
        self._masked = MaskedBatches(normalization, settings)
        self._computing = partial(autocast, settings.precision)
        self._networks = {"encoder": network.encoder, "decoder": network.decoder}

    def batches(self, epoch: int, first_step: int) -> Iterator[MaskedBatch]:
        """The batches of an epoch from `first_step` on; the network is in training mode."""
        self.network.train()
        return self._masked.training(self.pool, epoch, first_step)

    def _outputs(self, network: nn.Module, batch: MaskedBatch) -> tuple[Tensor, Tensor]:
        """The error of each image's hidden patches, shape (N,), and its logits, (N, labels), or (N, 0) without head."""
        x_N1HW = batch.images.x_N1HW
        with self._computing(x_N1HW.device):
            decoded_N1HW, logits_NL = network(x_N1HW, batch.visible)
        errors_N = patch_errors(decoded_N1HW.to(x_N1HW.dtype), x_N1HW, batch.visible)
        return errors_N, x_N1HW.new_empty(len(x_N1HW), 0) if logits_NL is None else logits_NL.to(x_N1HW.dtype)

    def _validated(self, pool: PretrainingSet) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """The validation batches of `pool`, always masked alike, with their `_outputs`; in evaluation mode."""
        self.network.eval()
        for batch in self._masked.validation(pool):
            yield batch.images, *self._outputs(self.network, batch)

    def error_of_means(self, pool: PretrainingSet) -> float:
        """The validation error on `pool` if each hidden patch were inpainted with its own mean."""
        batches = ((batch.images.x_N1HW, batch.visible) for batch in self._masked.validation(pool))
        errors = [patch_errors(torch.zeros_like(x_N1HW), x_N1HW, visible) for x_N1HW, visible in batches]
        return float(torch.cat(errors).mean())

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Never raises: a finite loss still has a gradient."""


class SparkTraining(_MaskedTraining):
    """Training by the error of hidden patches."""

    result_networks: tuple[str, ...] = ("encoder",)
    metrics: tuple[str, ...] = ("train_loss",)
    selected_by = VALIDATION_LOSS

    def __init__(
        self, network: Spark, pool: PretrainingSet, normalization: Normalization, settings: SparkSettings
    ) -> None:
        super().__init__(network, pool, normalization, settings)
        self._learning = wrap_for_ddp(network)
        self.optimizer = adam(network.parameters(), settings.learning_rate, settings.betas)
        self.trained = Trained(self._networks, {"network": self.optimizer})

    def step(self, batch: MaskedBatch) -> Tensor:
        """Learn from a batch; returns its loss, shape (1,), left on the device."""
        loss = self._outputs(self._learning, batch)[0].mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach().unsqueeze(0)

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The loss (`val_loss`) on the validation images, of all processes."""
        average_statistics(self.network)
        errors_N = torch.cat([errors_N.double() for _, errors_N, _ in self._validated(self.pool)])
        error, count = sum_over_processes(torch.stack([errors_N.sum(), torch.ones_like(errors_N).sum()])).tolist()
        return {VALIDATION_LOSS: error / count}


class SparkAuxTraining(_MaskedTraining):
    """Training by the error of hidden patches + w · label loss (`LabelledStep`); the network has a head."""

    result_networks: tuple[str, ...] = ("encoder", "head")
    metrics: tuple[str, ...] = TRAIN_METRICS
    selected_by = PATCH_ERROR

    def __init__(
        self, network: Spark, pool: PretrainingSet, normalization: Normalization, settings: SparkAuxSettings
    ) -> None:
        super().__init__(network, pool, normalization, settings)
        assert network.head is not None
        self.labelled = LabelledStep(network, network.encoder, settings, pool.steps(settings.batch_size))
        networks = self._networks | {"head": network.head, "label_share": self.labelled.share}
        self.trained = Trained(networks, {"network": self.labelled.optimizer})

    def batches(self, epoch: int, first_step: int) -> Iterator[MaskedBatch]:
        """As in `SparkTraining`."""
        self.labelled.share.begin_epoch(first_step)
        return super().batches(epoch, first_step)

    def step(self, batch: MaskedBatch) -> Tensor:
        """Learn from a batch; returns `metrics`, left on the device."""
        return self.labelled.learn(lambda network: self._losses(network, batch))

    def _losses(self, network: nn.Module, batch: MaskedBatch) -> Losses:
        errors_N, logits_NL = self._outputs(network, batch)
        return label_loss(logits_NL, batch.images.labels_NL, batch.images.known_NL), errors_N.mean()

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The loss with its present weight (`val_loss`), its terms, and accuracy, of all processes."""
        average_statistics(self.network)
        errors, labels = [], []
        for images, errors_N, logits_NL in self._validated(self.pool):
            errors.append(errors_N.double().sum())
            labels.append(known_label_sums(logits_NL, images.labels_NL, images.known_NL))
        return self.labelled.validation(errors, len(self.pool.val), labels, PATCH_ERROR)

    @torch.no_grad()
    def report(self, pool: PretrainingSet) -> list[dict[str, Any]]:
        """Scores of each label (`label_scores`) on all validation images of `pool`, which are partly hidden.

        Of several processes, only the one that writes calls this, with the pool of all.
        """
        return scores_of_batches(
            ((images, logits_NL) for images, _, logits_NL in self._validated(pool)), pool.label_names
        )


class SparkRun(MethodRun):
    """Trains an encoder with a decoder, which is discarded."""

    def __init__(self, job: Job[SparkSettings], normalization: Normalization) -> None:
        self.job = job
        network, pool, settings = _start(job)
        self.encoder = network.encoder
        self.trainer = SparkTraining(network, pool, normalization, settings)
        self.training = self.trainer, plan_of(job)

    def write_results(self, history: History) -> Mapping[str, Any]:
        """Write no file; returns the error of the epoch kept."""
        return _patch_report(self.trainer, history, self.job.pool.to(training_device()))


class SparkAuxRun(MethodRun):
    """Trains an encoder with a decoder, which is discarded, and a head that predicts the weak labels."""

    def __init__(self, job: Job[SparkAuxSettings], normalization: Normalization) -> None:
        self.job = job
        network, pool, settings = _start(job)
        self.encoder = network.encoder
        self.head = network.head = fresh_head(self.encoder, pool, settings)
        self.trainer = SparkAuxTraining(network, pool, normalization, settings)
        self.training = self.trainer, plan_of(job)

    def write_results(self, history: History) -> Mapping[str, Any]:
        """Write the head, and the scores of each label on validation images; returns also the error of the epoch."""
        pool = self.job.pool.to(training_device())
        scores = write_label_scores(self.job.folder, self.head, self.trainer.report(pool))
        return {**_patch_report(self.trainer, history, pool), **scores}


def _patch_report(trainer: SparkTraining | SparkAuxTraining, history: History, pool: PretrainingSet) -> dict[str, Any]:
    """For the model card: the error of hidden patches beside that of their own means."""
    error = history.curves[history.best_epoch - 1][trainer.selected_by]
    return {
        "hidden patches, validation error": error,
        "hidden patches, error of their own means": trainer.error_of_means(pool),
    }


def _start(job: Job[S]) -> tuple[Spark, PretrainingSet, S]:
    """The initial network without a head, and this process's share of the pool and the settings, on its device.

    Raises `UserError` if the backbone cannot be masked, or images are too small for the patches.
    """
    pool, settings = own_share(job.pool, job.settings)
    patch_side(settings, *pool.size)
    encoder = job.fresh_encoder()
    require_maskable(encoder, job.backbone)
    with seeded(settings.seed, "decoder", job.backbone):
        network = placed(Spark(encoder, HierarchicalDecoder(encoder)), settings)
    return network, pool.to(training_device()), settings
