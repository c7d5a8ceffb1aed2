"""Area under the ROC curve, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.representation.auc import mean_auc, weighted_auc

RANDOM = np.random.default_rng(5)
TRUTH = (RANDOM.random(120) < 0.3).astype(np.int8)
SCORES = np.round(RANDOM.normal(size=120) + TRUTH, 1)  # with ties


def test_the_weighted_auc_is_scikit_learn_s() -> None:
    weights = RANDOM.integers(0, 4, (6, 120)).astype(float)
    expected = [roc_auc_score(TRUTH, SCORES, sample_weight=row) for row in weights]
    assert weighted_auc(TRUTH, SCORES, weights) == pytest.approx(expected)


def test_the_mean_is_over_questions_and_leaves_out_unknown_answers() -> None:
    truth = np.column_stack([TRUTH, 1 - TRUTH])
    truth[:30, 1] = -1
    scores = np.column_stack([SCORES, RANDOM.normal(size=120)])
    expected = (roc_auc_score(TRUTH, SCORES) + roc_auc_score(truth[30:, 1], scores[30:, 1])) / 2
    assert mean_auc(truth, scores) == pytest.approx(expected)
