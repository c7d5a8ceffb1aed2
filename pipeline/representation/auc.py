"""Area under the ROC curve."""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def mean_auc(truth_NT: NDArray[np.int8], scores_NT: Doubles) -> float:
    """The mean AUC over questions; unknown answers (-1) do not count. nan if a question lacks one of both answers."""
    every_1N = np.ones((1, len(truth_NT)))
    columns = zip(truth_NT.T, scores_NT.T, strict=True)
    return float(np.mean([weighted_auc(truth_N, scores_N, every_1N) for truth_N, scores_N in columns]))


def weighted_auc(truth_N: NDArray[np.int8], scores_N: Doubles, weights_RN: Doubles) -> Doubles:
    """Area under the ROC curve for each row of weights, shape (R,): the chance that a positive image scores higher than
    a negative one, ties counting half (Mann and Whitney 1947). nan without a positive or a negative image of weight.
    """
    known = np.flatnonzero(truth_N >= 0)
    order = known[np.argsort(scores_N[known], kind="stable")]
    if not len(order):
        return np.full(len(weights_RN), np.nan)
    weights, positive = weights_RN[:, order], truth_N[order] == 1
    starts = np.flatnonzero(np.r_[True, np.diff(scores_N[order]) > 0])  # of runs of equal scores
    up, down = (np.add.reduceat(weights * side, starts, axis=1) for side in (positive, ~positive))
    below = np.cumsum(down, axis=1) - down / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Doubles = (up * below).sum(1) / (up.sum(1) * down.sum(1))
    return found
