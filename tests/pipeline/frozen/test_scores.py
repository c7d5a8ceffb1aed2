"""AUC and Dice with intervals by patient, compared with scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.frozen.scores import auc_score, dice_score

RANDOM = np.random.default_rng(5)
TRUTH = (RANDOM.random(120) < 0.3).astype(np.int8)
SCORES = np.round(RANDOM.normal(size=120) + TRUTH, 1)  # with ties


def test_unknown_answers_do_not_count() -> None:
    truth = TRUTH.copy()
    truth[:40] = -1
    expected = roc_auc_score(TRUTH[40:], SCORES[40:])
    assert auc_score(truth[:, None], [SCORES[:, None]], [str(n) for n in range(120)]).mean == pytest.approx(expected)


def test_a_question_with_one_answer_is_undefined_and_left_out_of_the_mean() -> None:
    ones = np.ones(120, np.int8)
    patients = [str(n) for n in range(120)]
    assert np.isnan(auc_score(ones[:, None], [SCORES[:, None]], patients).mean)
    both = auc_score(np.column_stack([TRUTH, ones]), [np.column_stack([SCORES, SCORES])], patients)
    assert both.mean == pytest.approx(roc_auc_score(TRUTH, SCORES))


def test_the_mean_is_over_draws_and_questions() -> None:
    truth, draws = (
        np.column_stack([TRUTH, 1 - TRUTH]),
        [np.column_stack([SCORES, SCORES]), np.column_stack([-SCORES] * 2)],
    )
    assert auc_score(truth, draws, [str(n) for n in range(120)]).mean == pytest.approx(0.5)


def test_images_of_one_patient_are_no_independent_evidence() -> None:
    dice = np.repeat(RANDOM.random(30), 4)  # all images of a patient score the same
    alone = dice_score([dice], [str(n) for n in range(120)])
    together = dice_score([dice], [str(n // 4) for n in range(120)])
    assert alone.mean == together.mean == pytest.approx(dice.mean())
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.25)  # square root of 4


def test_the_interval_is_that_of_the_mean_of_independent_patients() -> None:
    dice = RANDOM.normal(0.5, 0.1, 400)
    score = dice_score([dice], [str(n) for n in range(400)])
    half = 1.96 * dice.std() / 20
    assert (score.low, score.high) == (
        pytest.approx(dice.mean() - half, abs=3e-3),
        pytest.approx(dice.mean() + half, abs=3e-3),
    )
