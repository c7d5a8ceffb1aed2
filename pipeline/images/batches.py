"""From uint8 images to a network's input: order of an epoch, augmentation, z-score, the masked centre."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.images.loader import ImageLoader
from pipeline.settings import Augmentation

_CHUNK = 256  # images counted or averaged at a time


@dataclass(frozen=True)
class Normalization:
    """Z-score by the training split's mean and standard deviation, both in grey levels (0 to 255).

    All images share them: a z-score per image would reveal the masked centre to the encoder.
    """

    mean: float
    sd: float

    def apply(self, images_NHW: Tensor) -> Tensor:
        """Grey levels, shape (N, H, W), as z-scores, float32, shape (N, 1, H, W)."""
        return images_NHW.sub(self.mean).div_(self.sd).unsqueeze(1)

    def grey_levels(self, x_N1HW: Tensor) -> Tensor:
        """Z-scores, shape (N, 1, H, W), as uint8 grey levels, rounded and clamped, shape (N, H, W)."""
        return (x_N1HW * self.sd + self.mean).round().clamp(0, 255).to(torch.uint8).squeeze(1)


def fit_normalization(images: ImageLoader, indices: Tensor) -> Normalization:
    """Mean and (population) standard deviation over all pixels of the images at `indices`.

    Sums are exact, so that the order of the images does not matter. Raises `UserError` if all pixels are equal.
    """
    counts = torch.zeros(256, dtype=torch.int64, device=images.device)
    for chunk_NHW in images.batches(torch.split(indices, _CHUNK)):
        counts += torch.bincount(chunk_NHW.flatten(), minlength=256)
    share = counts.double().cpu() / counts.sum().cpu()
    level = torch.arange(256, dtype=torch.float64)
    mean = (share * level).sum()
    sd = (share * (level - mean).square()).sum().sqrt()
    if not sd > 0:
        raise UserError("All pixels of the training images have the same grey level: the images cannot be normalized.")
    return Normalization(mean.item(), sd.item())


@dataclass(frozen=True)
class AugmentationParameters:
    """Random flip and shift of each image of a batch or an epoch, which apply to images and masks alike.

    `flip_N` (bool) flips left and right; `down_N` and `right_N` (int64, pixels) then shift the image.
    """

    flip_N: Tensor
    down_N: Tensor
    right_N: Tensor

    def apply(self, images_NHW: Tensor) -> Tensor:
        """The images or masks, of any dtype, flipped and shifted; uncovered pixels are 0 (black, background).

        Moves whole rows, then columns within rows: no index is as large as the images, and the host never waits.
        """
        count, height, width = images_NHW.shape
        device = images_NHW.device
        row_NH = torch.arange(height, device=device) - self.down_N[:, None]
        column_NW = torch.arange(width, device=device) - self.right_N[:, None]
        source_NW = torch.where(self.flip_N[:, None], width - 1 - column_NW, column_NW).clamp_(0, width - 1)
        first_N1 = torch.arange(0, count * height, height, device=device)[:, None]
        source_NH = first_N1 + row_NH.clamp(0, height - 1)
        rows_NHW = images_NHW.flatten(0, 1).index_select(0, source_NH.flatten()).view(images_NHW.shape)
        moved_NHW = rows_NHW.gather(2, source_NW[:, None, :].expand(images_NHW.shape))
        moved_NHW.mul_(_in_range(row_NH, height)[:, :, None])
        return moved_NHW.mul_(_in_range(column_NW, width)[:, None, :])

    def batches(self, batch_size: int) -> Iterator["AugmentationParameters"]:
        """The parameters batch by batch."""
        parts = (torch.split(values_N, batch_size) for values_N in (self.flip_N, self.down_N, self.right_N))
        return (AugmentationParameters(*part) for part in zip(*parts, strict=True))

    def to(self, device: torch.device) -> "AugmentationParameters":
        """The same parameters on `device`."""
        return AugmentationParameters(self.flip_N.to(device), self.down_N.to(device), self.right_N.to(device))


def draw_augmentation(
    count: int, height: int, width: int, settings: Augmentation, generator: torch.Generator
) -> AugmentationParameters:
    """Augmentation of `count` images of `height` × `width` pixels (paper section 4.2.2), drawn on the CPU.

    Half of the images are flipped left to right; shifts are whole pixels, uniform within ± `settings.shift` of either
    side.
    """

    def shifts(side: int) -> Tensor:
        largest = int(settings.shift * side)
        return torch.randint(-largest, largest + 1, (count,), generator=generator)

    flip_N = torch.rand(count, generator=generator) < 0.5
    return AugmentationParameters(flip_N & settings.horizontal_flip, shifts(height), shifts(width))


def epoch_order(indices: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """`indices` shuffled into whole batches, shape (steps, batch_size); an incomplete last batch is dropped."""
    steps = len(indices) // batch_size
    order = torch.randperm(len(indices), generator=generator)[: steps * batch_size]
    return indices.cpu()[order].view(steps, batch_size)


def center_patch(x_NCHW: Tensor) -> Tensor:
    """A view of the centre of x, half its height and half its width (paper section 3.1); 4 must divide H and W."""
    height, width = x_NCHW.shape[-2:]
    return x_NCHW[..., height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2]


def mask_center(x_NCHW: Tensor) -> Tensor:
    """A copy of z-scored x whose centre patch is 0, the mean of the training images."""
    masked = x_NCHW.clone()
    center_patch(masked).zero_()
    return masked


def mean_center_patch(images: ImageLoader, indices: Tensor) -> Tensor:
    """The mean centre patch of the images at `indices`: grey levels, float32, shape (H/2, W/2)."""
    chunks = images.batches(torch.split(indices, _CHUNK))
    sums = [center_patch(chunk_NHW).sum(dim=0, dtype=torch.int64) for chunk_NHW in chunks]
    return (torch.stack(sums).sum(dim=0).double() / len(indices)).float()


def _in_range(position: Tensor, size: int) -> Tensor:
    return (position >= 0) & (position < size)
