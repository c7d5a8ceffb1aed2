"""Ordinal classes as threshold codes, and scores back to classes."""

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-7  # scores are clipped this close to 0 and 1, so that their log-odds stay finite


def encode(ranks: NDArray[np.integer], classes: int) -> NDArray[np.float32]:
    """Codes of shape (N, classes - 1) of `ranks`, shape (N,): rank k is k leading ones (paper section 4.4.2)."""
    return (ranks[:, None] > np.arange(classes - 1)).astype(np.float32)


def decode(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The most likely rank, 0 to T, of each image under `scores`: P(rank > t) in [0, 1], shape (N, T).

    For scores that fall monotonically it is the number of scores above 0.5. Other scores match no code exactly; the
    most likely code weighs every threshold by the confidence of its score, so that one uncertain threshold below
    confident ones does not lower the rank. Of equally likely ranks the lowest is returned.
    """
    passing = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    odds = np.log(passing) - np.log1p(-passing)
    gains = np.concatenate([np.zeros((len(odds), 1)), np.cumsum(odds, axis=1)], axis=1)
    likeliest: NDArray[np.int64] = gains.argmax(axis=1)
    return likeliest
