"""Training steps on a reconstruction loss with a label loss beside it (methods ce_aux and spark_aux)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.methods.ce_aux import AuxiliaryLabelSettings
from pipeline.networks.discriminator import without_running_statistics
from pipeline.pretraining.curves import LABEL_LOSS, LABEL_SHARE, LABEL_WEIGHT
from pipeline.pretraining.gradient_share import GradientShare
from pipeline.training.device import adam
from pipeline.training.distributed import sum_over_processes, wrap_for_ddp
from pipeline.training.loop import VALIDATION_LOSS, Metrics

TRAIN_METRICS = ("train_loss", "train_reconstruction", "train_label_loss", LABEL_SHARE, LABEL_WEIGHT)

FIRST_WEIGHT = 1.0
"""Of the label loss, before the first measurement of its share."""

Losses = tuple[Tensor, Tensor]
"""The label loss without its weight, and the reconstruction loss."""


class LabelledStep:
    """Steps of `network` on reconstruction loss + w · label loss.

    The weight w keeps the label loss's share of the gradient at the weights of `encoder`, a part of `network`. Steps
    call the network as `compiled`, if given. An epoch has `steps` steps.
    """

    def __init__(
        self,
        network: nn.Module,
        encoder: nn.Module,
        settings: AuxiliaryLabelSettings,
        steps: int,
        compiled: nn.Module | None = None,
    ) -> None:
        self._network, self._weights = network, list(encoder.parameters())
        self._outputs = wrap_for_ddp(network if compiled is None else compiled)
        self.optimizer = adam(network.parameters(), settings.learning_rate, settings.betas)
        self.share = GradientShare(FIRST_WEIGHT, settings.label_share, steps).to(self._weights[0].device)

    def learn(self, losses: Callable[[nn.Module], Losses]) -> Tensor:
        """One step on the `losses` that a network has on a batch; returns `TRAIN_METRICS`, left on the device."""
        share = self.share.measure(lambda: self.measured(losses), self._weights)
        of_labels, reconstruction = losses(self._outputs)
        loss = reconstruction + self.share.weight * of_labels
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack([loss.detach(), reconstruction.detach(), of_labels.detach(), *share])

    def measured(self, losses: Callable[[nn.Module], Losses]) -> Losses:
        """The `losses` to measure their gradients: they come from a forward pass of their own."""
        with without_running_statistics(self._network):
            return losses(self._network)

    def validation(self, errors: Sequence[Tensor], images: int, labels: Sequence[Tensor], error_name: str) -> Metrics:
        """The metrics of all processes: the loss with its present weight, its terms, and the accuracy of the labels.

        Of each batch of validation images, of which there are `images`: the sum of the images' reconstruction errors
        (float64), and `known_label_sums`.
        """
        counted = torch.tensor([images], dtype=torch.float64, device=errors[0].device)
        sums = torch.cat([torch.stack([*errors]).sum().unsqueeze(0), counted, torch.stack([*labels]).sum(dim=0)])
        error, count, loss, right, known = sum_over_processes(sums).tolist()
        return {
            VALIDATION_LOSS: error / count + float(self.share.weight) * loss / max(known, 1),
            error_name: error / count,
            LABEL_LOSS: loss / max(known, 1),
            "val_accuracy": right / max(known, 1),
        }
