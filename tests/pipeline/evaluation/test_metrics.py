"""Metrics against scikit-learn, on all images and on resamples of them."""

import warnings
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    roc_auc_score,
)

from pipeline.downstream.ordinal import decode, encode
from pipeline.downstream.predictions import Cell, pack_mask, predictions_table
from pipeline.evaluation.bootstrap import resample_indices
from pipeline.evaluation.metrics import dice, image_scores, iou
from pipeline.evaluation.task_metrics import on_all_images, task_metrics
from pipeline.recipe.evaluation import Evaluation

RNG = np.random.default_rng(5)
CELL = Cell("r", "resnet50", "ce", "t", 1.0, 0)
QUALITY = ("0", "1", "2", "3", "4")
MASKS = ("background", "liver", "kidney")


def rows(kind: str, columns: list[dict[str, object]]) -> pa.Table:
    common = {"patient": "p", "n_train": 1, "n_train_patients": 1, "kind": kind}
    return predictions_table([common | {"image_id": i} | row for i, row in enumerate(columns)], CELL)


def ordinal(truth: np.ndarray, scores: np.ndarray) -> pa.Table:
    return rows("ordinal", [{"truth": int(t), "scores": s.tolist()} for t, s in zip(truth, scores, strict=True)])


def segmentation(truth: np.ndarray, predicted: np.ndarray, values: tuple[int, ...]) -> pa.Table:
    counts = [
        {
            "intersection": [int(((p == c) & (t == c)).sum()) for c in values],
            "predicted_pixels": [int((p == c).sum()) for c in values],
            "truth_pixels": [int((t == c).sum()) for c in values],
            "predicted_mask": pack_mask(p.astype(np.uint8)),
            "truth_mask": pack_mask(t.astype(np.uint8)),
        }
        for p, t in zip(predicted, truth, strict=True)
    ]
    return rows("segmentation", counts)


TRUTH = RNG.integers(0, 5, 61)
SCORES = np.clip(0.2 + 0.1 * TRUTH[:, None] - 0.1 * np.arange(4) + RNG.normal(0, 0.25, (61, 4)), 0, 1).round(1)
"""Rounded, so that many scores are equal; some are not monotone."""
CLASSES = decode(SCORES.astype(np.float32))
Reference = Callable[[np.ndarray], float]
REFERENCES: dict[str, Reference] = {
    "accuracy": lambda i: accuracy_score(TRUTH[i], CLASSES[i]),
    "mean absolute error": lambda i: mean_absolute_error(TRUTH[i], CLASSES[i]),
    "quadratic kappa": lambda i: cohen_kappa_score(TRUTH[i], CLASSES[i], labels=range(5), weights="quadratic"),
    **{
        f"auc at least {t + 1}": lambda i, t=t: roc_auc_score(TRUTH[i] > t, SCORES[i, t].astype(np.float32))
        for t in range(4)
    },
}


def test_an_ordinal_task_has_these_metrics_accuracy_first() -> None:
    assert list(task_metrics(ordinal(TRUTH, SCORES), QUALITY)) == list(REFERENCES)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.integration
