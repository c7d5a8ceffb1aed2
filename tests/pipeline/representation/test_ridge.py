"""The linear classifier against ridge regression by the normal equations, label by label."""

import numpy as np
import pytest

from pipeline.representation.ridge import FOLDS, RIDGES, ridge_scores

RANDOM = np.random.default_rng(7)
TRAIN = RANDOM.normal(size=(48, 9)).astype(np.float32) * np.arange(1, 10) + 5
ASKED = RANDOM.normal(size=(11, 9)).astype(np.float32) * np.arange(1, 10) + 5
PATIENTS = np.repeat(np.arange(16), 3)
TARGETS = (TRAIN @ RANDOM.normal(size=(9, 3)) / 9 + RANDOM.normal(size=(48, 3)) > 2).astype(np.int8)
TARGETS[:6, 2] = -1


def solved(x, y, ridge, asked):
    """The normal equations, with a column for the constant, which is not penalized."""
    x, asked = (np.column_stack([each, np.ones(len(each))]) for each in (x, asked))
    penalty = ridge * np.diag([1.0] * (x.shape[1] - 1) + [0])
    return asked @ np.linalg.solve(x.T @ x + penalty, x.T @ y)


def expected(targets):
    """Scores of one question."""
    mean, sd = TRAIN.astype(float).mean(0), TRAIN.astype(float).std(0)
    known = targets >= 0
    x, y, patients, asked = (
        (TRAIN[known] - mean) / sd,
        targets[known].astype(float),
        PATIENTS[known],
        (ASKED - mean) / sd,
    )
    fold_of = {patient: number % FOLDS for number, patient in enumerate(sorted(set(patients)))}
    folds = np.array([fold_of[patient] for patient in patients])
    errors = []
    for ridge in RIDGES:
        left_out = [(folds != fold, folds == fold) for fold in range(FOLDS)]
        errors.append(sum(((solved(x[kept], y[kept], ridge, x[out]) - y[out]) ** 2).sum() for kept, out in left_out))
    return solved(x, y, RIDGES[int(np.argmin(errors))], asked)


def test_scores_are_those_of_ridge_regression_chosen_on_left_out_patients():
    found = ridge_scores(TRAIN, TARGETS, PATIENTS, ASKED)
    for column in range(3):
        assert found[:, column] == pytest.approx(expected(TARGETS[:, column]), rel=1e-6)


def test_the_scale_of_a_feature_does_not_matter_and_a_constant_one_adds_nothing():
    scaled, asked = (np.column_stack([each * 1000, np.full(len(each), 3.0)]) for each in (TRAIN, ASKED))
    assert ridge_scores(scaled, TARGETS, PATIENTS, asked) == pytest.approx(
        ridge_scores(TRAIN, TARGETS, PATIENTS, ASKED), rel=1e-4
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [1, 0, -1])
def test_a_question_with_one_answer_scores_all_images_alike(answer):
    found = ridge_scores(TRAIN, np.full((48, 1), answer, np.int8), PATIENTS, ASKED)
    assert found == pytest.approx(np.full((11, 1), max(answer, 0)), abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_features_that_are_all_alike_and_a_single_patient_give_equal_scores_or_the_strongest_ridge():
    alike = ridge_scores(np.ones_like(TRAIN), TARGETS, PATIENTS, np.ones_like(ASKED))
    assert np.ptp(alike, axis=0) == pytest.approx(0, abs=1e-12)
    alone = ridge_scores(TRAIN, TARGETS[:, :1], np.zeros(48, np.int64), ASKED)[:, 0]
    mean, sd = TRAIN.astype(float).mean(0), TRAIN.astype(float).std(0)
    strongest = solved((TRAIN - mean) / sd, TARGETS[:, 0].astype(float), RIDGES[-1], (ASKED - mean) / sd)
    assert alone == pytest.approx(strongest, rel=1e-6)


def test_features_that_name_the_patient_are_penalized_unless_folds_divide_patients():
    """A patient's images have nearly the same features and one answer: they tell of each other, not of others."""
    random, patients = np.random.default_rng(0), np.repeat(np.arange(40), 3)
    features = np.repeat(random.normal(size=(40, 60)), 3, axis=0)
    features = (features + 0.1 * random.normal(size=features.shape)).astype(np.float32)
    answers = np.repeat(random.permutation([0, 1] * 20), 3).astype(np.int8)[:, None]
    groups = patients, random.permutation(120)
    by_patient, by_image = (np.ptp(ridge_scores(features, answers, group, features)) for group in groups)
    assert by_patient < by_image / 10
