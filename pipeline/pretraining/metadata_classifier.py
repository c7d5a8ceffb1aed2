"""The encoder that predicts the weak labels themselves: method dcm (paper section 4.3).

Belongs here: its head, one epoch of training it, how good it is. Not here: files, epochs' loop.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.images.batches import Normalization
from pipeline.networks.encoders import Encoder
from pipeline.pretraining.dataset import Batch, PretrainingSet, training_batches, validation_batches
from pipeline.pretraining.label_scores import label_scores
from pipeline.pretraining.losses import label_loss
from pipeline.recipe import EncoderSettings
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam, autocast
from pipeline.training.distributed import average_statistics, sum_over_processes, wrap_for_ddp
from pipeline.training.loop import VALIDATION_LOSS, Metrics


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
    """Training of an encoder to predict the known labels of a pool; networks and pool are on one device.

    `encode` is how a step calls the encoder where that is not the encoder itself: compiled.
    """

    result_networks: tuple[str, ...] = ("encoder", "head")
    metrics: tuple[str, ...] = ("train_loss",)
    selected_by = VALIDATION_LOSS

    def __init__(
        self,
        encoder: Encoder,
        head: MetadataHead,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: EncoderSettings,
        encode: nn.Module | None = None,
    ) -> None:
        self.network = nn.Sequential(encoder, head)
        self._computing = partial(autocast, settings.precision)
        self._predict = wrap_for_ddp(nn.Sequential(encoder if encode is None else encode, head))
        self.pool, self.normalization, self.settings = pool, normalization, settings
        self.optimizer = adam(self.network.parameters(), settings.learning_rate, settings.betas)
        self.trained = Trained({"encoder": encoder, "head": head}, {"classifier": self.optimizer})

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on; the network is in training mode."""
        self.network.train()
        return training_batches(self.pool, self.normalization, self.settings, epoch, first_step)

    def step(self, batch: Batch) -> Tensor:
        """Learn from a batch; returns its loss, shape (1,), left on the device."""
        with self._computing(batch.x_N1HW.device):
            logits_NL = self._predict(batch.x_N1HW).float()
        loss = label_loss(logits_NL, batch.labels_NL, batch.known_NL)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach().unsqueeze(0)

    def validate(self) -> Metrics:
        """Cross-entropy (`val_loss`) and accuracy (`val_accuracy`) over the known labels of the validation images."""
        average_statistics(self.network)
        logits_NL, labels_NL, known_NL = self._validation_logits(self.pool)
        right_NL = ((logits_NL > 0) == (labels_NL > 0.5)) & known_NL
        known = known_NL.sum()
        sums = torch.stack([label_loss(logits_NL, labels_NL, known_NL).double() * known, right_NL.sum(), known])
        loss, right, count = sum_over_processes(sums).tolist()
        return {"val_loss": loss / max(count, 1), "val_accuracy": right / max(count, 1)}

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Nothing to judge: a cross-entropy that is finite goes on teaching."""

    def report(self, pool: PretrainingSet) -> list[dict[str, Any]]:
        """How well each label is told on all validation images of `pool`, which is on the same device (`label_scores`).

        For one process alone: of several, the one that writes, and then the pool of all.
        """
        return label_scores(*self._validation_logits(pool), pool.label_names)

    def _validation_logits(self, pool: PretrainingSet) -> tuple[Tensor, Tensor, Tensor]:
        with self._computing(pool.images.device):
            return validation_logits(self.network, pool, self.normalization, self.settings.batch_size)


@torch.no_grad()
def validation_logits(
    network: nn.Module, pool: PretrainingSet, normalization: Normalization, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of an encoder and its head, labels and which are known, each (N, labels), of all validation images."""
    network.eval()
    batches = validation_batches(pool, normalization, batch_size)
    parts = [(network(batch.x_N1HW).float(), batch.labels_NL, batch.known_NL) for batch in batches]
    logits_NL, labels_NL, known_NL = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits_NL, labels_NL, known_NL
