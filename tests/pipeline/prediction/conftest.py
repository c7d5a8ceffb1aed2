"""Models whose answers are known beforehand, and new DICOM files for them.

Belongs here: what tests of predicting share. Not here: expectations.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from pipeline.downstream.model_folder import ModelDescription, write_description
from pipeline.networks.classifier import Classifier
from pipeline.networks.encoders import build_encoder
from pipeline.networks.unet import UNet
from pipeline.training.seeds import seeded
from pipeline.training.tensors import write_tensors

HEIGHT, WIDTH = 32, 64
MEAN, SD = 100.0, 50.0
BRIGHT = 150  # grey levels from which the segmentation model predicts bright; below 50 it predicts dark
TOP, LEFT = 16, 8  # of the region of the files below, which has the model's size


def description(kind: str, **changes: object) -> ModelDescription:
    classes = ("poor", "fair", "good") if kind == "ordinal" else ("background", "bright", "dark")
    return ModelDescription.model_validate(
        {
            "recipe": "tiny",
            "task": "mine",
            "arm": "ce_dcm",
            "fraction": 1.0,
            "seed": 0,
            "kind": kind,
            "classes": classes,
            "backbone": "resnet50",
            "height": HEIGHT,
            "width": WIDTH,
            "mean": MEAN,
            "sd": SD,
            "cropped_by": ("regions",),
            "modalities": ("US",),
        }
        | changes
    )


def thresholding() -> UNet:
    """A U-Net that predicts bright for z-scores above 1, dark for those below -1, and background between.

    Of version 1, since `description` has no `unet`: its last up-block joins the image.
    """
    network = UNet(build_encoder("resnet50"), 3, version=1)
    mix = network.up_blocks[-1].mix
    with torch.no_grad():
        mix[0].weight.zero_()
        mix[0].weight[0, -1, 1, 1], mix[0].weight[1, -1, 1, 1] = 1.0, -1.0  # the image itself is the last channel
        network.head.weight.zero_()
        network.head.weight[0, 0], network.head.weight[1, 1] = 40.0, 40.0
        network.head.bias.fill_(-40.0)
    return network


def write_model(folder: Path, kind: str, **changes: object) -> Path:
    with seeded(5, "model"):
        network = thresholding() if kind == "segmentation" else Classifier(build_encoder("resnet50"), 3, 0.5)
    write_tensors(folder / "model.safetensors", network.state_dict())
    write_description(folder, description(kind, **changes))
    return folder


@pytest.fixture(scope="session")
def segmenting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose masks follow from grey levels alone."""
    return write_model(tmp_path_factory.mktemp("segmenting"), "segmentation")


@pytest.fixture(scope="session")
def grading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ordinal model, untrained."""
    return write_model(tmp_path_factory.mktemp("grading"), "ordinal")


def region(data_type: int = 1) -> Dataset:
    """An item of SequenceOfUltrasoundRegions: a two-dimensional area of the models' size."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, data_type, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = LEFT, TOP
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = LEFT + WIDTH - 1, TOP + HEIGHT - 1
    return item


def tissue(seed: int = 0) -> np.ndarray:
    """A frame of 64 x 96 whose region holds a bright and a dark patch, and which has a bright one outside of it."""
    frame = np.random.default_rng(seed).integers(80, 120, (64, 96), dtype=np.uint8)
    frame[TOP + 4 : TOP + 12, LEFT + 10 : LEFT + 30] = 220
    frame[TOP + 20 : TOP + 28, LEFT + 40 : LEFT + 60] = 10
    frame[2:10, 2:20] = 250
    return frame


def classes(frame: np.ndarray) -> np.ndarray:
    """The class that the segmentation model must predict for each pixel of `frame`."""
    answer = np.zeros(frame.shape, np.uint8)
    inside = frame[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH].astype(int)
    answer[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = (inside > BRIGHT) * 1 + (inside < 50) * 2
    return answer
