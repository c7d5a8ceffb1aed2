"""The bootstrap behind a printed deviation (paper Table 2).

Belongs here: resampling of per-image scores. Not here: the scores themselves, tests of significance.
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


def bootstrap_deviation(scores: NDArray[np.float64], settings: Evaluation) -> float:
    """The standard deviation of the mean of `scores` over the resamples; 0 where there is only one."""
    means = bootstrap_means(scores, resample_indices(len(scores), settings))
    return float(means.std(ddof=1)) if len(means) > 1 else 0.0
