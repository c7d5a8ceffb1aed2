"""The best constant predictors, by hand."""

import numpy as np
import pytest
import torch

from pipeline.downstream.task_images import TaskImages
from pipeline.evaluation.constant import Constant, best_constant, constant_comparison_table
from pipeline.evaluation.results import results_rows
from pipeline.recipe import Recipe
from pipeline.recipe.downstream import Task
from tests.pipeline.evaluation.conftest import everything, lines


def task(kind: str, classes: int) -> Task:
    return Task.model_validate(
        {
            "kind": kind,
            "classes": [str(c) for c in range(classes)],
            "manifest": "unused.csv",
            "epochs": 1,
            "batch_size": 1,
            "learning_rate": {},
        }
    )


def data(truth: torch.Tensor, train: list[int], test: list[int]) -> TaskImages:
    ids = tuple(range(len(truth)))
    sides = (torch.tensor(train), torch.tensor([], dtype=torch.int64), torch.tensor(test))
    read = (("whole",) * len(ids), (None,) * len(ids))
    return TaskImages(torch.zeros(len(truth), 1, 4), truth, ids, tuple(map(str, ids)), *read, *sides, "digest")


def test_the_commonest_training_class_is_scored_on_the_test_images() -> None:
    constant = best_constant(
        "quality", task("ordinal", 3), data(torch.tensor([2, 2, 0, 1, 2, 2, 0, 0]), [0, 1, 2, 3], [4, 5, 6, 7])
    )
    assert (constant.task, constant.metric, constant.predictor, constant.score) == (
        "quality",
        "accuracy",
        "class 2",
        0.5,
    )


def test_of_equally_common_classes_the_lowest_is_taken() -> None:
    assert best_constant("q", task("ordinal", 3), data(torch.tensor([2, 1, 1]), [0, 1], [2])).score == 1


def test_the_mask_s_threshold_has_the_best_training_dice() -> None:
    # Shares of the three training masks by pixel: 1, 2/3, 1/3, 0. Cut at 1/3, training Dice is (1/2 + 4/5 + 1) / 3 =
    # 0.77; at 2/3 (2/3 + 1 + 4/5) / 3 = 0.82; at 1 (1 + 2/3 + 1/2) / 3 = 0.72. So the mask is the first two pixels.
    masks = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    truth = torch.tensor(masks, dtype=torch.uint8)[:, None]
    constant = best_constant("thyroid", task("segmentation", 2), data(truth, [0, 1, 2], [3, 4]))
    assert constant.metric == "dice"
    assert constant.score == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)


def test_an_empty_mask_is_best_if_most_training_masks_are_empty() -> None:
    truth = torch.zeros(6, 1, 4, dtype=torch.uint8)
    truth[0, 0, 0] = 1
    assert best_constant("t", task("segmentation", 2), data(truth, [0, 1, 2], [3, 4, 5])).score == 1


def test_foreground_classes_are_averaged() -> None:
    masks = torch.tensor([[1, 1, 2, 0], [1, 1, 2, 0], [1, 0, 0, 2]], dtype=torch.uint8)[:, None]
    score = best_constant("lk", task("segmentation", 3), data(masks, [0, 1], [2])).score
    assert score == pytest.approx((2 / 3 + 0) / 2)


def test_no_other_level_would_do_better_on_the_training_masks() -> None:
    rng = np.random.default_rng(0)
    probability = np.linspace(0, 1, 60)
    masks = (rng.random((9, 60)) < probability).astype(np.uint8)
    found = best_constant(
        "t", task("segmentation", 2), data(torch.tensor(masks)[:, None], list(range(9)), list(range(9)))
    ).score

    def mean_dice(mask: np.ndarray) -> float:
        return float(np.mean([2 * (mask & t).sum() / (mask.sum() + t.sum()) for t in masks]))

    levels = np.unique(masks.mean(axis=0))
    assert found == pytest.approx(max(mean_dice((masks.mean(axis=0) >= level).astype(np.uint8)) for level in levels))


def test_the_comparison_counts_the_arms_above_the_constant(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    constants = [
        Constant("quality", "accuracy", "class 2", 0.75),
        Constant("liver_kidney", "dice", "mean training mask", 0.95),
    ]
    text = constant_comparison_table(recipe, results_rows(recipe, outcomes, predictions), constants).markdown()
    quality, liver = lines(text, "| Quality")[0], lines(text, "| Liver")[0]
    assert quality[:5] == ["Quality", "100 %", "0", "accuracy", "0.750 (class 2)"]
    assert quality[5].startswith("0.900 ± ")
    assert quality[5].endswith("(VGG16-BN CE+DCM+F)")
    assert quality[6] == "2 of 4"
    assert liver[6] == "0 of 4"
