"""A recipe with two backbones, three arms and two tasks, and artificial predictions for it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest

from pipeline.downstream.predictions import PREDICTIONS, TEST, VALIDATION, Cell, cells, pack_mask, predictions_table
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.dataset_table import DatasetRow
from pipeline.evaluation.evidence import Evidence, Training
from pipeline.evaluation.inpainting_error import InpaintingError
from pipeline.evaluation.publication import Publication
from pipeline.evaluation.results import Result, predictions_by_cell, results_rows
from pipeline.files import write_table
from pipeline.recipe import Recipe
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome

LEFT_AND_RIGHT = np.repeat([[1] * 10 + [0] * 5 + [2] * 5], 10, axis=0).astype(np.uint8)
"""100 pixels of class 1 on the left, 50 of class 2 on the right."""
MASK, MIRRORED = pack_mask(LEFT_AND_RIGHT), pack_mask(np.roll(LEFT_AND_RIGHT, 10, axis=1))
"""The mirrored mask has no correct pixel of either class."""


NAMES = ("Meier", "Ärztin", "müller", "Zoë", "p10", "p9", "p 9", "9", "10")
"""Names of patients whose order depends on the sorting rule."""


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


@pytest.fixture
def three_seeds(recipe: Recipe) -> Recipe:
    """The same with three seeds, comparing the frozen arm with CE."""
    settings = recipe.model_dump()
    settings["downstream"]["seeds"] = [0, 1, 2]
    settings["evaluation"]["comparisons"] = [{"arm": "ce_dcm_frozen", "against": "ce"}]
    return Recipe.model_validate(settings)


@pytest.fixture
def publication(three_seeds: Recipe) -> Publication:
    """Two arms that ran, one that is unavailable, and a pretraining; test patients are called by `NAMES`."""
    outcomes, predictions = everything(three_seeds, {"ce": 4, "ce_dcm_frozen": 9})
    _, validation = everything(three_seeds, {"ce": 3, "ce_dcm_frozen": 6})
    curves = {"val_loss": [0.3, 0.1 + 0.2], "val_diversity": [0.1, 0.7], "train_saturation": [0.1, 1 / 3]}
    evidence = Evidence(
        three_seeds,
        outcomes,
        renamed(predictions, NAMES),
        renamed(validation, ["a", "b", "c", "d", "e", "f", "g"]),
        {"quality": [1, 1, 2, 2, 2, 2], "liver_kidney": [5, 5]},
        [Constant("quality", "accuracy", "class 2", 1 / 3)],
        [InpaintingError("resnet50", "ce", 0, 0.3, 0.9)],
        [
            Training("resnet50", "ce", 0, "ran", "", curves),
            Training("resnet50", "imagenet", 0, "unavailable", "no", {}),
        ],
    )
    return Publication(evidence, [DatasetRow("Archive", "Semantic inpainting", 9, 5, 4, 0, 3, 2, 1, 0)])


def renamed(predictions: pa.Table, names: Sequence[str]) -> pa.Table:
    """The predictions with their images distributed over patients of these names."""
    patients = pa.array([names[image % len(names)] for image in predictions["image_id"].to_pylist()])
    return predictions.set_column(PREDICTIONS.get_field_index("patient"), PREDICTIONS.field("patient"), patients)


def predicted(recipe: Recipe, cell: Cell, right: int) -> pa.Table:
    """Predictions of ten test images, the first `right` of them correct, the others entirely wrong."""
    rows: list[dict[str, object]] = []
    for image in range(10):
        good = image < right
        common = {"image_id": image, "patient": f"p{image}", "n_train": round(100 * cell.fraction)}
        common |= {"n_train_patients": round(100 * cell.fraction) // 5, "kind": recipe.downstream.tasks[cell.task].kind}
        if common["kind"] == "ordinal":
            rows.append(common | {"truth": 2, "scores": [0.9, 0.9 if good else 0.1]})
        else:
            overlap = [100, 50] if good else [0, 0]
            pixels = {"intersection": overlap, "predicted_pixels": [100, 50], "truth_pixels": [100, 50]}
            rows.append(common | pixels | {"predicted_mask": MASK if good else MIRRORED, "truth_mask": MASK})
    return predictions_table(rows, cell)


def everything(recipe: Recipe, right: Mapping[str, int]) -> tuple[dict[Cell, Outcome], pa.Table]:
    """Outcomes and predictions of every arm that `right` names; the arm imagenet is unavailable."""
    outcomes = {cell: Outcome("ran", "", "f") for cell in cells(recipe) if cell.arm in right}
    outcomes |= {cell: Outcome("unavailable", "no file", "f") for cell in cells(recipe) if cell.arm == "imagenet"}
    tables = [predicted(recipe, cell, right[cell.arm]) for cell in cells(recipe) if cell.arm in right]
    return outcomes, pa.concat_tables([PREDICTIONS.empty_table(), *tables])


def write_models(
    experiment: Experiment,
    outcomes: Mapping[Cell, Outcome],
    predictions: pa.Table,
    names: Sequence[str] = (TEST, VALIDATION),
) -> None:
    """Write model folders as fine-tuning does: an outcome each, and the tables `names` of models that ran."""
    found = predictions_by_cell(predictions)
    for cell, outcome in outcomes.items():
        folder = experiment.model(cell.backbone, cell.arm, cell.task, cell.fraction, cell.seed)
        for name in names if cell in found else ():
            write_table(folder / name, found[cell].replace_schema_metadata({b"encoder_digest": b"e"}))
        outcome.write(folder)


def of_seeds(recipe: Recipe, right: Mapping[str, Sequence[int]]) -> tuple[list[Result], pa.Table]:
    """Results and predictions of the arms in `right`, with this number of correct images by seed."""
    places = [(cell, right[cell.arm][cell.seed]) for cell in cells(recipe) if cell.arm in right]
    predictions = pa.concat_tables([predicted(recipe, cell, good) for cell, good in places])
    outcomes = {cell: Outcome("ran", "", "f") for cell, _ in places}
    return results_rows(recipe, outcomes, predictions), predictions


def lines(markdown: str, start: str) -> list[list[str]]:
    """Cells of the table rows that begin with `start`."""
    return [
        [c.strip() for c in line.strip("| ").split("|")] for line in markdown.splitlines() if line.startswith(start)
    ]
