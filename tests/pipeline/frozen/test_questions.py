"""Nearest neighbours and logistic regression on features whose answers are known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.frozen.questions import STRENGTHS, _strength, logistic_scores, neighbour_scores
from tests.pipeline.frozen.conftest import questions

RANDOM = np.random.default_rng(3)
TRUTH = (RANDOM.random(160) < 0.5).astype(np.int8)
NOISE = RANDOM.normal(size=(160, 40)).astype(np.float32)
TELLING = NOISE + np.eye(40, dtype=np.float32)[0] * TRUTH[:, None] * 4
METHODS = (neighbour_scores, logistic_scores)


def validated(method, features, truth=TRUTH):
    problem = questions(truth[:, None])
    return method(features, problem, problem.train, problem.evaluated)[:, 0]


@pytest.mark.parametrize("method", METHODS)
def test_features_that_tell_the_answer_score_high_and_noise_does_not(method):
    assert roc_auc_score(TRUTH[80:], validated(method, TELLING)) > 0.85
    assert roc_auc_score(TRUTH[80:], validated(method, NOISE)) < 0.65


@pytest.mark.parametrize("method", METHODS)
def test_answers_of_the_images_that_are_scored_are_not_read(method):
    other = np.r_[TRUTH[:80], 1 - TRUTH[80:]]
    assert np.array_equal(validated(method, TELLING), validated(method, TELLING, other))


@pytest.mark.parametrize("method", METHODS)
def test_an_image_with_an_unknown_answer_teaches_nothing(method):
    unknown, wrong = TRUTH.copy(), TRUTH.copy()
    unknown[:20] = -1
    wrong[:20] = 1 - wrong[:20]
    problem = questions(unknown[:, None])
    expected = method(TELLING, problem, np.arange(20, 80), problem.evaluated)[:, 0]
    found = validated(method, TELLING, unknown)
    # components and scale are those of all training images, which have features without an answer, too
    assert np.corrcoef(found, expected)[0, 1] > 0.98
    assert roc_auc_score(TRUTH[80:], found) > roc_auc_score(TRUTH[80:], validated(method, TELLING, wrong))


@pytest.mark.parametrize(("answer", "share"), [(1, 1.0), (0, 0.0), (-1, 0.0)])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_answer_is_given_back(method, answer, share):
    assert validated(method, TELLING, np.full(160, answer, np.int8)) == pytest.approx(share)


def test_noise_is_regularized_more_strongly_than_what_tells_the_answer():
    patients = [str(n // 2) for n in range(80)]
    strengths = [_strength(features[:80].astype(float), TRUTH[:80] == 1, patients) for features in (NOISE, TELLING)]
    assert strengths[0] < strengths[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
def test_features_that_are_all_alike_tell_nothing(method):
    assert np.ptp(validated(method, np.ones((160, 5), np.float32))) == pytest.approx(0, abs=1e-9)


def test_one_patient_allows_no_choice():
    assert _strength(NOISE[:80].astype(float), TRUTH[:80] == 1, ["1"] * 80) == STRENGTHS[0]


def test_the_strength_is_chosen_on_other_patients():
    """Each patient has an answer of its own and one feature that names the patient: it tells nothing of others."""
    names = np.repeat(np.eye(20), 4, axis=0)
    truth = np.repeat(RANDOM.permutation([False, True] * 10), 4)
    by_patient = _strength(names, truth, [str(n // 4) for n in range(80)])
    by_image = _strength(names, truth, [str(n) for n in RANDOM.permutation(80)])
    assert by_patient == STRENGTHS[0] < by_image
