"""Yes-no questions about images, answered by the images with the most similar features."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.representation.features import Floats, unit

NEIGHBOURS: Final = 20
TEMPERATURE: Final = 0.07
"""Of the weights by similarity, as Wu et al. 2018 (Unsupervised feature learning via non-parametric discrimination)."""

Scores = NDArray[np.float64]


def neighbour_votes(pooled_MD: Floats, targets_MT: NDArray[np.int8], asked_ND: Floats) -> Scores:
    """For each of N images, the share of its nearest among M with each target, weighted by cosine similarity: (N, T).

    Targets are 1, 0, or -1 if unknown. At most `NEIGHBOURS` images for which the target is known vote; 0 if it is known
    for none.
    """
    similar_NM = (unit(asked_ND) @ unit(pooled_MD).T).astype(np.float64)
    return np.column_stack([_vote(similar_NM, truth_M) for truth_M in targets_MT.T])


def _vote(similar_NM: Scores, truth_M: NDArray[np.int8]) -> Scores:
    known = np.flatnonzero(truth_M >= 0)
    if not len(known):
        return np.zeros(len(similar_NM))
    count = min(NEIGHBOURS, len(known))
    nearest = np.argpartition(-similar_NM[:, known], count - 1, axis=1)[:, :count]
    weights = np.exp((np.take_along_axis(similar_NM[:, known], nearest, axis=1) - 1) / TEMPERATURE)
    votes: Scores = (weights * truth_M[known][nearest]).sum(1) / weights.sum(1)
    return votes
