"""The context encoder and its adversary: networks, training steps and validation (paper sections 3.1, 3.2 and 4.2)."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization, center_patch, mask_center
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator, frozen_network, without_running_statistics
from pipeline.networks.encoders import Encoder
from pipeline.pretraining import losses
from pipeline.pretraining.curves import (
    ADVERSARIAL_SHARE,
    ADVERSARIAL_WEIGHT,
    DIVERSITY,
    RECONSTRUCTION,
    SATURATION,
    SCORE_INPAINTED,
)
from pipeline.pretraining.dataset import Batch, PretrainingSet, full_validation_batches, training_batches
from pipeline.pretraining.gradient_share import GradientShare
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam, autocast
from pipeline.training.distributed import average_statistics, sum_over_processes, wrap_for_ddp
from pipeline.training.loop import VALIDATION_LOSS, Diverged, Metrics

TRAIN_METRICS = (
    "train_loss",
    "train_reconstruction",
    "train_adversarial",
    "train_discriminator_loss",
    "train_score_real",
    "train_score_inpainted",
    SATURATION,
    ADVERSARIAL_SHARE,
)
"""With `adversarial_share` in the settings, `ADVERSARIAL_WEIGHT` follows."""

STUCK_EPOCHS = 3
"""Consecutive epochs without any gradient for D after which a training counts as diverged."""


class ContextEncoder(nn.Module):
    """F: an image to its hidden centre, by `encoder` and `decoder`."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x_N1HW: Tensor) -> Tensor:
        """The inpainted centre, shape (N, 1, H/2, W/2), of z-scored images whose own centre is hidden here."""
        patch_N1HW: Tensor = self.decoder(self.encoder(mask_center(x_N1HW)))
        return patch_N1HW


