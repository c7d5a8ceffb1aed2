"""All metrics of a task on its test images, or on many resamples of them at once."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from pipeline.downstream.ordinal import decode
from pipeline.evaluation.bootstrap import bootstrap_means
from pipeline.evaluation.hausdorff import hausdorff_distances
from pipeline.evaluation.metrics import dice, image_scores, iou, matrix, overlaps, ratio

Metric = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Maps the image positions of R resamples, shape (R, n), to values, shape (R,); nan if the metric is undefined."""


def task_metrics(predictions: pa.Table, classes: Sequence[str]) -> dict[str, Metric]:
    """All metrics, by name, of one model's `predictions` (schema `PREDICTIONS`); the task's own metric is the first.

    Ordinal, with classes as ranks from 0: accuracy in [0, 1]; mean absolute error in classes; Cohen's kappa with
    quadratic weights in [-1, 1], undefined if truth and predictions are all the same class; for each class but the
    lowest, the area under the ROC curve in [0, 1] for classes from it upwards against those below, undefined if one
    side has no image. Segmentation: Dice and IoU in [0, 1] and HD95 in pixels, averaged per image over the foreground
    classes and then over images; with several foreground classes also for each of them. `classes` are the task's.
    """
    if predictions["kind"][0].as_py() == "ordinal":
        return _ordinal_metrics(predictions, classes)
    return _segmentation_metrics(predictions, classes[1:])


def confusion(predictions: pa.Table, classes: int) -> NDArray[np.int64] | None:
    """The confusion matrix of `predictions` (schema `PREDICTIONS`, one ordinal task); None without predictions.

    Shape (classes, classes): true class along the first axis, predicted class along the second. With several seeds a
    test image counts once per seed.
    """
    if not len(predictions):
        return None
    truth, predicted = predictions["truth"].to_numpy(), decode(matrix(predictions["scores"]))
    counts: NDArray[np.int64] = confusion_matrix(truth, predicted, labels=range(classes))
    return counts


def on_all_images(metric: Metric, images: int) -> float:
    """`metric` on all `images`; nan if it is undefined."""
    return float(metric(np.arange(images)[None])[0])


def _ordinal_metrics(predictions: pa.Table, classes: Sequence[str]) -> dict[str, Metric]:
    scores, truth = matrix(predictions["scores"]), predictions["truth"].to_numpy()
    predicted = decode(scores)
    aucs = {
        f"auc at least {name}": partial(_auc, *_coded(truth > rank, scores[:, rank]))
        for rank, name in enumerate(classes[1:])
    }
    return {
        "accuracy": partial(bootstrap_means, image_scores(predictions)),
        "mean absolute error": partial(bootstrap_means, np.abs(predicted - truth).astype(np.float64)),
        "quadratic kappa": partial(_quadratic_kappa, truth, predicted),
        **aucs,
    }


def _segmentation_metrics(predictions: pa.Table, foreground: Sequence[str]) -> dict[str, Metric]:
    counts = overlaps(predictions)
    scores_NC = {
        "dice": dice(*counts),
        "iou": iou(*counts),
        "hd95 (pixels)": hausdorff_distances(predictions, len(foreground)),
    }
    means = {name: of_classes.mean(axis=1) for name, of_classes in scores_NC.items()}
    if len(foreground) > 1:
        for name, of_classes in scores_NC.items():
            means |= {f"{name} {label}": of_classes[:, column] for column, label in enumerate(foreground)}
    return {name: partial(bootstrap_means, scores) for name, scores in means.items()}


def _quadratic_kappa(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cohen's kappa with weights (i - j)²: 1 - observed / expected squared distance, both as exact integer sums."""
    t, p = truth[indices], predicted[indices]
    n = indices.shape[1]
    observed = n * np.square(t - p).sum(axis=1)
    expected = n * (np.square(t).sum(axis=1) + np.square(p).sum(axis=1)) - 2 * t.sum(axis=1) * p.sum(axis=1)
    return 1 - ratio(observed, expected, otherwise=np.nan)


def _coded(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], int]:
    """A code per image (rank of its score, plus the number of ranks if positive), and the number of ranks."""
    values, ranks = np.unique(scores, return_inverse=True)
    return positive * len(values) + ranks, len(values)


def _auc(codes: NDArray[np.int64], ranks: int, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of positive-negative pairs in which the positive scores higher; ties count one half."""
    resamples = len(indices)
    flat = codes[indices] + np.arange(resamples)[:, None] * 2 * ranks
    counts = np.bincount(flat.ravel(), minlength=resamples * 2 * ranks).reshape(resamples, 2, ranks)
    negatives, positives = counts[:, 0], counts[:, 1]
    won_twice = (positives * (2 * negatives.cumsum(axis=1) - negatives)).sum(axis=1)
    return ratio(won_twice, 2 * positives.sum(axis=1) * negatives.sum(axis=1), otherwise=np.nan)
