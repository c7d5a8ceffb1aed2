"""Tiny tasks and an untrained encoder in its folder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.downstream.task_images import TaskImages, task_images
from pipeline.networks.encoders import build_encoder, save_encoder
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.recipe.downstream import Task
from pipeline.recipe.images import Images
from pipeline.training.outcome import Outcome
from pipeline.training.seeds import seeded

SIZE = Images(height=32, width=64)
SPLITS = ["train"] * 12 + ["val"] * 4 + ["test"] * 4


def table(kind: str, splits: list[str] = SPLITS, per_patient: int = 2) -> pa.Table:
    """Noise with a bright ellipse (class 1) and a dark one (class 2); quality is how bright, 0 to 2."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:32, :64]
    rows: dict[str, list[object]] = {"image": [], "mask": [], "quality": []}
    for number in range(len(splits)):
        mask = np.zeros((32, 64), np.uint8)
        for value, middle in ((1, 18), (2, 46)):
            mask[((y - rng.integers(12, 20)) / 8) ** 2 + ((x - middle) / 11) ** 2 < 1] = value
        gain = np.choose(mask, [1.0, 1.4 + 0.4 * (number % 3), 0.3])
        rows["image"].append(np.clip(rng.normal(80, 10, mask.shape) * gain, 0, 255).astype(np.uint8).tobytes())
        rows["mask"].append(mask.tobytes())
        rows["quality"].append(number % 3)
    columns = {
        "image_id": list(range(len(splits))),
        "patient": [f"patient {number // per_patient}" for number in range(len(splits))],
        "split": splits,
        "image": pa.array(rows["image"], pa.binary(32 * 64)),
        "cropped_by": ["detected"] * len(splits),
        "modality": pa.array(["US"] * len(splits), pa.string()),
    }
    if kind == "ordinal":
        return pa.table(columns | {"quality": rows["quality"]})
    return pa.table(columns | {"mask": pa.array(rows["mask"], pa.binary(32 * 64))})


def task(kind: str, epochs: int = 1) -> Task:
    return Task.model_validate(
        {
            "kind": kind,
            "classes": ["background", "bright", "dark"],
            "manifest": "unused.csv",
            "epochs": epochs,
            "batch_size": 4,
            "learning_rate": {"resnet50": 1e-3, "vgg16_bn": 1e-3},
        }
    )


def data(kind: str) -> TaskImages:
    return task_images(table(kind), task(kind), SIZE)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    with seeded(3, "encoder"):
        save_encoder(build_encoder("resnet50"), folder / "encoder.safetensors")
    Preprocessing("resnet50", 32, 64, mean=80.0, sd=40.0).write(folder)
    Outcome("ran", "", "of the encoder").write(folder)
    return folder
