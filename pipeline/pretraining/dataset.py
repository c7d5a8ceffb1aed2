"""The images every method pretrains on, and their batches.

Belongs here: the pretraining set in memory, batches of it. Not here: reading it from the cache, networks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.images.batches import Normalization, draw_moves, epoch_order
from pipeline.recipe import Pretraining
from pipeline.training.seeds import generator


@dataclass(frozen=True)
class PretrainingSet:
    """The pretraining pool as tensors: N images of H × W pixels, L labels. H and W are multiples of 32.

    `images_NHW`: uint8 grey. `labels_NL`: float32, 0 or 1, and 0 where not known. `known_NL`: bool. `train` and `val`:
    int64 indices into N. The digests are those of `pipeline.cohort.pool`: of images and split, and of labels.
    """

    images_NHW: Tensor
    labels_NL: Tensor
    known_NL: Tensor
    train: Tensor
    val: Tensor
    label_names: tuple[str, ...]
    image_digest: str
    label_digest: str

    def __post_init__(self) -> None:
        count, names = len(self.images_NHW), len(self.label_names)
        if self.labels_NL.shape != (count, names) or self.known_NL.shape != (count, names):
            raise ValueError(f"labels of {count} images and {names} names have shape {tuple(self.labels_NL.shape)}")
        if not len(self.train) or not len(self.val):
            raise ValueError("no training or no validation image")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.images_NHW.shape[1], self.images_NHW.shape[2]

    def to(self, device: torch.device) -> "PretrainingSet":
        """The same set with its tensors on `device`."""
        names = ("images_NHW", "labels_NL", "known_NL", "train", "val")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class Batch:
    """Images as the networks see them: z-scores, and labels, 0 where they are not known."""

    x_N1HW: Tensor
    labels_NL: Tensor
    known_NL: Tensor


def training_batches(
    pool: PretrainingSet, normalization: Normalization, settings: Pretraining, epoch: int
) -> Iterator[Batch]:
    """The batches of one epoch, shuffled and augmented on the pool's device; the last images are dropped.

    Order and augmentation depend on the recipe's seed and `epoch` alone: every method sees the same images. They are
    drawn for the whole epoch beforehand, so that no step waits for the host.
    """
    device = pool.images_NHW.device
    order_SN = epoch_order(pool.train, settings.batch_size, generator(settings.seed, "order", epoch)).to(device)
    draws = generator(settings.seed, "moves", epoch)
    moves = draw_moves(order_SN.numel(), *pool.size, settings.augmentation, draws).to(device)
    for index_N, moves_N in zip(order_SN, moves.batches(settings.batch_size), strict=True):
        x_N1HW = normalization.apply(moves_N.apply(pool.images_NHW[index_N]))
        yield Batch(x_N1HW, *_labels(pool, index_N))


def validation_batches(pool: PretrainingSet, normalization: Normalization, batch_size: int) -> Iterator[Batch]:
    """All validation images in their order, as they are; the last batch may be smaller."""
    for index_N in torch.split(pool.val, batch_size):
        yield Batch(normalization.apply(pool.images_NHW[index_N]), *_labels(pool, index_N))


def _labels(pool: PretrainingSet, index_N: Tensor) -> tuple[Tensor, Tensor]:
    known_NL = pool.known_NL[index_N]
    return pool.labels_NL[index_N] * known_NL, known_NL
