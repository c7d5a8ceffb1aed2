"""Pretraining as a researcher would write it in a day, without the project's code: the peer of its benchmark."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

BATCH = 32
LAMBDA_ADV, LAMBDA_REC = 0.001, 0.999

Images = tuple[Tensor, Tensor]
"""Z-scored images, shape (N, 1, H, W), and labels, shape (N, L): float32."""


class Generator(nn.Module):
    """F: inpaints the centre, shape (N, 1, H/2, W/2), of a masked image; `backbone` is a torchvision model's name."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        network = torchvision.models.get_model(backbone)
        self.encoder = network.features if backbone == "vgg16_bn" else nn.Sequential(*list(network.children())[:-2])
        layers: list[nn.Module] = []
        widths = (512 if backbone == "vgg16_bn" else 2048, 512, 256, 128, 64)
        for inputs, outputs in pairwise(widths):
            up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
            layers += [up, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, masked: Tensor) -> Tensor:
        """The inpainted centre."""
        inpainted: Tensor = self.decoder(self.encoder(masked.expand(-1, 3, -1, -1)))
        return inpainted


class Discriminator(nn.Module):
    """D: scores patches, given their images' labels, shape (N,)."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (1, 64, 128, 256, 512)
        for inputs, outputs in pairwise(widths):
            down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            layers += [down, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, 1)
        self.projection = nn.Linear(labels, 512, bias=False)

    def forward(self, patch: Tensor, labels: Tensor) -> Tensor:
        """The scores; positive means real."""
        features = self.features(patch).mean(dim=(2, 3))
        score: Tensor = self.classifier(features).squeeze(1) + (features * self.projection(labels)).sum(dim=1)
        return score


def loss_d(discriminator: nn.Module, patch: Tensor, inpainted: Tensor, labels: Tensor) -> Tensor:
    """Equation 2 of the paper."""
    real, fake = discriminator(patch, labels), discriminator(inpainted.detach(), labels)
    loss: Tensor = relu(1 - real).mean() + relu(1 + fake).mean()
    return loss


def loss_f(discriminator: nn.Module, patch: Tensor, inpainted: Tensor, labels: Tensor) -> Tensor:
    """Equation 3 of the paper."""
    adversarial: Tensor = -discriminator(inpainted, labels).mean()
    return LAMBDA_ADV * adversarial + LAMBDA_REC * mse_loss(inpainted, patch)


def center(images: Tensor) -> Tensor:
    """The middle half of height and width, as a view."""
    height, width = images.shape[-2:]
    return images[..., height // 4 : height * 3 // 4, width // 4 : width * 3 // 4]


class PlainTraining:
    """CE+DCM, eager: contiguous tensors, float32 (on a GPU with TF32), default `torch.optim.Adam`."""

    def __init__(self, backbone: str, labels: int, device: torch.device) -> None:
        use_tf32(device)
        self.device = device
        self.generator = Generator(backbone).to(device)
        self.discriminator = Discriminator(labels).to(device)
        self.of_f = torch.optim.Adam(self.generator.parameters(), lr=1e-4)
        self.of_d = torch.optim.Adam(self.discriminator.parameters(), lr=1e-5)

    def epoch(self, batches: Iterable[Images]) -> list[tuple[float, float]]:
        """Train on `batches` and return L_D and L_F of every step."""
        self.generator.train()
        self.discriminator.train()
        return [self.step(images.to(self.device), labels.to(self.device)) for images, labels in batches]

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Train one step of D, then one of F, and return their losses."""
        patch, masked = center(images), images.clone()
        center(masked).zero_()
        inpainted = self.generator(masked)
        of_d = loss_d(self.discriminator, patch, inpainted, labels)
        self.of_d.zero_grad()
        of_d.backward()
        self.of_d.step()
        of_f = loss_f(self.discriminator, patch, inpainted, labels)
        self.of_f.zero_grad()
        of_f.backward()
        self.of_f.step()
        return of_d.item(), of_f.item()


def memory_batches(grey: Tensor, labels: Tensor, mean: float, sd: float, device: torch.device) -> Iterator[Images]:
    """Shuffled batches of uint8 images in the host's memory, shape (N, H, W), z-scored on `device`; no augmentation."""
    for index in torch.randperm(len(grey)).split(BATCH):
        yield (grey[index].to(device).unsqueeze(1).float() - mean) / sd, labels[index]


def use_tf32(device: torch.device) -> None:
    """Enable TF32 for float32 products on a GPU; for convolutions it is cuDNN's default."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
