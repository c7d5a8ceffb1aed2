"""The encoder that predicts the weak labels themselves: method dcm (paper section 4.3).

Belongs here: its head, one epoch of training it, how good it is. Not here: files, epochs' loop.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization
from pipeline.networks.encoders import Encoder
from pipeline.pretraining.dataset import PretrainingSet, training_batches, validation_batches
from pipeline.pretraining.losses import label_loss
from pipeline.recipe import Pretraining
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam
from pipeline.training.loop import Advance, Metrics


class MetadataHead(nn.Module):
    """Global average pooling and a fully connected layer: features to one logit per label."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, labels)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Logits, shape (N, labels)."""
        logits_NL: Tensor = self.classifier(features_NCHW.mean(dim=(2, 3)))
        return logits_NL


class MetadataTraining:
    """Training of an encoder to predict the known labels of a pool; networks and pool are on one device."""

    kept: tuple[str, ...] = ("encoder", "head")

    def __init__(
        self,
        encoder: Encoder,
        head: MetadataHead,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: Pretraining,
    ) -> None:
        self.network = nn.Sequential(encoder, head)
        self.pool, self.normalization, self.settings = pool, normalization, settings
        self.optimizer = adam(self.network.parameters(), settings.learning_rate, settings.betas)
        self.trained = Trained({"encoder": encoder, "head": head}, {"classifier": self.optimizer})

    def train_epoch(self, epoch: int, advance: Advance) -> Metrics:
        """One epoch; returns `train_loss`, the mean over its steps."""
        self.network.train()
        losses = []
        for batch in training_batches(self.pool, self.normalization, self.settings, epoch):
            loss = label_loss(self.network(batch.x_N1HW), batch.labels_NL, batch.known_NL)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            advance(len(batch.x_N1HW))
        return {"train_loss": torch.stack(losses).double().mean().item()}

    def validate(self) -> Metrics:
        """Cross-entropy (`val_loss`) and accuracy (`val_accuracy`) over the known labels of the validation images."""
        logits_NL, labels_NL, known_NL = self._validation_logits()
        right_NL = ((logits_NL > 0) == (labels_NL > 0.5)) & known_NL
        accuracy = right_NL.sum() / known_NL.sum().clamp(min=1)
        return {"val_loss": label_loss(logits_NL, labels_NL, known_NL).item(), "val_accuracy": accuracy.item()}

    def report(self) -> list[dict[str, Any]]:
        """Per label: its name, validation images where it is known, share of them that carry it, accuracy.

        Share and accuracy are None where it is known of no validation image.
        """
        logits_NL, labels_NL, known_NL = self._validation_logits()
        right_NL = ((logits_NL > 0) == (labels_NL > 0.5)) & known_NL
        columns = [known_NL.sum(dim=0).tolist(), labels_NL.sum(dim=0).tolist(), right_NL.sum(dim=0).tolist()]
        return [
            {
                "label": name,
                "images": images,
                "base_rate": carried / images if images else None,
                "accuracy": right / images if images else None,
            }
            for name, images, carried, right in zip(self.pool.label_names, *columns, strict=True)
        ]

    @torch.no_grad()
    def _validation_logits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, labels and which are known, of all validation images, in evaluation mode."""
        self.network.eval()
        batches = validation_batches(self.pool, self.normalization, self.settings.batch_size)
        parts = [(self.network(batch.x_N1HW), batch.labels_NL, batch.known_NL) for batch in batches]
        logits_NL, labels_NL, known_NL = (torch.cat(part) for part in zip(*parts, strict=True))
        return logits_NL, labels_NL, known_NL
