"""Batches whose images are partly hidden, patch by patch, and the error of what is inpainted (SparK)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.images.batches import Normalization
from pipeline.methods.spark import PatchSide, SparkSettings
from pipeline.networks.sparse import VisibleCells
from pipeline.pretraining.dataset import Batch, PretrainingSet, training_batches, validation_batches
from pipeline.training.seeds import generator

MIN_PATCHES = 48
"""Of an image, if the recipe does not set their side. The authors' 224 × 224 pixels have 49 at stride 32."""
_VARIANCE = 1e-6  # added to that of a patch


@dataclass(frozen=True)
class MaskedBatch:
    """A batch, and which patches of its images are visible."""

    images: Batch
    visible: VisibleCells


@dataclass(frozen=True)
class MaskedBatches:
    """The batches of a training. Images come in the order and with the augmentation of every other method.

    Masks depend only on the seed, the process's rank and the epoch, and are drawn for the whole epoch in advance, so
    that a resumed epoch continues bit for bit.
    """

    normalization: Normalization
    settings: SparkSettings

    def training(self, pool: PretrainingSet, epoch: int, first_step: int) -> Iterator[MaskedBatch]:
        """The batches of one epoch from `first_step` on."""
        size = self.settings.batch_size
        cells_SNhw = self._cells(pool, pool.steps(size) * size, epoch).split(size)
        batches = training_batches(pool, self.normalization, self.settings, epoch, first_step)
        for batch, cells_Nhw in zip(batches, islice(cells_SNhw, first_step, None), strict=True):
            yield MaskedBatch(batch, VisibleCells(cells_Nhw, batch.x_N1HW.device))

    def validation(self, pool: PretrainingSet) -> Iterator[MaskedBatch]:
        """All validation images as they are, with the same masks in every epoch."""
        size = self.settings.batch_size
        cells = self._cells(pool, len(pool.val), "validation").split(size)
        for batch, cells_Nhw in zip(validation_batches(pool, self.normalization, size), cells, strict=True):
            yield MaskedBatch(batch, VisibleCells(cells_Nhw, batch.x_N1HW.device))

    def _cells(self, pool: PretrainingSet, count: int, epoch: int | str) -> Tensor:
        side = patch_side(self.settings, *pool.size)
        rows, columns = (length // side for length in pool.size)
        draws = generator(self.settings.seed, "masks", epoch, pool.rank)
        return draw_visible(count, rows, columns, self.settings.mask_ratio, draws)


def patch_side(settings: SparkSettings, height: int, width: int) -> PatchSide:
    """The side of a patch of images of that size; raises `UserError` if the settings leave only one patch."""
    counts: dict[PatchSide, int] = {side: height * width // side**2 for side in (32, 16, 8)}
    if settings.mask_patch is None:
        return next((side for side, patches in counts.items() if patches >= MIN_PATCHES), 8)
    if counts[settings.mask_patch] < 2:
        raise UserError(
            f"pretraining.mask_patch is {settings.mask_patch}, but an image of {height} x {width} pixels is one such "
            "patch, and one must be hidden and one visible: choose 16 or 8."
        )
    return settings.mask_patch


def draw_visible(count: int, rows: int, columns: int, mask_ratio: float, draws: torch.Generator) -> Tensor:
    """Which patches of `count` images are visible, bool, shape (count, rows, columns): equally many in each."""
    patches = rows * columns
    kept = min(max(round(patches * (1 - mask_ratio)), 1), patches - 1)
    chosen = torch.rand(count, patches, generator=draws).argsort(dim=1)[:, :kept]
    return torch.zeros(count, patches, dtype=torch.bool).scatter_(1, chosen, True).view(count, rows, columns)


def patch_errors(inpainted_N1HW: Tensor, x_N1HW: Tensor, visible: VisibleCells) -> Tensor:
    """The mean squared error over the hidden patches of each image, shape (N,).

    The target is a patch less its mean, divided by its deviation; that of a patch of one grey level is 0.
    """
    rows, columns = visible.cells_Nhw.shape[1:]
    hidden_Nhw = ~visible.at(rows, columns)[:, 0]
    patches_NhwP = _patches(x_N1HW, rows, columns)
    variance_Nhw1 = patches_NhwP.var(dim=3, keepdim=True) + _VARIANCE
    target_NhwP = (patches_NhwP - patches_NhwP.mean(dim=3, keepdim=True)) / variance_Nhw1.sqrt()
    error_Nhw = (_patches(inpainted_N1HW, rows, columns) - target_NhwP).square().mean(dim=3)
    return (error_Nhw * hidden_Nhw).sum(dim=(1, 2)) / hidden_Nhw.sum(dim=(1, 2))


def _patches(x_N1HW: Tensor, rows: int, columns: int) -> Tensor:
    """The P pixels of each patch, shape (N, rows, columns, P)."""
    count, _, height, width = x_N1HW.shape
    pixels = x_N1HW.reshape(count, rows, height // rows, columns, width // columns)
    return pixels.transpose(2, 3).flatten(3)
