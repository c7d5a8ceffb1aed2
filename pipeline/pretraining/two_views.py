"""Batches for contrastive methods: two views of each image, or of two images of one patient."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from pipeline.images.batches import Normalization, epoch_order
from pipeline.images.views import draw_noise, draw_views
from pipeline.methods.contrastive import ContrastiveSettings
from pipeline.pretraining.dataset import PretrainingSet, known_labels
from pipeline.training.seeds import generator


@dataclass(frozen=True)
class ViewBatch:
    """Two views of each of N images as z-scores, all first views before all second ones, M = 2 N.

    Labels, float32, 0 if unknown, and patients are those of the N images.
    """

    x_M1HW: Tensor
    labels_NL: Tensor
    known_NL: Tensor
    patients_N: Tensor


@dataclass(frozen=True)
class TwoViews:
    """The batches of a training. `group_I` holds one number per image of the pool, equal for images that make a pair.

    The second view of an image is then that of another image of its group on its side of the split, drawn anew for
    each epoch, or of its own if there is no other. If `group_I` is None, both views are of the image.

    Order, pairs and views depend only on the seed, the process's rank and the epoch. They are drawn for the whole epoch
    in advance, so that a resumed epoch continues bit for bit.
    """

    pool: PretrainingSet
    normalization: Normalization
    settings: ContrastiveSettings
    group_I: Tensor | None = None

    def training(self, epoch: int, first_step: int = 0) -> Iterator[ViewBatch]:
        """The batches of one epoch from `first_step` on; the images come in the order of every other method."""
        size = self.settings.batch_size
        order_SN = epoch_order(self.pool.train, size, self._generator("order", epoch))[: self.pool.steps(size)]
        return self._batches(self.pool.train, order_SN, epoch, first_step)

    def validation(self) -> Iterator[ViewBatch]:
        """Batches of the validation images, the same in every epoch: a fixed order, pairs and views.

        They have the size of a training batch, or all images if there are fewer; the last images, which fill no batch,
        are dropped, as in training.
        """
        size = min(self.settings.batch_size, len(self.pool.val))
        order_SN = epoch_order(self.pool.val, size, self._generator("validation order"))
        return self._batches(self.pool.val, order_SN, "validation", 0)

    def _batches(self, side: Tensor, order_SN: Tensor, epoch: int | str, first_step: int) -> Iterator[ViewBatch]:
        (steps, size), (height, width) = order_SN.shape, self.pool.size
        second_SN = order_SN if self.group_I is None else self._partners(side, epoch)[order_SN]
        chosen_SM = torch.cat([order_SN, second_SN], dim=1)[first_step:]
        device = self.pool.images.device
        views = draw_views(2 * steps * size, height, self.settings, self._generator("views", epoch)).to(device)
        noise_RW = draw_noise(height, width, self._generator("speckle", epoch)).to(device)
        views_SM = islice(views.batches(2 * size), first_step, None)
        for images_MHW, views_M, index_N in zip(
            self.pool.images.batches(chosen_SM), views_SM, order_SN[first_step:], strict=True
        ):
            x_M1HW = self.normalization.apply(views_M.apply(images_MHW, noise_RW))
            labels = known_labels(self.pool, index_N.to(device))
            yield ViewBatch(x_M1HW, *labels, self.pool.patients_N[index_N].to(device))

    def _partners(self, side: Tensor, epoch: int | str) -> Tensor:
        """For each image of the pool that is in `side` the image that its second view is of."""
        assert self.group_I is not None
        _, of_image_J, count_G = torch.unique(self.group_I[side], return_inverse=True, return_counts=True)
        by_group_J = side[torch.argsort(of_image_J, stable=True)]
        first_J = (count_G.cumsum(0) - count_G).repeat_interleave(count_G)
        count_J = count_G.repeat_interleave(count_G)
        place_J = torch.arange(len(side)) - first_J
        draw_J = torch.rand(len(side), dtype=torch.float64, generator=self._generator("pairs", epoch))
        other_J = (place_J + 1 + (draw_J * (count_J - 1)).long()) % count_J
        partner_I = torch.arange(len(self.group_I))
        partner_I[by_group_J] = by_group_J[first_J + other_J]
        return partner_I

    def _generator(self, purpose: str, *epoch: int | str) -> torch.Generator:
        return generator(self.settings.seed, purpose, *epoch, self.pool.rank)
