"""Effective rank, alignment and uniformity against their definitions, written out in NumPy, and known cases."""

import itertools
import math

import numpy as np
import pytest

from pipeline.representation.spread import alignment, effective_rank, uniformity

RANDOM = np.random.default_rng(6)
FEATURES = RANDOM.normal(size=(30, 7)).astype(np.float32)


@pytest.mark.parametrize("features", [FEATURES, FEATURES.T, np.abs(FEATURES)])
def test_the_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values(features):
    singular = np.linalg.svd(features.astype(float), compute_uv=False)
    share = singular / singular.sum()
    assert effective_rank(features) == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)), rel=1e-6)


@pytest.mark.parametrize(
    ("features", "rank"),
    [
        (np.eye(5), 5),  # equal singular values
        (np.ones((5, 3)), 1),
        (np.outer(np.arange(1, 6), [1, 2, 3]), 1),
        (np.zeros((5, 3)), 0),
        (np.diag([3.0, 1.0]), 4 / 27**0.25),  # exp of the entropy of 3/4 and 1/4
    ],
)
def test_the_effective_rank_of_known_matrices(features, rank):
    assert effective_rank(features.astype(np.float32)) == pytest.approx(rank, abs=1e-3)


def test_alignment_is_the_mean_squared_distance_of_unit_features():
    other = RANDOM.normal(size=(30, 7)).astype(np.float32)
    cosines = [a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in zip(FEATURES, other, strict=True)]
    assert alignment(FEATURES, other) == pytest.approx(2 - 2 * np.mean(cosines), rel=1e-5)
    assert alignment(FEATURES, 3 * FEATURES) == pytest.approx(0, abs=1e-9)
    assert alignment(FEATURES, -FEATURES) == pytest.approx(4)


def test_uniformity_is_the_log_of_the_mean_kernel_over_pairs():
    unit = [row / math.sqrt(row @ row) for row in FEATURES.astype(float)]
    kernel = [math.exp(-2 * float(((a - b) ** 2).sum())) for a, b in itertools.combinations(unit, 2)]
    assert uniformity(FEATURES) == pytest.approx(math.log(np.mean(kernel)), rel=1e-5)
    assert uniformity(np.ones((4, 3), np.float32)) == pytest.approx(0)
    assert uniformity(FEATURES[:1]) == 0
