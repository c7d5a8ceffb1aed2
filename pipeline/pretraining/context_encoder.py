"""The context encoder and its adversary: methods ce and ce_dcm (paper sections 3.1, 3.2 and 4.2).

Belongs here: inpainting the hidden centre, one epoch of training it, how good it is. Not here: files, epochs' loop.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization, center_patch, mask_center, mean_center_patch
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator, held_fixed
from pipeline.networks.encoders import Encoder
from pipeline.pretraining.dataset import Batch, PretrainingSet, training_batches, validation_batches
from pipeline.pretraining.losses import adversarial_loss, discriminator_loss, reconstruction_loss
from pipeline.recipe import Pretraining
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam
from pipeline.training.loop import Advance, Metrics

TRAIN_METRICS = (
    "train_loss",
    "train_reconstruction",
    "train_adversarial",
    "train_discriminator_loss",
    "train_score_real",
    "train_score_inpainted",
)


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
    """Training of F against D on a pool (equations 2 and 3); networks and pool are on one device."""

    kept: tuple[str, ...] = ("encoder", "decoder")

    def __init__(
        self,
        context_encoder: ContextEncoder,
        discriminator: Discriminator,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: Pretraining,
    ) -> None:
        self.context_encoder, self.discriminator = context_encoder, discriminator
        self.pool, self.normalization, self.settings = pool, normalization, settings
        self.optimizer_f = adam(context_encoder.parameters(), settings.learning_rate, settings.betas)
        self.optimizer_d = adam(discriminator.parameters(), settings.discriminator_learning_rate, settings.betas)
        self.trained = Trained(
            {"encoder": context_encoder.encoder, "decoder": context_encoder.decoder, "discriminator": discriminator},
            {"context_encoder": self.optimizer_f, "discriminator": self.optimizer_d},
        )

    def train_epoch(self, epoch: int, advance: Advance) -> Metrics:
        """One epoch of alternating steps; returns the means of `TRAIN_METRICS` over its steps."""
        self.context_encoder.train()
        self.discriminator.train()
        steps = []
        for batch in training_batches(self.pool, self.normalization, self.settings, epoch):
            steps.append(self.step(batch))
            advance(len(batch.x_N1HW))
        means = torch.stack(steps).double().mean(dim=0).tolist()
        return dict(zip(TRAIN_METRICS, means, strict=True))

    def step(self, batch: Batch) -> Tensor:
        """One step of D, then one of F, from one inpainting; returns `TRAIN_METRICS`, left on the device."""
        patch_N1HW = center_patch(batch.x_N1HW)
        inpainted_N1HW = self.context_encoder(batch.x_N1HW)
        of_discriminator = self._discriminator_step(patch_N1HW, inpainted_N1HW.detach(), batch.labels_NL)
        of_context_encoder = self._context_encoder_step(patch_N1HW, inpainted_N1HW, batch.labels_NL)
        return torch.stack([*of_context_encoder, *of_discriminator])

    def _discriminator_step(self, patch_N1HW: Tensor, inpainted_N1HW: Tensor, labels_NL: Tensor) -> list[Tensor]:
        real_N = self.discriminator(patch_N1HW, labels_NL)  # two calls: batch norm sees each kind by itself
        fake_N = self.discriminator(inpainted_N1HW, labels_NL)
        loss = discriminator_loss(real_N, fake_N)
        self.optimizer_d.zero_grad()
        loss.backward()
        self.optimizer_d.step()
        return [loss.detach(), real_N.detach().mean(), fake_N.detach().mean()]

    def _context_encoder_step(self, patch_N1HW: Tensor, inpainted_N1HW: Tensor, labels_NL: Tensor) -> list[Tensor]:
        with held_fixed(self.discriminator):
            adversarial = adversarial_loss(self.discriminator(inpainted_N1HW, labels_NL))
        reconstruction = reconstruction_loss(inpainted_N1HW, patch_N1HW)
        loss = self.settings.lambda_adv * adversarial + self.settings.lambda_rec * reconstruction
        self.optimizer_f.zero_grad()
        loss.backward()
        self.optimizer_f.step()
        return [loss.detach(), reconstruction.detach(), adversarial.detach()]

    @torch.no_grad()
    def validate(self) -> Metrics:
        """L_F (`val_loss`) and its reconstruction term (`val_mse`) over the validation images, in evaluation mode."""
        self.context_encoder.eval()
        self.discriminator.eval()
        sums = []
        for batch in validation_batches(self.pool, self.normalization, self.settings.batch_size):
            inpainted_N1HW = self.context_encoder(batch.x_N1HW)
            score_N = self.discriminator(inpainted_N1HW, batch.labels_NL)
            error_N = (inpainted_N1HW - center_patch(batch.x_N1HW)).square().mean(dim=(1, 2, 3))
            sums.append(torch.stack([score_N.sum(), error_N.sum()]))
        score, mse = (torch.stack(sums).double().sum(dim=0) / len(self.pool.val)).tolist()
        return {"val_loss": -self.settings.lambda_adv * score + self.settings.lambda_rec * mse, "val_mse": mse}


def inpainting_report(val_mse: float, pool: PretrainingSet, normalization: Normalization) -> Mapping[str, float | str]:
    """The validation error of the inpainted centre beside that of the training images' mean centre, in z-scores²."""
    mean_patch = (mean_center_patch(pool.images_NHW, pool.train) - normalization.mean) / normalization.sd
    errors = [
        (center_patch(batch.x_N1HW) - mean_patch).square().mean(dim=(1, 2, 3)).double().sum()
        for batch in validation_batches(pool, normalization, batch_size=256)
    ]
    mean_patch_mse = torch.stack(errors).sum().item() / len(pool.val)
    return {"validation_mse": val_mse, "mean_patch_mse": mean_patch_mse, "unit": "squared z-scores"}