def test_a_metric_of_a_thousand_resamples_is_that_of_a_loop_over_scikit_learn(name: str) -> None:
    indices = resample_indices(61, Evaluation(resamples=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        expected = np.array([REFERENCES[name](resample) for resample in indices])
    found = task_metrics(ordinal(TRUTH, SCORES), QUALITY)[name](indices)
    assert np.array_equal(np.isnan(found), np.isnan(expected)), "not defined on the same resamples"
    assert np.nanmax(np.abs(found - expected)) < 1e-12
    assert np.nanstd(found) > 0.01


@pytest.mark.parametrize("name", REFERENCES)
def test_a_metric_of_all_images_is_scikit_learns(name: str) -> None:
    found = on_all_images(task_metrics(ordinal(TRUTH, SCORES), QUALITY)[name], 61)
    assert found == pytest.approx(REFERENCES[name](np.arange(61)), abs=1e-12)


def test_auc_is_not_defined_on_a_resample_without_one_of_the_sides() -> None:
    table = ordinal(np.array([0, 0, 2]), np.array([[0.1, 0.1], [0.2, 0.1], [0.9, 0.1]]))
    values = task_metrics(table, QUALITY[:3])["auc at least 1"](np.array([[0, 1, 0], [2, 2, 2], [0, 1, 2]]))
    assert np.isnan(values).tolist() == [True, True, False]
    assert values[2] == 1


def test_equal_scores_are_worth_half() -> None:
    table = ordinal(np.array([0, 0, 1]), np.array([[0.5], [0.4], [0.5]]))
    assert on_all_images(task_metrics(table, QUALITY[:2])["auc at least 1"], 3) == 0.75


def test_kappa_is_undefined_if_truth_and_prediction_are_one_class() -> None:
    table = ordinal(np.array([1, 1, 0]), np.array([[0.9], [0.9], [0.9]]))
    values = task_metrics(table, QUALITY[:2])["quadratic kappa"](np.array([[0, 1], [0, 2]]))
    assert np.isnan(values[0])
    assert values[1] == 0


def test_a_confident_threshold_outvotes_a_hesitant_one_in_every_class_metric() -> None:
    table = ordinal(np.array([2]), np.array([[0.45, 0.99]]))  # decodes to 2, though the first score is below one half
    metrics = task_metrics(table, QUALITY[:3])
    assert on_all_images(metrics["accuracy"], 1) == 1
    assert on_all_images(metrics["mean absolute error"], 1) == 0


def test_dice_of_an_image_is_scikit_learns_f1_of_its_pixels_averaged_over_foreground_classes() -> None:
    truth, predicted = RNG.integers(0, 3, (2, 6, 16, 24))
    expected = [
        f1_score(t.ravel(), p.ravel(), labels=[1, 2], average="macro") for p, t in zip(predicted, truth, strict=True)
    ]
    assert image_scores(segmentation(truth, predicted, (1, 2))) == pytest.approx(expected, abs=1e-12)


def test_segmentations_have_dice_and_iou_by_class_and_their_mean() -> None:
    truth, predicted = RNG.integers(0, 3, (2, 6, 16, 24))
    metrics = task_metrics(segmentation(truth, predicted, (1, 2)), MASKS)
    by_class = {}
    for name, score in (("dice", f1_score), ("iou", jaccard_score)):
        values = [
            score(t.ravel(), p.ravel(), labels=[1, 2], average=None) for p, t in zip(predicted, truth, strict=True)
        ]
        liver, kidney = np.mean(values, axis=0)
        by_class |= {name: (liver + kidney) / 2, f"{name} liver": liver, f"{name} kidney": kidney}
    assert next(iter(metrics)) == "dice"
    assert {name: on_all_images(metrics[name], 6) for name in by_class} == pytest.approx(by_class, abs=1e-12)
    assert [name for name in metrics if name not in by_class] == [
        *("hd95 (pixels)", "hd95 (pixels) liver", "hd95 (pixels) kidney"),
    ]


def test_a_single_foreground_class_is_not_listed_twice() -> None:
    truth, predicted = RNG.integers(0, 2, (2, 3, 8, 8))
    assert list(task_metrics(segmentation(truth, predicted, (1,)), ("background", "nodule"))) == [
        *("dice", "iou", "hd95 (pixels)"),
    ]


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    overlaps = np.array([0, 0, 0, 0]), np.array([0, 5, 0, 1]), np.array([0, 0, 7, 0])
    assert dice(*overlaps).tolist() == iou(*overlaps).tolist() == [1, 0, 0, 0]
    empty = np.zeros((1, 2, 2), int)
    assert on_all_images(task_metrics(segmentation(empty, empty, (1,)), MASKS[:2])["iou"], 1) == 1


def test_accuracy_is_scikit_learns_on_the_decoded_classes() -> None:
    truth, predicted = RNG.integers(0, 5, (2, 40))
    table = ordinal(truth, encode(predicted, 5) * 0.8 + 0.1)
    assert image_scores(table).mean() == pytest.approx(accuracy_score(truth, predicted))


def test_a_slice_of_a_table_gives_its_own_scores() -> None:
    table = rows("ordinal", [{"truth": t, "scores": [0.9, 0.9 * (t == 2)]} for t in (0, 1, 2, 2)])
    assert image_scores(table.slice(1)).tolist() == [1, 1, 1]
    assert image_scores(pa.concat_tables([table.slice(3), table.slice(0, 1)])).tolist() == [1, 0]
