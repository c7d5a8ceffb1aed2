"""Yes-no questions about images, answered by a linear classifier that is fitted in closed form."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.representation.auc import Doubles
from pipeline.representation.features import Floats

RIDGES: Final = tuple(10.0**power for power in range(8))
"""Candidates for the ridge parameter, in ascending order."""
FOLDS: Final = 4


def ridge_scores(
    features_MD: Floats, targets_MT: NDArray[np.int8], patients_M: NDArray[np.int64], asked_ND: Floats
) -> Doubles:
    """Scores of T questions about N images by ridge regression of the answers of M images: (N, T), float64.

    Targets are 1, 0, or -1 if unknown, which are left out. Features are standardized by the M images. The ridge
    parameter is chosen for each question by the squared error in `FOLDS` folds of patients. A question without an
    answer, or with one answer only, has the same score for all images.
    """
    mean_D, sd_D = features_MD.mean(0, dtype=np.float64), features_MD.std(0, dtype=np.float64)
    x, asked = ((each[:, sd_D > 0] - mean_D[sd_D > 0]) / sd_D[sd_D > 0] for each in (features_MD, asked_ND))
    kernel, cross = x @ x.T, asked @ x.T
    known = targets_MT >= 0
    found = np.zeros((len(asked), targets_MT.shape[1]))
    for pattern in np.unique(known, axis=1).T:  # questions that are answered for the same images
        if pattern.any():
            rows, columns = np.flatnonzero(pattern), np.flatnonzero((known == pattern[:, None]).all(0))
            answers = targets_MT[np.ix_(rows, columns)].astype(np.float64)
            best = _best(kernel[np.ix_(rows, rows)], answers, patients_M[rows])
            path = _path(kernel[np.ix_(rows, rows)], answers, cross[:, rows])
            found[:, columns] = np.take_along_axis(path, best[None, None], axis=0)[0]
    return found


def _best(kernel_MM: Doubles, answers_MT: Doubles, patients_M: NDArray[np.int64]) -> NDArray[np.intp]:
    """The position in `RIDGES` with the lowest error on left-out patients for each question, shape (T,)."""
    patients = np.unique(patients_M, return_inverse=True)[1]
    errors = np.zeros((len(RIDGES), answers_MT.shape[1]))
    for fold in range(FOLDS):
        out, kept = (np.flatnonzero((patients % FOLDS == fold) == side) for side in (True, False))
        if len(out) and len(kept):
            path = _path(kernel_MM[np.ix_(kept, kept)], answers_MT[kept], kernel_MM[np.ix_(out, kept)])
            errors += np.square(path - answers_MT[out]).sum(1)
    best: NDArray[np.intp] = len(RIDGES) - 1 - np.argmin(errors[::-1], axis=0)  # of equals the strongest
    return best


def _path(kernel_MM: Doubles, answers_MT: Doubles, cross_NM: Doubles) -> Doubles:
    """Predictions for N images with each of `RIDGES`, (R, N, T); the constant is not penalized.

    `kernel_MM` and `cross_NM` are the products of the features of M images with each other and with those of N images.
    """
    mean_M, mean_T = kernel_MM.mean(0), answers_MT.mean(0)
    centred = kernel_MM - mean_M - mean_M[:, None] + mean_M.mean()
    cross = cross_NM - cross_NM.mean(1, keepdims=True) - mean_M + mean_M.mean()
    values, vectors = np.linalg.eigh(centred)
    projected, rotated = cross @ vectors, vectors.T @ (answers_MT - mean_T)
    weights = [rotated / (np.maximum(values, 0) + ridge)[:, None] for ridge in RIDGES]
    path: Doubles = mean_T + np.stack([projected @ weight for weight in weights])
    return path
