"""Everything that a report is computed from, as read from an experiment's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.downstream.predictions import PREDICTIONS, TEST, VALIDATION, Cell, cells, read_predictions
from pipeline.downstream.task_images import task_images
from pipeline.evaluation.constant import Constant, best_constant
from pipeline.evaluation.inpainting_error import InpaintingError, inpainting_errors
from pipeline.files import read_table
from pipeline.pretraining.curves import selected_by
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.recipe import Recipe
from pipeline.settings import Backbone
from pipeline.store import Experiment
from pipeline.tables import FROZEN_SCORES
from pipeline.training.outcome import Outcome, Status


@dataclass(frozen=True)
class Training:
    """A finished training of an encoder: its outcome, its metrics by epoch (nan: not measured), and its duration."""

    backbone: Backbone
    encoder: str
    seed: int
    status: Status
    reason: str
    curves: Mapping[str, Sequence[float]]
    seconds: float | None = None
    kept_epoch: int | None = None
    """Number, from 1, of the epoch whose weights became the encoder; None of earlier versions."""

    @property
    def selected_epoch(self) -> int:
        """Index, from 0, of the epoch whose weights became the encoder."""
        if self.kept_epoch is not None:
            return self.kept_epoch - 1
        return int(np.argmin(self.curves[selected_by(self.curves)]))


@dataclass(frozen=True)
class Evidence:
    """The input of a report, read from a store (`evidence_of`) or from published numbers (`publication`).

    `predictions` (test images) and `validation` have the schema `PREDICTIONS`; published ones hold distances in place
    of masks. `test_images` lists, for each task, the number of test images of each patient.
    """

    recipe: Recipe
    outcomes: Mapping[Cell, Outcome]
    predictions: pa.Table
    validation: pa.Table
    test_images: Mapping[str, Sequence[int]]
    constants: Sequence[Constant]
    inpaintings: Sequence[InpaintingError]
    trainings: Sequence[Training]
    frozen: pa.Table = field(default_factory=FROZEN_SCORES.schema.empty_table)
    """`FROZEN_SCORES`."""
    sources: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """By task whose manifest states sources, the source of each image by its row in the manifest."""


def evidence_of(recipe: Recipe, experiment: Experiment) -> Evidence:
    """Everything that this experiment holds for `recipe`."""
    return Evidence(
        recipe,
        outcomes_of(recipe, experiment),
        predictions_of(recipe, experiment),
        predictions_of(recipe, experiment, VALIDATION),
        images_by_test_patient(recipe, experiment),
        constants_of(recipe, experiment),
        inpainting_errors(recipe, experiment),
        trainings_of(recipe, experiment),
        frozen_scores_of(experiment.tables),
        sources_of_tasks(recipe, experiment),
    )


def outcomes_of(recipe: Recipe, experiment: Experiment) -> dict[Cell, Outcome]:
    """The outcome of every finished fine-tuning of `recipe` in this experiment."""
    found = {cell: Outcome.read(cell.folder(experiment)) for cell in cells(recipe)}
    return {cell: outcome for cell, outcome in found.items() if outcome is not None}


def predictions_of(recipe: Recipe, experiment: Experiment, images: str = TEST) -> pa.Table:
    """Predictions of the test images, or of `VALIDATION` ones, by all models with the outcome `ran`.

    Without an outcome a table belongs to no model. Raises `UserError` if another version wrote one.
    """
    ran = [cell for cell, outcome in outcomes_of(recipe, experiment).items() if outcome.status == "ran"]
    found = [read_predictions(cell.folder(experiment) / images).replace_schema_metadata() for cell in ran]
    return pa.concat_tables([PREDICTIONS.empty_table(), *found])


def images_by_test_patient(recipe: Recipe, experiment: Experiment) -> dict[str, list[int]]:
    """The number of test images of each patient, ascending, for every task whose images are prepared."""
    found = {}
    for name in recipe.downstream.tasks:
        path = experiment.task_images(name)
        if path.is_file():
            images = read_table(path, ["patient", "split"])
            patients = images.filter(pc.equal(images["split"], "test"))["patient"]
            found[name] = sorted(pc.value_counts(patients).field("counts").to_pylist())
    return found


def sources_of_tasks(recipe: Recipe, experiment: Experiment) -> dict[str, dict[int, str]]:
    """The source of each image, by its row in the manifest, of every prepared task whose manifest states sources."""
    paths = {name: experiment.task_images(name) for name in recipe.downstream.tasks}
    tables = {name: read_table(path) for name, path in paths.items() if path.is_file()}
    return {
        name: dict(zip(rows["image_id"].to_pylist(), rows["source"].to_pylist(), strict=True))
        for name, rows in tables.items()
        if "source" in rows.column_names
    }


def constants_of(recipe: Recipe, experiment: Experiment) -> list[Constant]:
    """The best constant predictor of every task whose images are prepared."""
    return [
        best_constant(name, task, task_images(read_table(path), task, recipe.images))
        for name, task in recipe.downstream.tasks.items()
        if (path := experiment.task_images(name)).is_file()
    ]


def frozen_scores_of(folder: Path) -> pa.Table:
    """The scores of frozen encoders in an experiment's folder of tables, or in a publication; empty without a file.

    Tables of earlier versions have no groups of images, so these columns are null.
    """
    path, schema = FROZEN_SCORES.path(folder), FROZEN_SCORES.schema
    rows = read_table(path) if path.is_file() else schema.empty_table()
    for name in {"group_by", "group", "questions"}.difference(rows.column_names):
        rows = rows.append_column(schema.field(name), pa.nulls(len(rows), schema.field(name).type))
    return rows.select(schema.names)


def trainings_of(recipe: Recipe, experiment: Experiment) -> list[Training]:
    """Every finished training of an encoder of `recipe` in this experiment."""
    settings = recipe.pretraining
    found = []
    for backbone, encoder, seed in product(settings.backbones, settings.encoders, settings.seeds):
        folder = experiment.encoder(backbone, encoder, seed)
        outcome = Outcome.read(folder)
        if outcome is not None:
            result = (outcome.status, outcome.reason, read_curves(folder), outcome.seconds, outcome.kept_epoch)
            found.append(Training(backbone, encoder, seed, *result))
    return found
