"""Area under the ROC curve, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.representation.auc import weighted_auc

RANDOM = np.random.default_rng(5)
TRUTH = (RANDOM.random(120) < 0.3).astype(np.int8)
SCORES = np.round(RANDOM.normal(size=120) + TRUTH, 1)  # with ties


def test_the_weighted_auc_is_scikit_learn_s() -> None:
    weights = RANDOM.integers(0, 4, (6, 120)).astype(float)
    expected = [roc_auc_score(TRUTH, SCORES, sample_weight=row) for row in weights]
    assert weighted_auc(TRUTH, SCORES, weights) == pytest.approx(expected)
