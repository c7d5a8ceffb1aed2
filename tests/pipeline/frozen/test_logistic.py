"""Many logistic regressions at once, compared with scikit-learn one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_loss

from pipeline.frozen.logistic import fit_logistic, log_loss, probabilities

RANDOM = np.random.default_rng(6)
X = RANDOM.normal(size=(70, 12)) * np.linspace(8, 0.2, 12)
STRENGTHS = np.array([1e-4, 1e-2, 1.0, 10.0])


@pytest.mark.parametrize("truth", [X[:, 0] + RANDOM.normal(size=70) * 6 > 1, X[:, 1] > 0], ids=["noisy", "separable"])
def test_each_regression_is_scikit_learn_s_of_the_same_images_and_strength(truth: np.ndarray) -> None:
    kept = RANDOM.random((len(STRENGTHS), 70)) < 0.8
    beta = fit_logistic(X, truth, kept.astype(float), STRENGTHS)
    found = probabilities(X, beta)
    for row, images, strength in zip(found, kept, STRENGTHS, strict=True):
        reference = LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(X[images], truth[images])
        expected = reference.predict_proba(X)[:, 1]
        assert row == pytest.approx(expected, abs=1e-4)
        assert log_loss(row[None], truth).mean() == pytest.approx(reference_loss(truth, row), rel=1e-9)


def test_a_first_step_that_is_too_long_is_shortened() -> None:
    """One image a thousand times as far as the others, on the wrong side: Newton's method alone overshoots."""
    x = np.r_[RANDOM.normal(size=(40, 1)), [[-1000.0]]]
    truth = np.r_[x[:-1, 0] > 0, True]
    beta = fit_logistic(x, truth, np.ones((1, 41)), np.array([10.0]))
    reference = LogisticRegression(C=10.0, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(x, truth)
    assert beta[0] == pytest.approx([reference.coef_[0, 0], reference.intercept_[0]], rel=1e-3, abs=1e-5)
