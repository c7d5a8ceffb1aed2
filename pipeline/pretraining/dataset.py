"""The images every method pretrains on, and their batches."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.images.batches import Normalization, draw_augmentation, epoch_order
from pipeline.images.loader import ImageLoader
from pipeline.methods import ShownLabels, TrainingSettings
from pipeline.training.distributed import max_over_processes
from pipeline.training.seeds import generator


@dataclass(frozen=True)
class PretrainingSet:
    """The pretraining pool: N images of H × W pixels, L labels. H and W are multiples of 32.

    `labels_NL`: float32, 0 or 1, and 0 if unknown. `known_NL`: bool. `patients_N` and `files_N`: int64, equal for
    images of one patient and for frames of one file. `train` and `val`: int64 indices into N, on the CPU.
    `image_digest` covers images and split, `label_digest` labels (`pipeline.cohort.pool`). The shard of the process
    `rank` (`shard`) holds fewer indices into the same N images, and an epoch uses `epoch_images` of its training
    images, equally many in every process. `shown` says which labels these are (`pipeline.pretraining.controls`).
    """

    images: ImageLoader
    labels_NL: Tensor
    known_NL: Tensor
    patients_N: Tensor
    files_N: Tensor
    train: Tensor
    val: Tensor
    label_names: tuple[str, ...]
    image_digest: str
    label_digest: str
    rank: int = 0
    epoch_images: int | None = None
    shown: ShownLabels = "own"
    relabelled: "PretrainingSet | None" = None
    """The pool with the archive's own labels, if these are others."""
    without_source: int | None = None
    """Number of the source whose images are neither in `train` nor in `val`; None: all are."""

    def __post_init__(self) -> None:
        count, names = self.images.count, len(self.label_names)
        if self.labels_NL.shape != (count, names) or self.known_NL.shape != (count, names):
            raise ValueError(f"labels of {count} images and {names} names have shape {tuple(self.labels_NL.shape)}")
        for name, group_N in (("patients", self.patients_N), ("files", self.files_N)):
            if group_N.shape != (count,):
                raise ValueError(f"{name} of {count} images have shape {tuple(group_N.shape)}")
        if not len(self.train) or not len(self.val):
            raise ValueError("no training or no validation image")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.images.height, self.images.width

    @property
    def archive(self) -> "PretrainingSet":
        """The pool with the archive's own labels."""
        return self if self.relabelled is None else self.relabelled

    def to(self, device: torch.device) -> "PretrainingSet":
        """The same set for training on `device`: labels are there, images where `pipeline.images.loader` puts them."""
        images, labels_NL, known_NL = self.images.to(device), self.labels_NL.to(device), self.known_NL.to(device)
        return replace(self, images=images, labels_NL=labels_NL, known_NL=known_NL)

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch, the same in every process; raises `UserError` if the images do not fill one batch."""
        images = len(self.train) if self.epoch_images is None else self.epoch_images
        if images < batch_size:
            raise UserError(f"pretraining.batch_size is {batch_size}, but the pool has {images} training images.")
        return images // batch_size

    def shard(self, rank: int, world: int) -> "PretrainingSet":
        """The part of process `rank` of `world`: whole patients, with about equally many images per process.

        Training and validation patients are distributed separately. All shards together are the set. Raises
        `UserError` if a process would get no training or no validation image.
        """
        trains, vals = (_dealt(indices, self.patients_N, world) for indices in (self.train, self.val))
        if not all(len(indices) for indices in (*trains, *vals)):
            raise UserError(
                f"The pool has too few patients for {world} processes: each needs one for training, one for validation."
            )
        return replace(self, train=trains[rank], val=vals[rank], rank=rank, epoch_images=min(map(len, trains)))


def _dealt(indices: Tensor, patients_N: Tensor, world: int) -> list[Tensor]:
    """`indices` in `world` parts without a common patient: largest patients first, each to the smallest part."""
    patients, of_index, counts = torch.unique(patients_N[indices], return_inverse=True, return_counts=True)
    owner, load = torch.zeros(len(patients), dtype=torch.int64), [0] * world
    for patient in torch.argsort(counts, descending=True, stable=True).tolist():
        rank = load.index(min(load))
        owner[patient] = rank
        load[rank] += int(counts[patient])
    return [indices[owner[of_index] == rank] for rank in range(world)]


@dataclass(frozen=True)
class Batch:
    """Images as z-scores, and their labels, 0 if unknown."""

    x_N1HW: Tensor
    labels_NL: Tensor
    known_NL: Tensor


def training_batches(
    pool: PretrainingSet, normalization: Normalization, settings: TrainingSettings, epoch: int, first_step: int = 0
) -> Iterator[Batch]:
    """The batches of one epoch from `first_step` on, shuffled and augmented on the pool's device.

    Order and augmentation depend only on the seed, the process's rank and `epoch`, so every method sees the same
    images. They are drawn for the whole epoch in advance: no step waits for the host, and a resumed epoch continues
    bit for bit. The last images, which fill no batch, are dropped.
    """
    scope, size, steps = (epoch, pool.rank), settings.batch_size, pool.steps(settings.batch_size)
    order_SN = epoch_order(pool.train, size, generator(settings.seed, "order", *scope))[:steps]
    augmentation = draw_augmentation(
        steps * size, *pool.size, settings.augmentation, generator(settings.seed, "moves", *scope)
    )
    chosen_SN, device = order_SN[first_step:], pool.images.device
    augmentation_SN = islice(augmentation.to(device).batches(size), first_step, None)
    for images_NHW, augmentation_N, index_N in zip(
        pool.images.batches(chosen_SN), augmentation_SN, chosen_SN.to(device), strict=True
    ):
        yield Batch(normalization.apply(augmentation_N.apply(images_NHW)), *known_labels(pool, index_N))


def validation_batches(pool: PretrainingSet, normalization: Normalization, batch_size: int) -> Iterator[Batch]:
    """All validation images in their order, as they are; the last batch may be smaller."""
    index_batches = torch.split(pool.val, batch_size)
    there = torch.split(pool.val.to(pool.images.device), batch_size)
    for images_NHW, index_N in zip(pool.images.batches(index_batches), there, strict=True):
        yield Batch(normalization.apply(images_NHW), *known_labels(pool, index_N))


def full_validation_batches(
    pool: PretrainingSet, normalization: Normalization, settings: TrainingSettings
) -> Iterator[tuple[Batch, int]]:
    """The validation images in full batches, each with the number of its first images that count.

    For a network that normalizes by the batch. Every image counts once. The pool holds a patient's images side by side,
    so the batches are shuffled by the seed and the process's rank, equally in every epoch. The last batch is filled up
    with images of the first, which do not count again. If there are fewer validation images than a batch has, one batch
    holds them all (a single image twice). Every process has equally many batches.
    """
    count = len(pool.val)
    size = min(settings.batch_size, max(count, 2))
    steps = int(max_over_processes(torch.tensor(math.ceil(count / size), device=pool.images.device)))
    order_N = pool.val[torch.randperm(count, generator=generator(settings.seed, "validation order", pool.rank))]
    chosen_SN = order_N[torch.arange(steps * size) % count].view(steps, size)
    for step, (images_NHW, index_N) in enumerate(
        zip(pool.images.batches(chosen_SN), chosen_SN.to(pool.images.device), strict=True)
    ):
        own = min(max(count - step * size, 0), size)
        yield Batch(normalization.apply(images_NHW), *known_labels(pool, index_N)), own


def known_labels(pool: PretrainingSet, index_N: Tensor) -> tuple[Tensor, Tensor]:
    """The labels of the images at `index_N`, 0 if unknown, and which are known, each (N, L)."""
    known_NL = pool.known_NL[index_N]
    return pool.labels_NL[index_N] * known_NL, known_NL
