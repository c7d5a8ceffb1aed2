"""Random views of ultrasound images for contrastive methods: changes that depth, beams and background allow.

Parameters are drawn in advance on the CPU; images stay bytes until they are on the training device.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from pipeline.settings import Views

_WHITE = 255.0
_NOISE_FIELDS = 16  # heights of the strip of noise; a view's noise begins at any of its rows
_SHADOW_TOP = (0.1, 0.7)  # share of the height
_SHADOW_WIDTH = (0.04, 0.15)  # of a shadow's top, as a share of the width
_SHADOW_STRENGTH = (0.4, 0.9)  # share of the brightness that it takes
_BEAMS_DIVERGE = 0.5  # at most, over the whole height: 0 is a linear probe
_EDGE = 0.03  # over which a shadow begins, as a share of either side


@dataclass(frozen=True)
class ViewParameters:
    """Random changes of M images, one value each: float32, but `flip_M` (bool) and `noise_row_M` (int64).

    `crop_side_M` is the share of both sides that a crop keeps; `crop_left_M` and `crop_top_M` are where it begins,
    as shares of width and height. `gain_M` multiplies the grey levels, `depth_gain_M` adds to it, from minus that at
    the top to plus that at the bottom; `gamma_M` is the exponent of grey levels between 0 and 1. `speckle_M` is the
    deviation of the noise, whose first row in the strip of noise is `noise_row_M`. A shadow takes `shadow_strength_M`
    (0: there is none) of the brightness below `shadow_top_M`, between beams around `shadow_centre_M` that are
    `shadow_width_M` apart there and spread by `shadow_spread_M` over a whole height.
    """

    crop_side_M: Tensor
    crop_left_M: Tensor
    crop_top_M: Tensor
    flip_M: Tensor
    gain_M: Tensor
    depth_gain_M: Tensor
    gamma_M: Tensor
    speckle_M: Tensor
    noise_row_M: Tensor
    shadow_strength_M: Tensor
    shadow_top_M: Tensor
    shadow_centre_M: Tensor
    shadow_width_M: Tensor
    shadow_spread_M: Tensor

    def apply(self, images_MHW: Tensor, noise_RW: Tensor) -> Tensor:
        """The views of uint8 images, as grey levels from 0 to 255, float32, shape (M, H, W); black stays black.

        `noise_RW` is the strip of noise, as `draw_noise` returns it for images of this size.
        """
        views_MHW = self._cropped(images_MHW)
        views_MHW.mul_(self._noise(noise_RW, views_MHW.shape[1]))
        views_MHW.mul_(self._shadow(*views_MHW.shape[1:]))
        views_MHW.mul_(self._gains(views_MHW.shape[1]))
        return views_MHW.clamp_(0, _WHITE).div_(_WHITE).pow_(self.gamma_M[:, None, None]).mul_(_WHITE)

    def batches(self, batch_size: int) -> Iterator["ViewParameters"]:
        """The parameters batch by batch."""
        parts = (torch.split(getattr(self, field.name), batch_size) for field in fields(self))
        return (ViewParameters(*part) for part in zip(*parts, strict=True))

    def to(self, device: torch.device) -> "ViewParameters":
        """The same parameters on `device`."""
        return ViewParameters(*(getattr(self, field.name).to(device) for field in fields(self)))

    def _cropped(self, images_MHW: Tensor) -> Tensor:
        """The crops at the images' own size, flipped, by bilinear interpolation."""
        height, width = images_MHW.shape[1:]
        device = images_MHW.device
        across_MW = (_centres(width, device) - 0.5) * torch.where(self.flip_M, -1.0, 1.0)[:, None] + 0.5
        x_MW = self.crop_left_M[:, None] + self.crop_side_M[:, None] * across_MW
        y_MH = self.crop_top_M[:, None] + self.crop_side_M[:, None] * _centres(height, device)
        grid_MHW2 = torch.stack(torch.broadcast_tensors(x_MW[:, None, :], y_MH[:, :, None]), dim=3).mul_(2).sub_(1)
        images_M1HW = images_MHW.unsqueeze(1).float()
        return grid_sample(images_M1HW, grid_MHW2, padding_mode="border", align_corners=False).squeeze(1)

    def _noise(self, noise_RW: Tensor, height: int) -> Tensor:
        """The factors of the noise."""
        rows_MH = self.noise_row_M[:, None] + torch.arange(height, device=noise_RW.device)
        noise_MHW = noise_RW.index_select(0, rows_MH.flatten()).view(*rows_MH.shape, -1)
        return noise_MHW.mul_(self.speckle_M[:, None, None]).add_(1)

    def _shadow(self, height: int, width: int) -> Tensor:
        """The factors of the shadow: its beams leave the middle of the face, so they spread with depth."""
        below_MH = _centres(height, self.shadow_top_M.device) - self.shadow_top_M[:, None]
        spread_MH1 = (1 + self.shadow_spread_M[:, None] * below_MH.clamp(min=0))[:, :, None]
        across_M1W = (_centres(width, self.shadow_top_M.device) - 0.5)[None, None, :]
        centre_MH1 = (self.shadow_centre_M - 0.5)[:, None, None] * spread_MH1
        half_width_MH1 = self.shadow_width_M[:, None, None] / 2 * spread_MH1
        inside_MHW = (across_M1W - centre_MH1).abs_().neg_().add_(half_width_MH1).div_(_EDGE).clamp_(0, 1)
        strength_MH1 = (below_MH / _EDGE).clamp_(0, 1)[:, :, None] * self.shadow_strength_M[:, None, None]
        return inside_MHW.mul_(strength_MH1).neg_().add_(1)

    def _gains(self, height: int) -> Tensor:
        """The factors of gain and depth gain, shape (M, H, 1)."""
        down_H = 2 * _centres(height, self.gain_M.device) - 1
        return (self.gain_M[:, None] + self.depth_gain_M[:, None] * down_H)[:, :, None]


