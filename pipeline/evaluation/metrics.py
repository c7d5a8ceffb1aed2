"""Metrics of single images: accuracy, Dice, IoU (the paper names no metric); `task_metrics` has those of a set."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.downstream.ordinal import decode

METRICS: Mapping[str, str] = {"ordinal": "accuracy", "segmentation": "dice"}
"""A task's own metric, by kind of task: printed first, and the one that is tested. The mean of `image_scores`."""


def image_scores(predictions: pa.Table) -> NDArray[np.float64]:
    """The score, in [0, 1], of each row of `predictions` (schema `PREDICTIONS`, one task), shape (N,).

    Ordinal: 1 if the predicted class is the true one, else 0. Segmentation: Dice, averaged over the foreground classes.
    """
    scores: NDArray[np.float64]
    if predictions["kind"][0].as_py() == "ordinal":
        scores = (decode(matrix(predictions["scores"])) == predictions["truth"].to_numpy()).astype(np.float64)
    else:
        scores = dice(*overlaps(predictions)).mean(axis=1)
    return scores


def dice(
    intersection: NDArray[np.integer], predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Dice coefficients of pixel counts of the same shape; 1 if both masks are empty."""
    return ratio(2 * intersection, predicted + truth, otherwise=1)


def iou(
    intersection: NDArray[np.integer], predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Intersection over union of pixel counts of the same shape; 1 if both masks are empty."""
    return ratio(intersection, predicted + truth - intersection, otherwise=1)


def overlaps(predictions: pa.Table) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Correct, predicted and true pixels of each row of a segmentation's `predictions`, each (N, classes)."""
    intersection, predicted, truth = (
        matrix(predictions[name]) for name in ("intersection", "predicted_pixels", "truth_pixels")
    )
    return intersection, predicted, truth


def ratio(part: NDArray[np.integer], whole: NDArray[np.integer], otherwise: float) -> NDArray[np.float64]:
    """`part` / `whole`, with `otherwise` for elements whose `whole` is 0."""
    ratios = np.full(whole.shape, otherwise, dtype=np.float64)
    np.divide(part, whole, out=ratios, where=whole > 0)
    return ratios


def matrix(lists: pa.ChunkedArray) -> NDArray[Any]:
    """A column of N lists of equal length as an array with N rows."""
    values: NDArray[Any] = pc.list_flatten(lists).to_numpy()
    return values.reshape(len(lists), -1)
