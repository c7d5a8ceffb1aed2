"""The bootstrap against a plain loop."""

import statistics

import numpy as np
import pytest

from pipeline.evaluation.bootstrap import bootstrap_means, deviation, resample_indices
from pipeline.recipe.evaluation import Evaluation

SCORES = np.random.default_rng(2).random(37)


def printed_deviation(scores: np.ndarray, settings: Evaluation) -> float:
    return deviation(bootstrap_means(scores, resample_indices(len(scores), settings)))


def test_means_are_those_of_a_plain_loop_over_the_same_resamples() -> None:
    indices = resample_indices(37, Evaluation(resamples=50))
    expected = [statistics.fmean(SCORES[i] for i in resample) for resample in indices.tolist()]
    assert bootstrap_means(SCORES, indices) == pytest.approx(expected, abs=1e-12)


def test_the_deviation_is_that_of_the_means() -> None:
    settings = Evaluation(resamples=50)
    means = [statistics.fmean(SCORES[i] for i in resample) for resample in resample_indices(37, settings).tolist()]
    assert printed_deviation(SCORES, settings) == pytest.approx(statistics.stdev(means), abs=1e-12)


def test_by_default_a_thousand_resamples_hold_half_the_images_with_replacement() -> None:
    indices = resample_indices(100, Evaluation())
    assert indices.shape == (1000, 50)
    assert set(indices.ravel()) == set(range(100))
    assert any(len(set(resample)) < 50 for resample in indices.tolist())


def test_the_deviation_is_near_its_theory() -> None:
    many = np.random.default_rng(3).random(400)
    theory = many.std() / np.sqrt(200)
    assert printed_deviation(many, Evaluation()) == pytest.approx(theory, rel=0.1)


def test_the_resamples_depend_on_the_seed_alone() -> None:
    assert np.array_equal(resample_indices(9, Evaluation(seed=4)), resample_indices(9, Evaluation(seed=4)))
    assert not np.array_equal(resample_indices(9, Evaluation(seed=4)), resample_indices(9, Evaluation(seed=5)))


def test_one_image_and_one_resample_have_no_spread() -> None:
    assert printed_deviation(np.array([0.3]), Evaluation()) == pytest.approx(0)
    assert printed_deviation(SCORES, Evaluation(resamples=1)) == 0


def test_resamples_without_a_value_are_left_out_of_the_deviation() -> None:
    assert deviation(np.array([1.0, np.nan, 3.0])) == pytest.approx(statistics.stdev([1, 3]))
    assert deviation(np.array([np.nan, np.nan])) == 0
