"""The results table has a row for every cell, and numbers for cells with predictions."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.downstream.predictions import PREDICTIONS, cells
from pipeline.evaluation.results import Result, cell_of, predictions_by_cell, results_rows, write_rows
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome
from tests.pipeline.evaluation.conftest import everything, predicted


def numbers(result: Result) -> tuple[object, ...]:
    return result.mean, result.sd, result.n_train, result.n_test


def test_every_cell_of_the_recipe_has_a_row_in_its_order(recipe: Recipe) -> None:
    rows = results_rows(recipe, *everything(recipe, {"ce": 7, "ce_dcm_frozen": 9}))
    assert len(rows) == 2 * 3 * 2 * 2
    assert [(r.backbone, r.arm, r.task, r.fraction, r.seed) for r in rows[:3]] == [
        ("vgg16_bn", "imagenet", "quality", 1.0, 0),
        ("vgg16_bn", "imagenet", "quality", 0.05, 0),
        ("vgg16_bn", "imagenet", "liver_kidney", 1.0, 0),
    ]


def test_mean_and_counts_are_those_of_the_predictions(recipe: Recipe) -> None:
    rows = results_rows(recipe, *everything(recipe, {"ce": 7, "ce_dcm_frozen": 9}))
    ce = [r for r in rows if r.arm == "ce"]
    assert {r.status for r in ce} == {"ran"}
    assert [r.mean for r in ce] == pytest.approx([0.7] * len(ce))
    assert {(r.task, r.metric) for r in ce} == {("quality", "accuracy"), ("liver_kidney", "dice")}
    assert {(r.fraction, r.n_train, r.n_test) for r in ce} == {(1.0, 100, 10), (0.05, 5, 10)}


def test_the_deviation_is_that_of_resampled_means(recipe: Recipe) -> None:
    row = next(r for r in results_rows(recipe, *everything(recipe, {"ce": 7})) if r.status == "ran")
    scores = np.array([1.0] * 7 + [0.0] * 3)
    drawn = np.random.default_rng(recipe.evaluation.seed).integers(10, size=(20, 5))
    assert row.sd == pytest.approx(np.std([scores[d].mean() for d in drawn], ddof=1))


def test_an_unavailable_arm_is_not_run_with_its_reason(recipe: Recipe) -> None:
    rows = results_rows(recipe, *everything(recipe, {"ce": 7}))
    imagenet = [r for r in rows if r.arm == "imagenet"]
    assert {(r.status, r.reason, numbers(r)) for r in imagenet} == {("not run", "no file", (None,) * 4)}


def test_no_number_is_shown_without_predictions_or_without_an_outcome(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7})
    forgotten = results_rows(recipe, outcomes, PREDICTIONS.empty_table())
    unfinished = results_rows(recipe, {}, predictions)
    for rows in (forgotten, unfinished):
        assert {r.status for r in rows} == {"not run"}
        assert all(numbers(r) == (None,) * 4 and r.reason for r in rows)


def test_numbers_of_an_earlier_run_are_not_shown_for_an_arm_that_diverged(recipe: Recipe) -> None:
    cell = cells(recipe)[0]
    outcome = {cell: Outcome("diverged", "train_loss was nan in epoch 3", "f")}
    row = results_rows(recipe, outcome, predicted(recipe, cell, 9))[0]
    assert (row.status, row.reason, numbers(row)) == ("diverged", "train_loss was nan in epoch 3", (None,) * 4)


def test_predictions_are_grouped_by_cell(recipe: Recipe) -> None:
    _, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    parts = predictions_by_cell(predictions)
    assert set(parts) == {cell for cell in cells(recipe) if cell.arm != "imagenet"}
    assert {len(part) for part in parts.values()} == {10}


def test_every_row_has_its_cell(recipe: Recipe) -> None:
    assert [cell_of(row) for row in results_rows(recipe, {}, PREDICTIONS.empty_table())] == cells(recipe)


def test_the_csv_has_exactly_the_agreed_columns(recipe: Recipe, tmp_path: Path) -> None:
    rows = results_rows(recipe, *everything(recipe, {"ce": 7}))
    write_rows(tmp_path / "results_table.csv", Result, rows)
    header, *body = csv.reader((tmp_path / "results_table.csv").open())
    assert header == (
        "recipe backbone arm task metric fraction seed mean sd n_train n_test status reason".split()  # noqa: SIM905
    )
    assert len(body) == len(rows)
    assert body[0] == [
        "tiny",
        "vgg16_bn",
        "imagenet",
        "quality",
        "accuracy",
        "1.0",
        "0",
        "",
        "",
        "",
        "",
        "not run",
        "no file",
    ]
    ran = next(line for line in body if line[11] == "ran")
    assert float(ran[7]) == pytest.approx(0.7)
