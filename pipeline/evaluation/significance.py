"""Paired tests of the difference between two arms, and Holm's adjustment; docs/evaluation.md gives the reasons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEWEST_PATIENTS = 6
"""With five, all differ in the same direction by chance with probability 2 / 2⁵ = 0.06."""
FEWEST_SEEDS = 5
"""Seeds needed to estimate the variation between seeds; two to four give up to three times too many false positives."""
LEVEL = 0.05
WRONG_ABOUT_METHODS = 0.43
"""Share of p-values of at most `LEVEL` with three pretraining seeds and equal methods (docs/evaluation.md)."""
_BLOCK = 2_000  # resamples at a time, which bounds the memory
_LEAST_P = 1e-300  # for a difference without any error
_ROUNDING = 1e-12  # scores lie in [0, 1]: smaller differences are rounding


@dataclass(frozen=True)
class PairedTest:
    """A difference of two arms, in [-1, 1], with its 95 % interval and two-sided p-value in (0, 1].

    `low`, `high` and `p` are None if there are too few patients. `p` is at most 0.05 if and only if 0 lies outside
    [`low`, `high`].
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class _Clusters:
    """Differences summed by patient and seed, shape (P, S), and the number of images of each patient, shape (P,)."""

    sums_PS: NDArray[np.float64]
    images_P: NDArray[np.float64]


def paired_test(differences_NS: NDArray[np.float64], patients: Sequence[str], resamples: int, seed: int) -> PairedTest:
    """Test whether the mean of `differences_NS` is 0: scores, in [0, 1], of one arm minus those of the other.

    One row per test image, with its patient in `patients`, and one column per training seed shared by both arms. A
    full-size studentized bootstrap (Efron and Tibshirani 1993, section 16.4; symmetric, Hall 1988) resamples whole
    patients and, from `FEWEST_SEEDS` seeds on, whole seeds, both with replacement; fewer seeds are averaged first.
    p = (k + 1) / (resamples + 1); k counts the resamples whose deviation from the observed mean, in their own standard
    errors, is at least the observed mean in its standard errors.
    """
    if differences_NS.shape[1] < FEWEST_SEEDS:
        differences_NS = differences_NS.mean(axis=1, keepdims=True)
    clusters = _clusters(differences_NS, patients)
    difference, error, observed = _observed(clusters)
    if len(clusters.images_P) < FEWEST_PATIENTS:
        return PairedTest(difference, None, None, None)
    null = np.sort(_deviations(clusters, difference, resamples, seed))
    extreme = int((null >= observed * (1 - 1e-9)).sum())
    critical = float(null[resamples - int(LEVEL * (resamples + 1))])
    return _with_interval(difference, error, critical, (extreme + 1) / (resamples + 1))


def few_seeds_test(differences_NS: NDArray[np.float64], patients: Sequence[str]) -> PairedTest:
    """The hypothesis of `paired_test` for at least two seeds, too few to resample: patients and seeds both vary.

    Student's test of the mean. Its standard error combines patients and seeds; its degrees of freedom are those of the
    seeds alone, the smaller number: with two seeds a difference is significant from 13 standard errors on.
    """
    clusters = _clusters(differences_NS, patients)
    difference, error, observed = _observed(clusters)
    if len(clusters.images_P) < FEWEST_PATIENTS:
        return PairedTest(difference, None, None, None)
    seeds = differences_NS.shape[1]
    p = 2 * float(stats.t.sf(observed, seeds - 1))
    return _with_interval(difference, error, float(stats.t.ppf(1 - LEVEL / 2, seeds - 1)), max(p, _LEAST_P))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (1979) in the order given; those of at most 0.05 keep the family's error rate at 0.05.

    A test without a p-value (None) stays None, and counts in the family.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[index] = largest
    return adjusted


def _observed(clusters: _Clusters) -> tuple[float, float, float]:
    """The mean difference, its standard error, and the former in units of the latter, without sign."""
    patients, seeds = clusters.sums_PS.shape
    effects, errors = _effects(clusters, np.ones((1, patients)), np.ones((1, seeds)))
    return float(effects[0]), float(errors[0]), float(_in_errors(effects, errors)[0])


def _with_interval(difference: float, error: float, critical: float, p: float) -> PairedTest:
    """The test whose interval reaches `critical` standard errors to either side, within [-1, 1]."""
    reach = critical * error if error > _ROUNDING else 0.0
    return PairedTest(difference, max(-1.0, difference - reach), min(1.0, difference + reach), p)


def _clusters(differences_NS: NDArray[np.float64], patients: Sequence[str]) -> _Clusters:
    names, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    sums_PS = np.zeros((len(names), differences_NS.shape[1]))
    np.add.at(sums_PS, patient_N, differences_NS)
    return _Clusters(sums_PS, np.bincount(patient_N).astype(np.float64))


def _deviations(clusters: _Clusters, difference: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """Distance of each resample's mean from the observed `difference` in its own standard errors, (resamples,)."""
    random = np.random.default_rng(seed)
    patients, seeds = clusters.sums_PS.shape
    blocks = []
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        patients_RP = random.multinomial(patients, np.full(patients, 1 / patients), size)
        seeds_RS = random.multinomial(seeds, np.full(seeds, 1 / seeds), size)
        effects, errors = _effects(clusters, patients_RP, seeds_RS)
        blocks.append(_in_errors(effects - difference, errors))
    return np.concatenate(blocks)


def _effects(
    clusters: _Clusters, patients_RP: NDArray[np.number], seeds_RS: NDArray[np.number]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean difference and its standard error for each resample, given how often it draws each patient and seed.

    The squared error is the sum of the contributions of patients (a ratio of sums, linearized) and of seeds.
    """
    patients, seeds = clusters.sums_PS.shape
    images_R = patients_RP @ clusters.images_P
    means_RS = patients_RP @ clusters.sums_PS / images_R[:, None]
    effects_R = (seeds_RS * means_RS).sum(axis=1) / seeds
    residuals_RP = seeds_RS @ clusters.sums_PS.T / seeds - effects_R[:, None] * clusters.images_P
    squares_R = patients / max(patients - 1, 1) * (patients_RP * residuals_RP**2).sum(axis=1) / images_R**2
    if seeds > 1:
        squares_R += (seeds_RS * (means_RS - effects_R[:, None]) ** 2).sum(axis=1) / (seeds * (seeds - 1))
    return effects_R, np.sqrt(squares_R)


def _in_errors(deviations: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute `deviations` divided by `errors`: 0 without a deviation, infinite for a deviation without error."""
    sizes = np.where(np.abs(deviations) > _ROUNDING, np.inf, 0.0)
    np.divide(np.abs(deviations), errors, out=sizes, where=(errors > _ROUNDING) & (sizes > 0))
    return sizes
