"""Yes-no questions answered from pooled features: nearest neighbours and logistic regression."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.frozen.logistic import fit_logistic, log_loss, probabilities
from pipeline.frozen.problem import Positions, Problem
from pipeline.representation.features import Floats
from pipeline.representation.neighbours import Scores, neighbour_votes

COMPONENTS: Final = 256
"""Maximum number of principal components that logistic regression sees, of the features of the training images."""
STRENGTHS: Final = tuple(10.0**power for power in range(-4, 2))
"""Candidates for C, the inverse strength of the regularization, in ascending order."""
FOLDS: Final = 4


def neighbour_scores(pooled_ND: Floats, problem: Problem, train: Positions, asked: Positions) -> Scores:
    """The vote of the nearest training images on each target: (asked, T)."""
    return neighbour_votes(pooled_ND[train], problem.targets_NT[train], pooled_ND[asked])


def logistic_scores(pooled_ND: Floats, problem: Problem, train: Positions, asked: Positions) -> Scores:
    """P(target) of each image at `asked` by logistic regression on standardized principal components: (asked, T).

    C is chosen for each target by the log loss in `FOLDS` folds of patients of `train`. A target that is constant
    there, and any if no feature varies, has its training share.
    """
    x, x_asked = _reduced(pooled_ND, train, asked)
    patients = [problem.patients[position] for position in train.tolist()]
    targets = problem.targets_NT[train].T
    return np.column_stack([_probability(x, truth, patients, x_asked) for truth in targets])


def _reduced(pooled_ND: Floats, train: Positions, asked: Positions) -> tuple[Scores, Scores]:
    """Principal components of the features that vary among `train`, of both sets of images; zeros if none varies."""
    varying = pooled_ND[:, np.ptp(pooled_ND[train], axis=0) > 0]
    count = min(COMPONENTS, len(train) - 1, varying.shape[1])
    if count < 1:
        return np.zeros((len(train), 1)), np.zeros((len(asked), 1))
    components = make_pipeline(StandardScaler(), PCA(count, random_state=0)).fit(varying[train])
    return components.transform(varying[train]).astype(np.float64), components.transform(varying[asked]).astype(
        np.float64
    )


def _probability(x: Scores, truth_M: NDArray[np.int8], patients: Sequence[str], x_asked: Scores) -> Scores:
    known = truth_M >= 0
    x, truth = x[known], truth_M[known] == 1
    if truth.all() or not truth.any() or not x.any():
        return np.full(len(x_asked), float(truth.mean()) if len(truth) else 0.0)
    strength = _strength(x, truth, [patient for patient, is_known in zip(patients, known, strict=True) if is_known])
    found: Scores = probabilities(x_asked, fit_logistic(x, truth, np.ones((1, len(x))), np.array([strength])))[0]
    return found


def _strength(x: Scores, truth: NDArray[np.bool_], patients: Sequence[str]) -> float:
    """The C with the lowest log loss on left-out patients; the strongest regularization if no fold can be made."""
    folds = min(FOLDS, len(set(patients)))
    out_FN = np.zeros((folds, len(x)), bool)
    for number, (_, out) in enumerate(GroupKFold(folds).split(x, groups=patients) if folds > 1 else ()):
        out_FN[number, out] = True
    out_FN = np.array([out for out in out_FN if out.any() and len({*truth[~out].tolist()}) == 2], bool)
    if not len(out_FN):
        return STRENGTHS[0]
    out_BN = np.repeat(out_FN, len(STRENGTHS), axis=0)
    beta_BD = fit_logistic(x, truth, (~out_BN).astype(np.float64), np.tile(STRENGTHS, len(out_FN)))
    losses_BN = log_loss(probabilities(x, beta_BD), truth) * out_BN
    return STRENGTHS[int(losses_BN.sum(1).reshape(-1, len(STRENGTHS)).sum(0).argmin())]
