"""The bootstrap behind a printed deviation (paper Table 2).

Belongs here: resampling of test images. Not here: metrics, tests of significance.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.recipe import Evaluation


def resample_indices(images: int, settings: Evaluation) -> NDArray[np.int64]:
    """Images drawn with replacement: shape (resamples, size), `size` being the recipe's share of `images`.

    The draw depends on the number of images and the seed alone, so that the arms of a task see the same resamples.
    """
    size = max(1, round(settings.resample_share * images))
    return np.random.default_rng(settings.seed).integers(images, size=(settings.resamples, size))


def bootstrap_means(scores: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of per-image `scores` over every resample, a row of `indices`; shape (resamples,)."""
    means: NDArray[np.float64] = scores[indices].mean(axis=1)
    return means


def deviation(values: NDArray[np.float64]) -> float:
    """The standard deviation of a metric's `values` over resamples, or over seeds; 0 where there is only one.

    A resample on which the metric is not defined (nan) is left out.
    """
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else 0.0
