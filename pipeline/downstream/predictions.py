"""Predictions: one row per test image and fine-tuned model, from which every number is computed.

Belongs here: what names a model (its cell) and the schema of its predictions. Not here: making or scoring them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.recipe import Arm, Backbone, Recipe
from pipeline.tables import column

_text, _count = pa.string(), pa.int64()
_counts = pa.list_(pa.field("element", _count))

PREDICTIONS = pa.schema(
    [
        column("recipe", _text, "name of the recipe"),
        column("backbone", _text, "vgg16_bn or resnet50"),
        column("arm", _text, "what the encoder started from"),
        column("task", _text, "name of the downstream task"),
        column("fraction", pa.float64(), "share of the training images that was used"),
        column("seed", _count, "seed of the fine-tuning"),
        column("image_id", _count, "row of the task's manifest, from 0"),
        column("patient", _text, "the patient as the manifest names it"),
        column("n_train", _count, "images trained on"),
        column("n_train_patients", _count, "patients trained on"),
        column("kind", _text, "ordinal or segmentation"),
        column("truth", _count, "ordinal: the true class", nullable=True),
        column("scores", pa.list_(pa.field("element", pa.float32())), "ordinal: P(class > t) by t", nullable=True),
        column("intersection", _counts, "segmentation: pixels right, by foreground class", nullable=True),
        column("predicted_pixels", _counts, "segmentation: pixels predicted, by foreground class", nullable=True),
        column("truth_pixels", _counts, "segmentation: pixels true, by foreground class", nullable=True),
    ]
)


@dataclass(frozen=True)
class Cell:
    """One fine-tuning: what a number of the results table stands for."""

    recipe: str
    backbone: Backbone
    arm: Arm
    task: str
    fraction: float
    seed: int


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


def predictions_table(rows: Sequence[dict[str, Any]], cell: Cell) -> pa.Table:
    """`rows` with the columns of `cell` beside theirs, as a table of schema `PREDICTIONS`."""
    return pa.Table.from_pylist([asdict(cell) | row for row in rows], schema=PREDICTIONS)