class ContextEncoderTraining:
    """Training of F against D on a pool (equations 2 and 3); networks and pool are on one device.

    Steps call F as `inpaint`, if given: F compiled.
    """

    result_networks: tuple[str, ...] = ("encoder", "decoder")
    selected_by = RECONSTRUCTION

    def __init__(
        self,
        context_encoder: ContextEncoder,
        discriminator: Discriminator,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: ContextEncoderSettings,
        inpaint: nn.Module | None = None,
    ) -> None:
        self.context_encoder, self.discriminator = context_encoder, discriminator
        self.pool, self.normalization, self.settings = pool, normalization, settings
        self._computing = partial(autocast, settings.precision)
        self._inpaint = wrap_for_ddp(context_encoder if inpaint is None else inpaint)
        self._scores = wrap_for_ddp(_Scores(discriminator))
        self.optimizer_f = adam(context_encoder.parameters(), settings.learning_rate, settings.betas)
        self.optimizer_d = adam(discriminator.parameters(), settings.discriminator_learning_rate, settings.betas)
        steps = pool.steps(settings.batch_size)
        self.share = GradientShare(settings.lambda_adv, settings.adversarial_share, steps).to(pool.images.device)
        self.metrics = (*TRAIN_METRICS[:-1], *self.share.names(ADVERSARIAL_SHARE, ADVERSARIAL_WEIGHT))
        self.trained = Trained(
            {
                "encoder": context_encoder.encoder,
                "decoder": context_encoder.decoder,
                "discriminator": discriminator,
                "adversarial_share": self.share,
            },
            {"context_encoder": self.optimizer_f, "discriminator": self.optimizer_d},
        )

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on; both networks are in training mode."""
        self.context_encoder.train()
        self.discriminator.train()
        self.share.begin_epoch(first_step)
        return training_batches(self.pool, self.normalization, self.settings, epoch, first_step)

    def step(self, batch: Batch) -> Tensor:
        """One step of D, then one of F, from one inpainting; returns `metrics`, left on the device."""
        patch_N1HW = center_patch(batch.x_N1HW)
        share = self.share.measure(lambda: self._terms(batch), list(self.context_encoder.encoder.parameters()))
        with self._computing(patch_N1HW.device):
            inpainted_N1HW = self._inpaint(batch.x_N1HW).to(patch_N1HW.dtype)
        of_discriminator = self._discriminator_step(patch_N1HW, inpainted_N1HW.detach(), batch.labels_NL)
        of_context_encoder = self._context_encoder_step(patch_N1HW, inpainted_N1HW, batch.labels_NL)
        return torch.stack([*of_context_encoder, *of_discriminator, *share])

    def _terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The adversarial term without λadv, and the reconstruction term with λrec, to measure their gradients.

        They come from a forward pass of their own, before the step: this needs no more memory than a step and involves
        neither compilation nor the averaging of gradients.
        """
        patch_N1HW = center_patch(batch.x_N1HW)
        with (
            without_running_statistics(self.context_encoder),
            frozen_network(self.discriminator),
            self._computing(patch_N1HW.device),
        ):
            inpainted_N1HW = self.context_encoder(batch.x_N1HW).to(patch_N1HW.dtype)
            score_N = self.discriminator(inpainted_N1HW, batch.labels_NL)
        adversarial = losses.adversarial_loss(score_N.to(patch_N1HW.dtype))
        return adversarial, self.settings.lambda_rec * losses.reconstruction_loss(inpainted_N1HW, patch_N1HW)

    def _discriminator_step(self, patch_N1HW: Tensor, inpainted_N1HW: Tensor, labels_NL: Tensor) -> list[Tensor]:
        with self._computing(patch_N1HW.device):
            scores = self._scores(patch_N1HW, inpainted_N1HW, labels_NL)
        real_N, fake_N = (scores_N.to(patch_N1HW.dtype) for scores_N in scores)
        loss = losses.discriminator_loss(real_N, fake_N)
        self.optimizer_d.zero_grad()
        loss.backward()
        self.optimizer_d.step()
        real_N, fake_N = real_N.detach(), fake_N.detach()
        return [loss.detach(), real_N.mean(), fake_N.mean(), losses.saturated_share(real_N, fake_N)]

    def _context_encoder_step(self, patch_N1HW: Tensor, inpainted_N1HW: Tensor, labels_NL: Tensor) -> list[Tensor]:
        with frozen_network(self.discriminator), self._computing(patch_N1HW.device):
            score_N = self.discriminator(inpainted_N1HW, labels_NL)
        adversarial = losses.adversarial_loss(score_N.to(inpainted_N1HW.dtype))
        reconstruction = losses.reconstruction_loss(inpainted_N1HW, patch_N1HW)
        loss = self.share.weight * adversarial + self.settings.lambda_rec * reconstruction
        self.optimizer_f.zero_grad()
        loss.backward()
        self.optimizer_f.step()
        return [loss.detach(), reconstruction.detach(), adversarial.detach()]

    @torch.no_grad()
    def validate(self) -> Metrics:
        """L_F (`val_loss`, with the present λadv), its terms and `val_diversity` over the validation images.

        F is in evaluation mode. D normalizes as in training, by the batch, real and inpainted patches separately; its
        running statistics mix both and are not used.
        """
        self.context_encoder.eval()
        self.discriminator.train()
        average_statistics(self.context_encoder, self.discriminator)
        sums, real, inpainted = [], PatchDiversity(), PatchDiversity()
        for batch, own in full_validation_batches(self.pool, self.normalization, self.settings):
            patch_N1HW = center_patch(batch.x_N1HW)
            inpainted_N1HW, *scores = self._validated(batch, patch_N1HW)
            error_N = (inpainted_N1HW - patch_N1HW).square().mean(dim=(1, 2, 3))
            sums.append(torch.stack([value_N[:own].sum() for value_N in (*scores, error_N, torch.ones_like(error_N))]))
            real.add(patch_N1HW[:own])
            inpainted.add(inpainted_N1HW[:own])
        *totals, count = sum_over_processes(torch.stack(sums).double().sum(dim=0)).tolist()
        score_real, score_inpainted, mse = (total / count for total in totals)
        return {
            VALIDATION_LOSS: -float(self.share.weight) * score_inpainted + self.settings.lambda_rec * mse,
            RECONSTRUCTION: mse,
            "val_score_real": score_real,
            SCORE_INPAINTED: score_inpainted,
            DIVERSITY: inpainted.deviation() / max(real.deviation(), torch.finfo(torch.float32).tiny),
        }

    def _validated(self, batch: Batch, patch_N1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inpainted patches of a batch, and D's scores of the real and of the inpainted ones."""
        with frozen_network(self.discriminator), self._computing(patch_N1HW.device):
            inpainted_N1HW = self.context_encoder(batch.x_N1HW).float()
            real_N, fake_N = (self.discriminator(patches, batch.labels_NL) for patches in (patch_N1HW, inpainted_N1HW))
        return inpainted_N1HW, real_N.float(), fake_N.float()

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Raise `Diverged` if D's loss was 0 in every step of the last `STUCK_EPOCHS` epochs.

        Every score was then beyond the hinge's margin: D has no gradient, and F's adversarial gradient no longer
        changes. If the adversarial term has no weight, D does not matter.
        """
        last = [metrics[SATURATION] for metrics in curves[-STUCK_EPOCHS:]]
        if self.settings.lambda_adv > 0 and len(last) == STUCK_EPOCHS and min(last) == 1.0:
            raise Diverged(
                f"the discriminator's loss was 0 in every step of epochs {len(curves) - STUCK_EPOCHS + 1} to "
                f"{len(curves)}: it separates all patches, and training against it has stopped"
            )


class PatchDiversity:
    """How much patches differ from image to image, gathered batch by batch over all processes."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, patch_N1HW: Tensor) -> None:
        """Take in the patches of a batch."""
        pixels_NP = patch_N1HW.flatten(1).double()
        count_P = torch.full_like(pixels_NP[0], len(pixels_NP))
        self._sums.append(torch.stack([pixels_NP.sum(dim=0), pixels_NP.square().sum(dim=0), count_P]))

    def deviation(self) -> float:
        """The (population) deviation over the images at each place of the patch, as root of the mean square."""
        sum_P, square_P, count_P = sum_over_processes(torch.stack(self._sums).sum(dim=0))
        variance_P = (square_P / count_P - (sum_P / count_P).square()).clamp(min=0)
        return float(variance_P.mean().sqrt())


class _Scores(nn.Module):
    """D's scores of real and of inpainted patches: two calls, so that batch norm sees each kind by itself."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, patch_N1HW: Tensor, inpainted_N1HW: Tensor, labels_NL: Tensor) -> tuple[Tensor, Tensor]:
        return self.discriminator(patch_N1HW, labels_NL), self.discriminator(inpainted_N1HW, labels_NL)