def draw_views(count: int, height: int, settings: Views, generator: torch.Generator) -> ViewParameters:
    """Parameters of `count` views of images `height` pixels high, drawn on the CPU within the ranges of `settings`."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    crop_side_M = uniform(settings.view_crop, 1).sqrt_()
    left_over_M = 1 - crop_side_M
    largest_exponent = math.log1p(settings.view_gamma)
    has_shadow_M = uniform(0, 1) < settings.view_shadow
    return ViewParameters(
        crop_side_M=crop_side_M,
        crop_left_M=left_over_M * uniform(0, 1),
        crop_top_M=left_over_M * uniform(0, 1),
        flip_M=(uniform(0, 1) < 0.5) & settings.view_flip,
        gain_M=1 + uniform(-settings.view_gain, settings.view_gain),
        depth_gain_M=uniform(-settings.view_depth_gain, settings.view_depth_gain),
        gamma_M=uniform(-largest_exponent, largest_exponent).exp_(),
        speckle_M=uniform(0, settings.view_speckle),
        noise_row_M=torch.randint(0, _NOISE_FIELDS * height, (count,), generator=generator),
        shadow_strength_M=has_shadow_M * uniform(*_SHADOW_STRENGTH),
        shadow_top_M=uniform(*_SHADOW_TOP),
        shadow_centre_M=uniform(0, 1),
        shadow_width_M=uniform(*_SHADOW_WIDTH),
        shadow_spread_M=uniform(0, _BEAMS_DIVERGE),
    )


def draw_noise(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A strip of noise for views of `height` × `width` pixels, drawn on the CPU: mean 0, variance 1, shape (R, width).

    Two neighbours in a row share half of their variance, since an ultrasound beam resolves less across than along.
    """
    white_RW = torch.randn(_NOISE_FIELDS * height + height, width + 1, generator=generator)
    return (white_RW[:, 1:] + white_RW[:, :-1]) / math.sqrt(2)


def _centres(size: int, device: torch.device) -> Tensor:
    """The centres of `size` pixels along a side of length 1."""
    return (torch.arange(size, device=device) + 0.5) / size
