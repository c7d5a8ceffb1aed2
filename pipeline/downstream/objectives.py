"""The kinds of task, a class each: network, targets, loss and predictions."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.downstream.losses import class_probabilities, positive_weights, soft_dice_loss, weighted_bce
from pipeline.downstream.ordinal import encode
from pipeline.downstream.predictions import pack_mask
from pipeline.downstream.task_images import TaskImages
from pipeline.images.batches import AugmentationParameters
from pipeline.networks.classifier import Classifier
from pipeline.networks.encoders import Encoder
from pipeline.networks.unet import UNet
from pipeline.recipe.downstream import Task


class Objective(ABC):
    """A kind of task with the data of one task; `targets` has one entry per image."""

    targets: Tensor

    @abstractmethod
    def network(self, encoder: Encoder) -> nn.Module:
        """The network on top of `encoder`, which it holds as `encoder`."""

    @abstractmethod
    def augment_targets(self, targets: Tensor, augmentation: AugmentationParameters) -> Tensor:
        """The `targets` of a batch whose images are augmented by `augmentation`."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch: the mean over its images, a scalar."""

    @abstractmethod
    def prediction_rows(self, logits: Tensor, targets: Tensor) -> list[dict[str, Any]]:
        """The prediction of each image of a batch, as columns of `predictions.PREDICTIONS`."""


class _Ordinal(Objective):
    """Ordinal classification with weighted binary cross-entropy on threshold codes (paper section 4.4.2)."""

    def __init__(self, task: Task, data: TaskImages, train: Tensor, device: torch.device) -> None:
        self._classes, self._dropout = len(task.classes), task.dropout
        codes = torch.from_numpy(encode(data.truth.numpy(), self._classes))
        self._weights = positive_weights(codes[train]).to(device)
        self.targets = codes.to(device)

    def network(self, encoder: Encoder) -> nn.Module:
        return Classifier(encoder, self._classes, self._dropout)

    def augment_targets(self, targets: Tensor, augmentation: AugmentationParameters) -> Tensor:
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return weighted_bce(logits, targets, self._weights)

    def prediction_rows(self, logits: Tensor, targets: Tensor) -> list[dict[str, Any]]:
        truths = targets.sum(dim=1).to(torch.int64).tolist()
        scores = logits.sigmoid().tolist()
        return [{"kind": "ordinal", "truth": t, "scores": s} for t, s in zip(truths, scores, strict=True)]


class _Segmentation(Objective):
    """Segmentation with soft Dice over the foreground classes (paper section 4.4.3)."""

    def __init__(self, task: Task, data: TaskImages, device: torch.device) -> None:
        self._classes = len(task.classes)
        self.targets = data.truth.to(device)

    def network(self, encoder: Encoder) -> nn.Module:
        return UNet(encoder, self._classes)

    def augment_targets(self, targets: Tensor, augmentation: AugmentationParameters) -> Tensor:
        return augmentation.apply(targets)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return soft_dice_loss(logits, targets)

    def prediction_rows(self, logits: Tensor, targets: Tensor) -> list[dict[str, Any]]:
        values = torch.arange(1, self._classes, device=logits.device)[:, None, None]
        classes = class_probabilities(logits).argmax(dim=1)
        predicted, truth = classes[:, None] == values, targets[:, None] == values
        columns = {
            "intersection": _pixels(predicted & truth),
            "predicted_pixels": _pixels(predicted),
            "truth_pixels": _pixels(truth),
            "predicted_mask": [pack_mask(mask) for mask in classes.to("cpu", torch.uint8).numpy()],
            "truth_mask": [pack_mask(mask) for mask in targets.cpu().numpy()],
        }
        images = zip(*columns.values(), strict=True)
        return [{"kind": "segmentation", **dict(zip(columns, image, strict=True))} for image in images]


def _pixels(masks_NCHW: Tensor) -> list[list[int]]:
    """The pixels of each mask, by image and class."""
    counts: list[list[int]] = masks_NCHW.sum(dim=(2, 3)).tolist()
    return counts


def objective(task: Task, data: TaskImages, train: Tensor, device: torch.device) -> Objective:
    """The objective of `task`; class weights come from the images at `train`."""
    if task.kind == "ordinal":
        return _Ordinal(task, data, train, device)
    return _Segmentation(task, data, device)
