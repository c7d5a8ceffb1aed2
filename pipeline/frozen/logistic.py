"""Logistic regressions with an L2 penalty, many on the same features at once: choosing a penalty takes dozens."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Doubles = NDArray[np.float64]

_STEPS: Final = 100
_HALVINGS: Final = 20
_TOLERANCE: Final = 1e-4
"""Maximum slope at the end, as scikit-learn's."""


def fit_logistic(x_ND: Doubles, truth_N: NDArray[np.bool_], weight_BN: Doubles, strength_B: Doubles) -> Doubles:
    """Coefficients of B regressions on the same N images, the intercept last, shape (B, D + 1), by Newton's method.

    Each minimizes strength × the sum of weight × log loss + half the squared norm of the coefficients without the
    intercept, as scikit-learn's `LogisticRegression(C=strength)`.
    """
    x_ND = np.column_stack([x_ND, np.ones(len(x_ND))])
    weight_BN = weight_BN * strength_B[:, None]
    ridge_D = np.r_[np.ones(x_ND.shape[1] - 1), 0]
    beta_BD = np.zeros((len(strength_B), x_ND.shape[1]))
    for _ in range(_STEPS):
        p_BN = expit(beta_BD @ x_ND.T)
        slope_BD = (weight_BN * (p_BN - truth_N)) @ x_ND + ridge_D * beta_BD
        if np.abs(slope_BD).max() < _TOLERANCE:
            break
        curvature_BND = (weight_BN * p_BN * (1 - p_BN))[:, :, None] * x_ND
        hessian_BDD = x_ND.T @ curvature_BND + np.diag(ridge_D + 1e-12)
        step_BD = np.linalg.solve(hessian_BDD, slope_BD[:, :, None])[:, :, 0]
        beta_BD = _moved(x_ND, truth_N, weight_BN, ridge_D, beta_BD, step_BD)
    return beta_BD


def probabilities(x_ND: Doubles, beta_BD: Doubles) -> Doubles:
    """P(true) of each image by each regression, shape (B, N)."""
    found: Doubles = expit(beta_BD[:, :-1] @ x_ND.T + beta_BD[:, -1:])
    return found


def log_loss(p_BN: Doubles, truth_N: NDArray[np.bool_]) -> Doubles:
    """The log loss of each image, shape (B, N)."""
    likelihood_BN: Doubles = np.where(truth_N, p_BN, 1 - p_BN)
    return -np.log(np.maximum(likelihood_BN, np.finfo(np.float64).eps))


def _moved(
    x_ND: Doubles, truth_N: NDArray[np.bool_], weight_BN: Doubles, ridge_D: Doubles, beta_BD: Doubles, step_BD: Doubles
) -> Doubles:
    """`beta_BD` minus its step, which is halved until the penalized loss does not rise."""

    def penalized(beta_BD: Doubles) -> Doubles:
        losses_BN = weight_BN * np.logaddexp(0, np.where(truth_N, -1, 1) * (beta_BD @ x_ND.T))
        total_B: Doubles = losses_BN.sum(1) + (ridge_D * beta_BD**2).sum(1) / 2
        return total_B

    before_B, length_B = penalized(beta_BD), np.ones(len(beta_BD))
    for _ in range(_HALVINGS):
        rises_B = penalized(beta_BD - length_B[:, None] * step_BD) > before_B * (1 + 1e-12)
        if not rises_B.any():
            break
        length_B = np.where(rises_B, length_B / 2, length_B)
    return beta_BD - length_B[:, None] * step_BD
