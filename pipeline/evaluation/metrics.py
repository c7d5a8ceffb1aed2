"""Metrics of predictions, image by image.

Belongs here: accuracy, Dice and IoU of single images (the paper names no metric). Not here: metrics of a set of images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.downstream.ordinal import decode

METRICS: Mapping[str, str] = {"ordinal": "accuracy", "segmentation": "dice"}
"""The metric by kind of task that tables print first and tests are about: the mean of `image_scores`."""


def image_scores(predictions: pa.Table) -> NDArray[np.float64]:
    """The score in [0, 1] of each row of `predictions` (schema `PREDICTIONS`, one task), shape (N,).

    Ordinal: 1 where the decoded class is the true one. Segmentation: Dice, averaged over the foreground classes.
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
    """Dice coefficients from pixel counts of one common shape; 1 where both masks are empty."""
    return ratio(2 * intersection, predicted + truth, otherwise=1)


def iou(
    intersection: NDArray[np.integer], predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Intersection over union from pixel counts of one common shape; 1 where both masks are empty."""
    return ratio(intersection, predicted + truth - intersection, otherwise=1)


def overlaps(predictions: pa.Table) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Pixels right, predicted and true of each row of a segmentation's `predictions`, each of shape (N, classes)."""
    intersection, predicted, truth = (
        matrix(predictions[name]) for name in ("intersection", "predicted_pixels", "truth_pixels")
    )
    return intersection, predicted, truth


def ratio(part: NDArray[np.integer], whole: NDArray[np.integer], otherwise: float) -> NDArray[np.float64]:
    """`part` over `whole`, and `otherwise` where `whole` is 0."""
    ratios = np.full(whole.shape, otherwise, dtype=np.float64)
    np.divide(part, whole, out=ratios, where=whole > 0)
    return ratios


def matrix(lists: pa.ChunkedArray) -> NDArray[Any]:
    """A column of N lists of one length as an array of N rows."""
    values: NDArray[Any] = pc.list_flatten(lists).to_numpy()
    return values.reshape(len(lists), -1)
