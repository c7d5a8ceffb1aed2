"""Bootstraps: over test images (paper Table 2), and over patients."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.recipe.evaluation import Evaluation

RESAMPLES: Final = 500
"""Resamples of patients behind an interval."""


def patient_weights(patients: Sequence[str]) -> NDArray[np.float64]:
    """How often each image counts, shape (1 + RESAMPLES, N), by its patient.

    All count once in the first row, then per resample as often as the patient is drawn. The same patients are drawn
    each time.
    """
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = int(codes.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weights_RN: NDArray[np.float64] = np.vstack([np.ones(count), drawn])[:, codes]
    return weights_RN


def resample_indices(images: int, settings: Evaluation) -> NDArray[np.int64]:
    """Positions of images drawn with replacement, shape (resamples, `resample_share` × `images`).

    The draw depends only on the number of images and the seed, so all arms of a task share their resamples.
    """
    size = max(1, round(settings.resample_share * images))
    return np.random.default_rng(settings.seed).integers(images, size=(settings.resamples, size))


def bootstrap_means(scores: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the per-image `scores` in each resample (a row of `indices`), shape (resamples,)."""
    means: NDArray[np.float64] = scores[indices].mean(axis=1)
    return means


def deviation(values: NDArray[np.float64]) -> float:
    """The standard deviation of a metric over resamples or seeds, ignoring nan; 0 for fewer than two values."""
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else 0.0
