"""Metrics of predictions, image by image.

Belongs here: accuracy and Dice (the paper names no metric). Not here: their spread, tables and figures.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.downstream.ordinal import decode

METRICS: Mapping[str, str] = {"ordinal": "accuracy", "segmentation": "dice"}
"""The metric by kind of task: the mean over test images of `image_scores`."""


def image_scores(predictions: pa.Table) -> NDArray[np.float64]:
    """The score in [0, 1] of each row of `predictions` (schema `PREDICTIONS`, one task), shape (N,).

    Ordinal: 1 where the decoded class is the true one. Segmentation: Dice, averaged over the foreground classes.
    """
    scores: NDArray[np.float64]
    if predictions["kind"][0].as_py() == "ordinal":
        scores = (decode(_matrix(predictions["scores"])) == predictions["truth"].to_numpy()).astype(np.float64)
    else:
        overlaps = (_matrix(predictions[name]) for name in ("intersection", "predicted_pixels", "truth_pixels"))
        scores = dice(*overlaps).mean(axis=1)
    return scores


def dice(
    intersection: NDArray[np.integer], predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Dice coefficients from pixel counts of one common shape; 1 where both masks are empty."""
    pixels = predicted + truth
    coefficients: NDArray[np.float64] = np.ones(pixels.shape)
    np.divide(2.0 * intersection, pixels, out=coefficients, where=pixels > 0)
    return coefficients


def _matrix(lists: pa.ChunkedArray) -> NDArray[Any]:
    """A column of N lists of one length as an array of N rows."""
    values: NDArray[Any] = pc.list_flatten(lists).to_numpy()
    return values.reshape(len(lists), -1)
