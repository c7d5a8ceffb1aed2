"""How far the outlines of two masks lie apart.

Belongs here: the 95th percentile Hausdorff distance of masks. Not here: overlap (`metrics`).
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from pipeline.downstream.predictions import unpack_mask
from pipeline.evaluation.metrics import matrix

DISTANCES = "hd95"
Mask = NDArray[np.bool_]


def hausdorff_distances(predictions: pa.Table, foreground: int) -> NDArray[np.float64]:
    """`hausdorff95` of each row of a segmentation's `predictions` and each `foreground` class, (N, foreground).

    Published predictions, whose masks stay where they were made, hold it already, in the column `DISTANCES`.
    """
    if DISTANCES in predictions.column_names:
        return matrix(predictions[DISTANCES]).astype(np.float64)
    packed = (predictions[name].to_pylist() for name in ("predicted_mask", "truth_mask"))
    images = ((unpack_mask(predicted), unpack_mask(truth)) for predicted, truth in zip(*packed, strict=True))
    return np.array([[hausdorff95(p == value, t == value) for value in range(1, foreground + 1)] for p, t in images])


def hausdorff95(predicted: Mask, truth: Mask) -> float:
    """95th percentile Hausdorff distance of two masks of one shape (H, W), in pixels.

    Of the distances from each pixel on one mask's edge to the nearest on the other's, the 95th percentile; the larger
    of both directions. 0 where both masks are empty; where one is, there is no outline to be near to: the diagonal.
    """
    if not predicted.any() or not truth.any():
        return 0.0 if predicted.any() == truth.any() else float(np.hypot(*truth.shape))
    one, other = _edge(predicted), _edge(truth)
    return max(_reached(one, other), _reached(other, one))


def _reached(places: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    distances, _ = KDTree(others).query(places)
    return float(np.percentile(distances, 95))


def _edge(mask: Mask) -> NDArray[np.int64]:
    """Row and column of the pixels of `mask` that have a neighbour outside of it, or lie at the image's border."""
    return np.argwhere(mask & ~binary_erosion(mask))
