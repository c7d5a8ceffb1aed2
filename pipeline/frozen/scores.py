"""Scores of answers with intervals clustered by patient: area under the ROC curve, and Dice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import patient_weights
from pipeline.representation.auc import Doubles, weighted_auc

_EDGES = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Score:
    """A mean over draws, with the 95 % interval of the bootstrap over patients; nan if it is undefined.

    `resampled` are the means of the resamples, which are the same for all scores of the same patients.
    """

    mean: float
    low: float
    high: float
    resampled: tuple[float, ...]


UNDEFINED: Final = Score(np.nan, np.nan, np.nan, ())


def auc_score(truth_NT: NDArray[np.int8], draws: Sequence[Doubles], patients: Sequence[str]) -> Score:
    """The mean AUC over questions and `draws`, each scores of shape (N, T); unknown answers (-1) do not count."""
    weights_RN = patient_weights(patients)
    columns = [(truth_NT[:, t], scores[:, t]) for scores in draws for t in range(truth_NT.shape[1])]
    return _score(np.stack([weighted_auc(truth, scores, weights_RN) for truth, scores in columns]))


def dice_score(draws: Sequence[Doubles], patients: Sequence[str]) -> Score:
    """The mean Dice over images and `draws`, each with one Dice per image, shape (N,)."""
    weights_RN = patient_weights(patients)
    return _score(np.stack([weights_RN @ by_image / weights_RN.sum(1) for by_image in draws]))


def _score(values_DR: Doubles) -> Score:
    """The mean over draws and questions; the first column is of all images, the others of resamples."""
    defined = ~np.isnan(values_DR)
    counts = defined.sum(0)
    means = np.where(counts, np.where(defined, values_DR, 0).sum(0) / np.maximum(counts, 1), np.nan)
    resampled = means[1:][~np.isnan(means[1:])]
    low, high = np.percentile(resampled, _EDGES) if len(resampled) else (np.nan, np.nan)
    return Score(float(means[0]), float(low), float(high), tuple(means[1:].tolist()))
