"""The vote of the nearest images."""

import numpy as np
import pytest

from pipeline.representation.neighbours import neighbour_votes


def test_the_vote_of_equal_neighbours_is_their_share():
    truth = np.repeat([1, 0, 0, 0], 5).astype(np.int8)
    found = neighbour_votes(np.ones((20, 3), np.float32), truth[:, None], np.ones((80, 3), np.float32))
    assert found == pytest.approx(0.25)


def test_the_twenty_nearest_vote_with_weights_by_their_angle():
    random = np.random.default_rng(4)
    features, asked = random.normal(size=(60, 5)).astype(np.float32), random.normal(size=(7, 5)).astype(np.float32)
    truth = random.integers(-1, 2, (60, 2)).astype(np.int8)
    expected = np.zeros((7, 2))
    for n, one in enumerate(asked):
        for t in range(2):
            known = [m for m in range(60) if truth[m, t] >= 0]
            cosine = {m: one @ features[m] / np.sqrt((one @ one) * (features[m] @ features[m])) for m in known}
            nearest = sorted(known, key=cosine.__getitem__)[-20:]
            weights = {m: np.exp(cosine[m] / 0.07) for m in nearest}
            expected[n, t] = sum(weights[m] for m in nearest if truth[m, t]) / sum(weights.values())
    assert neighbour_votes(features, truth, asked) == pytest.approx(expected, rel=1e-4)
