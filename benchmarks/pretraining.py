"""A context encoder's training against the loop a researcher would write in a day.

Belongs here: the plain loop and the comparison, same networks and losses. Not here: quality of what is learnt.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, compare
from pipeline.images.batches import center_patch, fit_normalization, mask_center
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.encoders import build_encoder
from pipeline.pretraining.context_encoder import ContextEncoder, ContextEncoderTraining
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.recipe import Pretraining
from pipeline.training.device import on_device, training_device

BATCH, STEPS, LABELS = 32, 4, 10


def measure(_: Path, __: Path) -> list[Row]:
    """One row: ResNet-50, CE+DCM at 64×96, batch 32, data in memory."""
    pool = _random_pool(BATCH * STEPS)
    normalization = fit_normalization(pool.images_NHW, pool.train)
    settings = Pretraining(batch_size=BATCH)
    encoder = build_encoder("resnet50")
    network = on_device(ContextEncoder(encoder, Decoder(encoder.channels[-1])), training_device())
    discriminator = on_device(Discriminator(LABELS), training_device())
    training = ContextEncoderTraining(network, discriminator, pool.to(training_device()), normalization, settings)
    plain = _PlainLoop(pool)
    training.train_epoch(1, lambda _: None)
    plain.epoch()
    return [
        compare(
            f"train ResNet-50 CE+DCM, 64×96, batch 32, on {training_device().type}",
            "images",
            BATCH * STEPS,
            lambda: training.train_epoch(2, lambda _: None),
            plain.epoch,
            "an eager loop: contiguous tensors, plain Adam",
        )
    ]


def _random_pool(count: int) -> PretrainingSet:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count + BATCH, 64, 96), dtype=torch.uint8)
    labels = torch.randint(0, 2, (len(images), LABELS)).float()
    names = tuple(f"label-{number}" for number in range(LABELS))
    train, val = torch.arange(count), torch.arange(count, len(images))
    return PretrainingSet(images, labels, torch.ones_like(labels).bool(), train, val, names, "", "")


class _PlainLoop:
    """Equations 2 and 3 as one would first write them down."""

    def __init__(self, pool: PretrainingSet) -> None:
        self.pool, device = pool, training_device()
        encoder = build_encoder("resnet50")
        self.generator = nn.Sequential(encoder, Decoder(encoder.channels[-1])).to(device)
        self.discriminator = Discriminator(LABELS).to(device)
        self.of_f = torch.optim.Adam(self.generator.parameters(), 1e-4)
        self.of_d = torch.optim.Adam(self.discriminator.parameters(), 1e-5)
        self.device = device

    def epoch(self) -> None:
        """One pass over the training images."""
        for index in torch.randperm(len(self.pool.train)).split(BATCH):
            images = self.pool.images_NHW[index].float().unsqueeze(1).to(self.device)
            self._step((images - 127.5) / 73.9, self.pool.labels_NL[index].to(self.device))

    def _step(self, x: Tensor, labels: Tensor) -> None:
        patch = center_patch(x)
        inpainted = self.generator(mask_center(x))
        real, fake = self.discriminator(patch, labels), self.discriminator(inpainted.detach(), labels)
        loss_d = (1 - real).relu().mean() + (1 + fake).relu().mean()
        self.of_d.zero_grad()
        loss_d.backward()
        self.of_d.step()
        adversarial = -self.discriminator(inpainted, labels).mean()
        loss_f = 0.001 * adversarial + 0.999 * nn.functional.mse_loss(inpainted, patch)
        self.of_f.zero_grad()
        loss_f.backward()
        self.of_f.step()
        loss_f.item()  # as one would, to print it
