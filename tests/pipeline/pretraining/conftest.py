"""A small pretraining set, and a backbone that trains in a blink.

Belongs here: what several tests of pretraining share. Not here: tests.
"""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from pipeline.images.loader import ResidentLoader
from pipeline.methods import METHODS
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.methods.external import ExternalSettings
from pipeline.methods.imagenet import ImagenetSettings
from pipeline.methods.metadata_pairs import MetadataPairsSettings
from pipeline.methods.spark_aux import SparkAuxSettings
from pipeline.networks import encoders, hierarchical_decoder
from pipeline.networks.encoders import Encoder
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.settings import Augmentation
from pipeline.training.seeds import generator

LABELS = ("liver", "kidney", "linear")
NARROW = (16, 16, 8, 8, 4, 4)
"""Channels of SparK's decoder in tests."""


class TinyEncoder(Encoder):
    """Five stride-2 convolutions with batch norm: an encoder's interface at a thousandth of its size."""

    channels = (4, 4, 8, 8, 8)

    def __init__(self):
        super().__init__()
        sizes = (1, *self.channels)
        blocks = [
            nn.Sequential(nn.Conv2d(sizes[i], sizes[i + 1], 3, 2, 1), nn.BatchNorm2d(sizes[i + 1]), nn.ReLU())
            for i in range(5)
        ]
        self.backbone = nn.Sequential(*blocks)

    def pyramid(self, x_N1HW):
        levels = [x_N1HW]
        for block in self.backbone:
            levels.append(block(levels[-1]))
        return levels[1:]


@pytest.fixture
def narrow_decoder(monkeypatch):
    """SparK's decoder has few channels."""
    monkeypatch.setattr(hierarchical_decoder, "_WIDTHS", NARROW)


@pytest.fixture
def tiny_backbone(monkeypatch):
    """Torchvision's backbones are the tiny one, also in modules that are imported while a test runs."""
    monkeypatch.setattr(hierarchical_decoder, "_WIDTHS", NARROW)
    for name in ("_ResNet50", "_ResNet18", "_Vgg16Bn"):
        monkeypatch.setattr(encoders, name, TinyEncoder)


def make_pool(count=16, train=12, height=32, width=32):
    """Smooth random images whose first label is a bright upper half; the labels of the second image are not known."""
    draws = generator(0, "pool")
    smooth = interpolate(torch.rand(count, 1, 4, 4, generator=draws), size=(height, width), mode="bicubic")[:, 0]
    labels = (torch.rand(count, len(LABELS), generator=draws) > 0.5).float()
    smooth[:, : height // 2] += labels[:, :1, None]
    known = torch.ones(count, len(LABELS), dtype=torch.bool)
    known[1] = False
    images = (smooth * 120).clamp(0, 255).to(torch.uint8)
    order = torch.arange(count)
    return PretrainingSet(
        images=ResidentLoader(images),
        labels_NL=labels * known,
        known_NL=known,
        patients_N=order // 2,
        files_N=order,
        train=order[:train],
        val=order[train:],
        label_names=LABELS,
        image_digest="images",
        label_digest="labels",
    )


@pytest.fixture
def pool():
    return make_pool()


@pytest.fixture
def settings():
    return AllSettings(epochs=3, batch_size=4, learning_rate=1e-3, discriminator_learning_rate=1e-3)


class AllSettings(ContextEncoderSettings, SparkAuxSettings, ImagenetSettings, MetadataPairsSettings, ExternalSettings):
    """The settings of all methods together, as a recipe has them."""


def settings_of(method, settings):
    """The settings of `method` among `settings`."""
    kind = METHODS[method].settings
    return kind.model_construct(**{name: getattr(settings, name) for name in kind.model_fields})


def without_augmentation(settings):
    return settings.model_copy(update={"augmentation": Augmentation(horizontal_flip=False, shift=0)})


def relabelled(pool):
    """The same images under other labels, as a new mapping gives."""
    return replace(pool, labels_NL=(1 - pool.labels_NL) * pool.known_NL, label_digest="other labels")


def contents(folder):
    """Every file's bytes by its name; of the outcome all but the seconds that it took."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    outcome = json.loads(files.pop("outcome.json"))
    assert outcome.pop("seconds") > 0
    return files | outcome
