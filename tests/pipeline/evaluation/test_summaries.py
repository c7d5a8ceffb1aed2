"""Metrics of an arm and their two spreads, against plain loops."""

import statistics

import numpy as np
import pytest

from pipeline.evaluation.results import results_rows
from pipeline.evaluation.summaries import Summary, own_metric, summaries
from pipeline.recipe import Recipe
from tests.pipeline.evaluation.conftest import everything, of_seeds


def named(rows: list[Summary], arm: str, task: str, metric: str) -> Summary:
    (row,) = [
        r for r in rows if (r.backbone, r.arm, r.task, r.fraction, r.metric) == ("resnet50", arm, task, 1.0, metric)
    ]
    return row


def test_one_seed_has_the_mean_and_the_deviation_of_the_results_table(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    results = results_rows(recipe, outcomes, predictions)
    own = own_metric(recipe, summaries(recipe, results, predictions))
    assert [(r.backbone, r.arm, r.task, r.fraction, r.metric, r.mean, r.sd, r.status, r.reason) for r in own] == [
        (r.backbone, r.arm, r.task, r.fraction, r.metric, r.mean, r.sd, r.status, r.reason) for r in results
    ]
    assert {row.seed_sd for row in own} == {None}


def test_seeds_are_averaged_and_their_spread_is_separate_from_that_of_images(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (5, 8, 9)})
    row = named(summaries(three_seeds, results, predictions), "ce", "quality", "accuracy")
    assert row.mean == pytest.approx((0.5 + 0.8 + 0.9) / 3)
    assert row.seed_sd == pytest.approx(statistics.stdev([0.5, 0.8, 0.9]))
    assert row.seeds == 3
    right = np.array([np.arange(10) < good for good in (5, 8, 9)])
    drawn = np.random.default_rng(three_seeds.evaluation.seed).integers(10, size=(20, 5))
    assert row.sd == pytest.approx(statistics.stdev([right[:, resample].mean() for resample in drawn]))


def test_every_metric_of_the_kind_has_a_row(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7})
    rows = summaries(recipe, results_rows(recipe, outcomes, predictions), predictions)
    ce = [r for r in rows if (r.backbone, r.arm, r.fraction) == ("resnet50", "ce", 1.0)]
    assert [r.metric for r in ce if r.task == "quality"] == [
        *("accuracy", "mean absolute error", "quadratic kappa", "auc at least 1", "auc at least 2"),
    ]
    assert named(rows, "ce", "quality", "mean absolute error").mean == pytest.approx(0.3)
    assert named(rows, "ce", "liver_kidney", "iou kidney").mean == pytest.approx(0.7)


def test_an_undefined_metric_has_a_reason_instead_of_a_number(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7})
    row = named(
        summaries(recipe, results_rows(recipe, outcomes, predictions), predictions), "ce", "quality", "auc at least 1"
    )
    assert (row.mean, row.sd, row.status) == (None, None, "ran")
    assert row.reason != ""


def test_an_arm_without_a_run_of_any_seed_has_one_row_with_the_reason(three_seeds: Recipe) -> None:
    outcomes, predictions = everything(three_seeds, {"ce": 7})
    rows = summaries(three_seeds, results_rows(three_seeds, outcomes, predictions), predictions)
    row = named(rows, "imagenet", "quality", "accuracy")
    assert (row.mean, row.sd, row.seed_sd, row.seeds) == (None, None, None, 0)
    assert (row.status, row.reason) == ("not run", "no file")
