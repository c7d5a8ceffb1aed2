"""Vectors keep angles; maps are deterministic and keep groups apart."""

import numpy as np
import pytest

from pipeline.embeddings.layout import DIMENSIONS, map_of, principal_vectors


def cosines(x_ND: np.ndarray) -> np.ndarray:
    lengths = np.sqrt((x_ND.astype(np.float64) ** 2).sum(1))
    return x_ND.astype(np.float64) @ x_ND.T.astype(np.float64) / np.outer(lengths, lengths)


def test_vectors_are_short_and_keep_the_angles_of_features_of_low_rank() -> None:
    random = np.random.default_rng(0)
    features = (random.normal(size=(300, 20)) @ random.normal(size=(20, 400)) + 3).astype(np.float32)
    vectors = principal_vectors(features)
    assert vectors.shape == (300, DIMENSIONS) and vectors.dtype == np.float32
    np.testing.assert_allclose(cosines(vectors), cosines(features), atol=1e-4)


def test_narrow_features_stay_as_they_are() -> None:
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    np.testing.assert_array_equal(principal_vectors(features), features)


@pytest.fixture(scope="module")
def groups() -> np.ndarray:
    """Thirty vectors around each of two points that are far apart."""
    noise = np.random.default_rng(0).normal(size=(60, 16))
    return (noise + np.repeat([[40.0], [-40.0]], 30, axis=0)).astype(np.float32)


def test_two_groups_stay_apart_and_the_same_vectors_give_the_same_map(groups: np.ndarray) -> None:
    first, second = map_of(groups), map_of(groups)
    np.testing.assert_array_equal(first, second)
    distances = np.linalg.norm(first[:, None] - first, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(1)
    assert first.shape == (60, 2) and ((nearest < 30) == (np.arange(60) < 30)).all()
    assert distances[:30, 30:].min() > np.where(np.isinf(distances), 0, distances)[:30, :30].max()


@pytest.mark.parametrize("vectors", [np.ones((9, 5), np.float32), np.eye(3, dtype=np.float32)], ids=["equal", "few"])
def test_equal_or_few_images_are_at_one_point(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(map_of(vectors), np.zeros((len(vectors), 2)))
