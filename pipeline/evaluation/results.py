"""The results table: one row per fine-tuning (`Cell`) of a recipe, whether it ran or not; rows as CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipeline.csv_files import csv_text
from pipeline.downstream.predictions import Cell, cells
from pipeline.evaluation.bootstrap import bootstrap_means, deviation, resample_indices
from pipeline.evaluation.metrics import METRICS, image_scores
from pipeline.files import write_text
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.recipe.evaluation import Evaluation
from pipeline.settings import Backbone
from pipeline.training.outcome import Outcome

Status = Literal["ran", "not run", "diverged"]


@dataclass(frozen=True)
class Result:
    """One row of the results table; the fields, in order, are the columns of results_table.csv.

    `mean` is the metric on the whole test set and `sd` its bootstrap standard deviation (paper Table 2), both in
    [0, 1]. These and the counts are None unless `status` is `ran`.
    """

    recipe: str
    backbone: Backbone
    arm: Arm
    task: str
    metric: str
    fraction: float
    seed: int
    mean: float | None = None
    sd: float | None = None
    n_train: int | None = None
    n_test: int | None = None
    status: Status = "not run"
    reason: str = ""


def results_rows(recipe: Recipe, outcomes: Mapping[Cell, Outcome], predictions: pa.Table) -> list[Result]:
    """One row per cell of `recipe`, in its order; only a cell with rows in `predictions` has numbers.

    A cell without an outcome, or with the outcome `unavailable`, has the status `not run` and a reason.
    """
    found = predictions_by_cell(predictions)
    return [_result(recipe, cell, outcomes.get(cell), found.get(cell)) for cell in cells(recipe)]


def predictions_by_cell(predictions: pa.Table) -> dict[Cell, pa.Table]:
    """The rows of `predictions` (schema `PREDICTIONS`) of each cell."""
    positions: dict[Cell, list[int]] = {}
    for position, key in enumerate(predictions.select([field.name for field in fields(Cell)]).to_pylist()):
        positions.setdefault(Cell(**key), []).append(position)
    return {cell: predictions.take(rows) for cell, rows in positions.items()}


def cell_of(result: Result) -> Cell:
    """The cell of a row."""
    return Cell(result.recipe, result.backbone, result.arm, result.task, result.fraction, result.seed)


def write_rows(path: Path, kind: type, rows: Sequence[Any]) -> None:
    """Write `rows` as CSV with the fields of the dataclass `kind` as columns."""
    columns = [field.name for field in fields(kind)]
    write_text(path, csv_text(columns, ([getattr(row, name) for name in columns] for row in rows)))


def _result(recipe: Recipe, cell: Cell, outcome: Outcome | None, predictions: pa.Table | None) -> Result:
    metric = METRICS[recipe.downstream.tasks[cell.task].kind]
    row = Result(cell.recipe, cell.backbone, cell.arm, cell.task, metric, cell.fraction, cell.seed)
    if outcome is None:
        return replace(row, reason="no outcome in this store")
    if outcome.status != "ran":
        return replace(row, status="diverged" if outcome.status == "diverged" else "not run", reason=outcome.reason)
    if predictions is None:
        return replace(row, reason="no predictions in this store")
    return _scored(row, predictions, recipe.evaluation)


def _scored(row: Result, predictions: pa.Table, settings: Evaluation) -> Result:
    scores = image_scores(predictions)
    return replace(
        row,
        mean=float(scores.mean()),
        sd=deviation(bootstrap_means(scores, resample_indices(len(scores), settings))),
        n_train=predictions["n_train"][0].as_py(),
        n_test=len(scores),
        status="ran",
    )
