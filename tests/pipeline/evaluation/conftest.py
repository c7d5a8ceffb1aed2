"""A recipe with two backbones, three arms and two tasks, and predictions made up for it."""

from collections.abc import Mapping

import pyarrow as pa
import pytest

from pipeline.downstream.predictions import PREDICTIONS, Cell, cells, predictions_table
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome


@pytest.fixture
def recipe() -> Recipe:
    common = {"manifest": "unused.csv", "epochs": 1, "batch_size": 1, "learning_rate": {"resnet50": 1, "vgg16_bn": 1}}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pretraining": {"backbones": ["vgg16_bn", "resnet50"]},
            "downstream": {
                "arms": ["imagenet", "ce", "ce_dcm_frozen"],
                "fractions": [1.0, 0.05],
                "tasks": {
                    "quality": {"kind": "ordinal", "classes": ["0", "1", "2"], **common},
                    "liver_kidney": {"kind": "segmentation", "classes": ["background", "liver", "kidney"], **common},
                },
            },
            "evaluation": {"resamples": 20},
        }
    )


def predicted(recipe: Recipe, cell: Cell, right: int) -> pa.Table:
    """Ten test images, the first `right` of them predicted without a fault, the others wholly wrong."""
    rows: list[dict[str, object]] = []
    for image in range(10):
        good = image < right
        common = {"image_id": image, "patient": f"p{image}", "n_train": round(100 * cell.fraction)}
        common |= {"n_train_patients": round(100 * cell.fraction) // 5, "kind": recipe.downstream.tasks[cell.task].kind}
        if common["kind"] == "ordinal":
            rows.append(common | {"truth": 2, "scores": [0.9, 0.9 if good else 0.1]})
        else:
            overlap = [100, 50] if good else [0, 0]
            rows.append(common | {"intersection": overlap, "predicted_pixels": [100, 50], "truth_pixels": [100, 50]})
    return predictions_table(rows, cell)


def everything(recipe: Recipe, right: Mapping[str, int]) -> tuple[dict[Cell, Outcome], pa.Table]:
    """Outcomes and predictions of every arm that `right` names; the arm imagenet is unavailable."""
    outcomes = {cell: Outcome("ran", "", "f") for cell in cells(recipe) if cell.arm in right}
    outcomes |= {cell: Outcome("unavailable", "no file", "f") for cell in cells(recipe) if cell.arm == "imagenet"}
    tables = [predicted(recipe, cell, right[cell.arm]) for cell in cells(recipe) if cell.arm in right]
    return outcomes, pa.concat_tables([PREDICTIONS.empty_table(), *tables])
