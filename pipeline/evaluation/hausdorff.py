"""The 95th percentile Hausdorff distance (HD95) of masks."""

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
    """HD95 of each row of a segmentation's `predictions` and each foreground class, shape (N, foreground).

    Published predictions have no masks; their column `DISTANCES` already holds the values.
    """
    if DISTANCES in predictions.column_names:
        return matrix(predictions[DISTANCES]).astype(np.float64)
    packed = (predictions[name].to_pylist() for name in ("predicted_mask", "truth_mask"))
    images = ((unpack_mask(predicted), unpack_mask(truth)) for predicted, truth in zip(*packed, strict=True))
    return np.array([[hausdorff95(p == value, t == value) for value in range(1, foreground + 1)] for p, t in images])


def hausdorff95(predicted: Mask, truth: Mask) -> float:
    """HD95, in pixels, of two masks of the same shape (H, W).

    The 95th percentile of the distances from each edge pixel of one mask to the nearest edge pixel of the other; the
    larger value of the two directions. 0 if both masks are empty, the image's diagonal if one is.
    """
    if not predicted.any() or not truth.any():
        return 0.0 if predicted.any() == truth.any() else float(np.hypot(*truth.shape))
    one, other = _edge(predicted), _edge(truth)
    return max(_directed(one, other), _directed(other, one))


def _directed(pixels: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    distances, _ = KDTree(others).query(pixels)
    return float(np.percentile(distances, 95))


def _edge(mask: Mask) -> NDArray[np.int64]:
    """Row and column of the pixels of `mask` at the image's border or with a neighbour outside the mask."""
    return np.argwhere(mask & ~binary_erosion(mask))
