"""Method ce_aux: training a context encoder that also predicts the weak labels, without an adversary."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization, center_patch, mask_center
from pipeline.methods.ce_aux import AuxiliaryLabelSettings
from pipeline.pretraining.context_encoder import ContextEncoder, PatchDiversity
from pipeline.pretraining.curves import DIVERSITY, RECONSTRUCTION
from pipeline.pretraining.dataset import Batch, PretrainingSet, training_batches, validation_batches
from pipeline.pretraining.inpainting import fresh_context_encoder, write_inpainting
from pipeline.pretraining.job import Job, MethodRun, compiled_for, own_share, plan_of
from pipeline.pretraining.label_scores import scores_of_batches
from pipeline.pretraining.labelled_step import TRAIN_METRICS, LabelledStep, Losses
from pipeline.pretraining.losses import label_loss, reconstruction_loss
from pipeline.pretraining.metadata_classifier import MetadataHead, fresh_head, known_label_sums, write_label_scores
from pipeline.training.checkpoint import Trained
from pipeline.training.device import autocast, training_device
from pipeline.training.distributed import average_statistics
from pipeline.training.loop import History, Metrics


class LabelledContextEncoder(nn.Module):
    """A context encoder with a head: the inpainted centre, and label logits from the features of the masked image."""

    def __init__(self, context_encoder: ContextEncoder, head: MetadataHead) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = context_encoder.encoder, context_encoder.decoder, head

    def forward(self, x_N1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Patches, shape (N, 1, H/2, W/2), and logits, shape (N, labels), of z-scored images with hidden centres."""
        features_NCHW = self.encoder(mask_center(x_N1HW))
        return self.decoder(features_NCHW), self.head(features_NCHW)


class AuxiliaryLabelTraining:
    """Training of a context encoder and a head on a pool: E[(F(x̂) − x)²] + w · label loss.

    The weight w keeps the label loss's share of the gradient at the encoder's weights. Networks and pool are on one
    device. Steps call the network as `compiled`, if given.
    """

    result_networks: tuple[str, ...] = ("encoder", "decoder", "head")
    metrics: tuple[str, ...] = TRAIN_METRICS
    selected_by = RECONSTRUCTION

    def __init__(
        self,
        network: LabelledContextEncoder,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: AuxiliaryLabelSettings,
        compiled: nn.Module | None = None,
    ) -> None:
        self.network, self.pool, self.normalization, self.settings = network, pool, normalization, settings
        self._computing = partial(autocast, settings.precision)
        steps = pool.steps(settings.batch_size)
        self.labelled = LabelledStep(network, network.encoder, settings, steps, compiled)
        networks = {"encoder": network.encoder, "decoder": network.decoder, "head": network.head}
        self.trained = Trained(networks | {"label_share": self.labelled.share}, {"network": self.labelled.optimizer})

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on; the network is in training mode."""
        self.network.train()
        self.labelled.share.begin_epoch(first_step)
        return training_batches(self.pool, self.normalization, self.settings, epoch, first_step)

    def step(self, batch: Batch) -> Tensor:
        """Learn from a batch; returns `metrics`, left on the device."""
        return self.labelled.learn(lambda network: self._losses(network, batch))

    def _losses(self, network: nn.Module, batch: Batch) -> Losses:
        patch_N1HW = center_patch(batch.x_N1HW)
        with self._computing(patch_N1HW.device):
            inpainted_N1HW, logits_NL = network(batch.x_N1HW)
        of_labels = label_loss(logits_NL.to(patch_N1HW.dtype), batch.labels_NL, batch.known_NL)
        return of_labels, reconstruction_loss(inpainted_N1HW.to(patch_N1HW.dtype), patch_N1HW)

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The loss with its present weight (`val_loss`), its terms, accuracy and diversity on the validation images."""
        average_statistics(self.network)
        errors, real, inpainted, logits = [], PatchDiversity(), PatchDiversity(), []
        for batch, inpainted_N1HW, logits_NL in self._validated(self.pool):
            patch_N1HW = center_patch(batch.x_N1HW)
            errors.append((inpainted_N1HW - patch_N1HW).square().mean(dim=(1, 2, 3)).double().sum())
            real.add(patch_N1HW)
            inpainted.add(inpainted_N1HW)
            logits.append(known_label_sums(logits_NL, batch.labels_NL, batch.known_NL))
        metrics = self.labelled.validation(errors, len(self.pool.val), logits, RECONSTRUCTION)
        return metrics | {DIVERSITY: inpainted.deviation() / max(real.deviation(), torch.finfo(torch.float32).tiny)}

    def _validated(self, pool: PretrainingSet) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """The validation batches of `pool` with their inpainted patches and logits; in evaluation mode."""
        self.network.eval()
        for batch in validation_batches(pool, self.normalization, self.settings.batch_size):
            with self._computing(batch.x_N1HW.device):
                inpainted_N1HW, logits_NL = self.network(batch.x_N1HW)
            yield batch, inpainted_N1HW.float(), logits_NL.float()

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Never raises: a finite loss still has a gradient."""

    @torch.no_grad()
    def report(self, pool: PretrainingSet) -> list[dict[str, Any]]:
        """Scores of each label (`label_scores`) on all validation images of `pool`, whose centres are hidden.

        Of several processes, only the one that writes calls this, with the pool of all.
        """
        return scores_of_batches(
            ((batch, logits_NL) for batch, _, logits_NL in self._validated(pool)), pool.label_names
        )


class AuxiliaryLabelRun(MethodRun):
    """Trains a context encoder with a head that predicts the weak labels."""

    def __init__(self, job: Job[AuxiliaryLabelSettings], normalization: Normalization) -> None:
        self.job, self.normalization = job, normalization
        pool, settings = own_share(job.pool, job.settings)
        context_encoder = fresh_context_encoder(job, settings)
        self.encoder = context_encoder.encoder
        self.network = LabelledContextEncoder(context_encoder, fresh_head(self.encoder, pool, settings))
        pool, compiled = pool.to(training_device()), compiled_for(job, self.network)
        self.trainer = AuxiliaryLabelTraining(self.network, pool, normalization, settings, compiled)
        self.training = self.trainer, plan_of(job)

    def write_results(self, history: History) -> Mapping[str, Any]:
        """Write decoder and head, the inpainting error of the epoch kept, and the scores of each label."""
        pool = self.job.pool.to(training_device())
        inpainting = write_inpainting(self.job.folder, self.network.decoder, history, pool, self.normalization)
        return {**inpainting, **write_label_scores(self.job.folder, self.network.head, self.trainer.report(pool))}
