"""Ordinal classes as threshold codes and back.

Belongs here: encoding ranks for training and decoding scores for evaluation. Not here: losses and metrics.
"""

import numpy as np
from numpy.typing import NDArray

_SURE = 1e-7  # scores this close to 0 or 1 count as this close, so that their log-odds stay finite


def encode(ranks: NDArray[np.integer], classes: int) -> NDArray[np.float32]:
    """Codes of shape (N, classes - 1) of `ranks`, shape (N,): rank k is k leading ones (paper section 4.4.2)."""
    return (ranks[:, None] > np.arange(classes - 1)).astype(np.float32)


def decode(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The rank, 0..T, whose code is the likeliest under `scores`: P(rank > t) in [0, 1] per image, shape (N, T).

    Where the scores fall monotonically this is the number of scores above 0.5. Where they do not, no code fits them
    exactly, and the most likely one weighs every threshold by how sure its score is: a single hesitant threshold
    below confident ones does not pull the rank down. Of equally likely ranks the lowest wins.
    """
    passing = np.clip(scores.astype(np.float64), _SURE, 1 - _SURE)
    odds = np.log(passing) - np.log1p(-passing)
    gains = np.concatenate([np.zeros((len(odds), 1)), np.cumsum(odds, axis=1)], axis=1)
    likeliest: NDArray[np.int64] = gains.argmax(axis=1)
    return likeliest
