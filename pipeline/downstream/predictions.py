"""The predictions table: one row per image and fine-tuned model, the source of every reported number."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.settings import Backbone
from pipeline.store import Experiment
from pipeline.tables import column

_text, _count = pa.string(), pa.int64()
_counts = pa.list_(pa.field("element", _count))

PREDICTIONS = pa.schema(
    [
        column("recipe", _text, "name of the recipe"),
        column("backbone", _text, "vgg16_bn, resnet50 or an architecture of timm"),
        column("arm", _text, "what the encoder started from"),
        column("task", _text, "name of the downstream task"),
        column("fraction", pa.float64(), "share of the training images that was used"),
        column("seed", _count, "seed of the fine-tuning"),
        column("image_id", _count, "row of the task's manifest, from 0"),
        column("patient", _text, "keyed pseudonym of the patient that the manifest names"),
        column("n_train", _count, "images trained on"),
        column("n_train_patients", _count, "patients trained on"),
        column("kind", _text, "ordinal or segmentation"),
        column("truth", _count, "ordinal: the true class", nullable=True),
        column("scores", pa.list_(pa.field("element", pa.float32())), "ordinal: P(class > t) by t", nullable=True),
        column("intersection", _counts, "segmentation: pixels right, by foreground class", nullable=True),
        column("predicted_pixels", _counts, "segmentation: pixels predicted, by foreground class", nullable=True),
        column("truth_pixels", _counts, "segmentation: pixels true, by foreground class", nullable=True),
        column("predicted_mask", pa.binary(), "segmentation: predicted classes, `pack_mask`", nullable=True),
        column("truth_mask", pa.binary(), "segmentation: true classes, `pack_mask`", nullable=True),
    ]
)

TEST, VALIDATION = "predictions.parquet", "validation.parquet"
"""Files in a model's folder: predictions of test and validation images, schema `PREDICTIONS`."""
ENCODER_KEY = b"encoder_digest"
"""Metadata key of `VALIDATION`: digest of the encoder that the model was fine-tuned from."""


@dataclass(frozen=True)
class Cell:
    """One fine-tuning, and its cell in the results table."""

    recipe: str
    backbone: Backbone
    arm: Arm
    task: str
    fraction: float
    seed: int

    def folder(self, experiment: Experiment) -> Path:
        """The folder of the fine-tuned model."""
        return experiment.model(self.backbone, self.arm, self.task, self.fraction, self.seed)


def cells(recipe: Recipe) -> list[Cell]:
    """Every fine-tuning of a recipe, in the order of the results table."""
    downstream = recipe.downstream
    return [
        Cell(recipe.name, backbone, arm, task, fraction, seed)
        for backbone in recipe.pretraining.backbones
        for arm in downstream.arms
        for task in downstream.tasks
        for fraction in downstream.fractions
        for seed in downstream.seeds
    ]


def pack_mask(classes: NDArray[np.uint8]) -> bytes:
    """A mask of class values, shape (H, W), in NumPy's compressed format: about a kilobyte."""
    stream = io.BytesIO()
    np.savez_compressed(stream, classes=classes)
    return stream.getvalue()


def unpack_mask(packed: bytes) -> NDArray[np.uint8]:
    """The class values of a packed mask, shape (H, W)."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        classes: NDArray[np.uint8] = arrays["classes"]
    return classes


def read_predictions(path: Path) -> pa.Table:
    """The predictions at `path`; raises `UserError` if the file is missing or has other columns."""
    if not path.is_file():
        raise UserError(f"{path} is missing: delete its folder and run the job `finetune` again.")
    rows = read_table(path)
    if rows.schema.names != PREDICTIONS.names:
        raise UserError(f"{path} has other columns than this version writes: run the job `finetune` again.")
    return rows


def predictions_table(rows: Sequence[dict[str, Any]], cell: Cell) -> pa.Table:
    """`rows` with the columns of `cell` as a table of schema `PREDICTIONS`."""
    return pa.Table.from_pylist([asdict(cell) | row for row in rows], schema=PREDICTIONS)
