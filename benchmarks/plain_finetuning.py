"""Fine-tuning as a researcher would write it in a day, without the project's code: the peer of its benchmark."""

from collections.abc import Iterable
from itertools import zip_longest
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from benchmarks.plain_pretraining import use_tf32

Kind = Literal["ordinal", "segmentation"]
BATCH: dict[Kind, int] = {"ordinal": 4, "segmentation": 8}
"""Batch size by kind of task (paper Table A2)."""
SHIFT = 0.1
"""Largest shift, as a share of a side."""

Pair = tuple[Tensor, Tensor]
"""Z-scored images, shape (N, 1, H, W), and their targets: ordinal codes, shape (N, T), or masks, shape (N, H, W)."""


class PlainBackbone(nn.Module):
    """torchvision's `backbone` without its head: features at strides 1 (VGG alone), 2, 4, 8, 16 and 32."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        network = torchvision.models.get_model(backbone)
        if backbone == "vgg16_bn":
            ends, layers = (6, 13, 23, 33, 43, 44), list(network.features)
            self.stages = nn.ModuleList(
                nn.Sequential(*layers[start:end]) for start, end in zip((0, *ends[:-1]), ends, strict=True)
            )
            self.channels: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
        else:
            stem = nn.Sequential(network.conv1, network.bn1, network.relu)
            first = nn.Sequential(network.maxpool, network.layer1)
            self.stages = nn.ModuleList([stem, first, network.layer2, network.layer3, network.layer4])
            self.channels = (64, 256, 512, 1024, 2048)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features, finest first."""
        x, features = x.expand(-1, 3, -1, -1), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class PlainClassifier(nn.Module):
    """A backbone and the paper's head (section 4.4.1): one logit per threshold."""

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        self.backbone = PlainBackbone(backbone)
        self.mix = nn.Conv2d(self.backbone.channels[-1], 256, 1)
        self.dropout = nn.Dropout(0.5)
        self.to_logits = nn.Linear(256, classes - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, classes - 1)."""
        logits: Tensor = self.to_logits(self.dropout(self.mix(self.backbone(x)[-1])).mean(dim=(2, 3)))
        return logits


class PlainUNet(nn.Module):
    """A backbone and five up-blocks with skip connections, as many as the backbone has features beside the deepest."""

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        self.backbone = PlainBackbone(backbone)
        widths, skips = (256, 128, 64, 32, 16), list(reversed(self.backbone.channels[:-1]))
        skips += [0] * (len(widths) - len(skips))
        inputs = (self.backbone.channels[-1], *widths[:-1])
        self.ups, self.mixes = nn.ModuleList(), nn.ModuleList()
        for channels, skip, width in zip(inputs, skips, widths, strict=True):
            self.ups.append(nn.ConvTranspose2d(channels, width, 2, stride=2))
            mix = nn.Conv2d(width + skip, width, 3, padding=1, bias=False)
            self.mixes.append(nn.Sequential(mix, nn.BatchNorm2d(width), nn.ReLU(inplace=True)))
        self.to_logits = nn.Conv2d(widths[-1], classes - 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the foreground, shape (N, classes - 1, H, W)."""
        *skips, x = self.backbone(image)
        for up, mix, skip in zip_longest(self.ups, self.mixes, reversed(skips)):
            x = mix(up(x) if skip is None else torch.cat([up(x), skip], dim=1))
        logits: Tensor = self.to_logits(x)
        return logits


def weighted_cross_entropy(logits: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy over all thresholds, positives weighted."""
    return binary_cross_entropy_with_logits(logits, codes, pos_weight=weights)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - soft Dice with squares, the mean over images, of one foreground class."""
    p, t = logits.sigmoid()[:, 0], masks.float()
    overlap = (p * t).sum(dim=(1, 2))
    return 1 - ((2 * overlap + 1) / ((p * p).sum(dim=(1, 2)) + t.sum(dim=(1, 2)) + 1)).mean()


class Augmented(Dataset[Pair]):
    """Grey images, uint8, shape (N, H, W), each flipped and shifted with its mask, and z-scored."""

    def __init__(self, grey: Tensor, targets: Tensor, mean: float, sd: float) -> None:
        self.grey, self.targets, self.mean, self.sd = grey, targets, mean, sd

    def __len__(self) -> int:
        return len(self.grey)

    def __getitem__(self, number: int) -> Pair:
        image, target = self.grey[number], self.targets[number]
        height, width = image.shape
        flip = torch.rand(()) < 0.5
        down, right = (int((2 * torch.rand(()) - 1) * SHIFT * side) for side in (height, width))
        image = moved(image, bool(flip), down, right)
        if target.dim() == 2:
            target = moved(target, bool(flip), down, right)
        return (image[None].float() - self.mean) / self.sd, target


def moved(image: Tensor, flip: bool, down: int, right: int) -> Tensor:
    """`image`, shape (H, W), flipped left to right, then shifted; uncovered pixels are 0."""
    height, width = image.shape
    if flip:
        image = image.flip(1)
    shifted = torch.zeros_like(image)
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    from_rows, from_columns = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
    shifted[rows, columns] = image[from_rows, from_columns]
    return shifted


def loader(images: Augmented, batch: int) -> DataLoader[Pair]:
    """Shuffled batches, made in the training process: for such small images, workers would cost more than they save."""
    return DataLoader(images, batch, shuffle=True, drop_last=True)


class PlainFineTuning:
    """Fine-tuning, eager: contiguous tensors, float32 (on a GPU with TF32), default `torch.optim.Adam`."""

    def __init__(
        self, network: PlainClassifier | PlainUNet, weights: Tensor | None, device: torch.device, frozen: bool = False
    ) -> None:
        """`weights` of each threshold's positives, None for a segmentation; `frozen` keeps the backbone fixed."""
        use_tf32(device)
        self.device, self.frozen = device, frozen
        network.backbone.requires_grad_(not frozen)
        self.network = network.to(device)
        self.weights = None if weights is None else weights.to(device)
        self.optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-4)

    def epoch(self, batches: Iterable[Pair]) -> list[float]:
        """Train on `batches` and return the loss of every step."""
        self.network.train()
        if self.frozen:
            self.network.backbone.eval()
        return [self.step(images.to(self.device), targets.to(self.device)) for images, targets in batches]

    def step(self, images: Tensor, targets: Tensor) -> float:
        """Train one step and return its loss."""
        logits = self.network(images)
        weights = self.weights
        loss = dice_loss(logits, targets) if weights is None else weighted_cross_entropy(logits, targets, weights)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
