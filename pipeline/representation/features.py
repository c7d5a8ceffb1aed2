"""Features of a frozen encoder, and the trivial ones that they are compared with."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from pipeline.images.batches import Normalization
from pipeline.networks.encoders import Encoder
from pipeline.training.device import configure_backends, to_device, training_device
from pipeline.training.seeds import generator

Floats = NDArray[np.float32]

STRIDE: Final = 4
"""Pixels between the positions of feature maps."""
LEVELS: Final = 4
"""Levels of the pyramid in the maps: strides 4, 8, 16 and 32."""
PROJECTED: Final = 64
"""Channels of a level in the maps: wider levels are projected at random, as all of them would not fit in memory."""

BATCH: Final = 64
"""Images at a time."""
_SIDE = 16  # pixels of the thumbnails that are features by themselves


@dataclass(frozen=True)
class Features:
    """Features of N images: `pooled_ND` per image, `maps_NCHW` (float16) at every fourth pixel of segmentations.

    The maps of other problems are empty.
    """

    pooled_ND: Floats
    maps_NCHW: NDArray[np.float16]


def encoder_features(
    encoder: Encoder, normalization: Normalization, images_NHW: NDArray[np.uint8], maps: bool
) -> Features:
    """The features of `encoder` in evaluation mode: means over the last level, and `maps` if they are needed."""
    device = training_device()
    configure_backends(device)
    encoder = to_device(encoder.eval(), device)
    projections = [map_projection(level, width).to(device) for level, width in enumerate(encoder.channels[-LEVELS:])]
    pooled, found = [], []
    with torch.no_grad():
        for x_N1HW in _normalized(torch.from_numpy(images_NHW).split(BATCH), normalization, device):
            levels = encoder.pyramid(x_N1HW)[-LEVELS:]
            pooled.append(levels[-1].mean((2, 3)).float().cpu())
            if maps:
                found.append(maps_of(levels, projections, images_NHW.shape[1:]))
    return Features(torch.cat(pooled).numpy(), np.concatenate(found) if maps else np.empty((0, 0, 0, 0), np.float16))


def pooled_features(encoder: Encoder, batches: Iterable[Tensor], normalization: Normalization) -> Floats:
    """Means over the last level of `encoder`, in evaluation mode, of grey images in batches of (n, H, W): (N, D)."""
    device = next(encoder.parameters()).device
    encoder.eval()
    with torch.no_grad():
        means = [encoder(x_N1HW).mean((2, 3)).float().cpu() for x_N1HW in _normalized(batches, normalization, device)]
    return torch.cat(means).numpy()


def unit(features_ND: NDArray[Any]) -> NDArray[Any]:
    """The features, each divided by its length."""
    unit_ND: NDArray[Any] = features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
    return unit_ND


def pixel_features(images_NHW: NDArray[np.uint8], maps: bool) -> Features:
    """The control "pixels": a thumbnail of 16 × 16 per image; in maps the grey level, two blurs and the position."""
    grey_N1HW = torch.from_numpy(images_NHW).float().unsqueeze(1) / 255
    pooled = adaptive_avg_pool2d(grey_N1HW, _SIDE).flatten(1).numpy()
    return Features(pooled, _pixel_maps(grey_N1HW) if maps else np.empty((0, 0, 0, 0), np.float16))


def brightness_features(images_NHW: NDArray[np.uint8]) -> Features:
    """The control "brightness": mean, deviation and deciles of an image's grey levels, and its share of black."""
    flat = images_NHW.reshape(len(images_NHW), -1).astype(np.float32)
    deciles = np.percentile(flat, range(10, 100, 10), axis=1).T
    columns = [flat.mean(1), flat.std(1), (flat == 0).mean(1)]
    return Features(np.column_stack([*columns, deciles]).astype(np.float32), np.empty((0, 0, 0, 0), np.float16))


def size_features(sizes: Sequence[tuple[int, int]]) -> Features:
    """The control "image size": for each size among `sizes` (rows, columns) whether an image has it."""
    codes = np.unique(np.array(sizes), axis=0, return_inverse=True)[1].reshape(-1)
    pooled = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float32)
    return Features(pooled, np.empty((0, 0, 0, 0), np.float16))


def _normalized(batches: Iterable[Tensor], normalization: Normalization, device: torch.device) -> Iterator[Tensor]:
    for images_NHW in batches:
        yield normalization.apply(images_NHW.to(device)).contiguous(memory_format=torch.channels_last)


def map_projection(level: int, width: int) -> Tensor:
    """`width` × PROJECTED orthonormal columns, random, the same for all encoders; the identity for narrow levels."""
    if width <= PROJECTED:
        return torch.eye(width)
    drawn = torch.randn(width, PROJECTED, generator=generator(0, "frozen evaluation", "projection", level, width))
    return cast("Tensor", torch.linalg.qr(drawn).Q)


def maps_of(levels: list[Tensor], projections: list[Tensor], size_HW: tuple[int, ...]) -> NDArray[np.float16]:
    """Maps of `levels` at every fourth pixel of images of `size_HW`, each level by its projection (C, D)."""
    height, width = (side // STRIDE for side in size_HW)
    narrow = [
        torch.einsum("nchw,cd->ndhw", level.float(), fixed) for level, fixed in zip(levels, projections, strict=True)
    ]
    resized = [interpolate(level, (height, width), mode="bilinear", align_corners=False) for level in narrow]
    return torch.cat(resized, dim=1).half().cpu().numpy()


def _pixel_maps(grey_N1HW: Tensor) -> NDArray[np.float16]:
    height, width = (side // STRIDE for side in grey_N1HW.shape[2:])
    near = adaptive_avg_pool2d(grey_N1HW, (height, width))
    blurs = [interpolate(adaptive_avg_pool2d(near, side), (height, width), mode="bilinear") for side in (8, 4)]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    placed = [at.expand(len(near), 1, height, width) for at in (rows, columns, rows**2, columns**2, rows * columns)]
    return torch.cat([near, *blurs, *placed], dim=1).half().numpy()
