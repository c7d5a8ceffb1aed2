"""Minimum detectable effects: the smallest differences that a test set can show, estimated from validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import optimize, stats

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.differences import average_by_encoder, compared_cells, declared, paired_differences
from pipeline.evaluation.display_names import arm_label
from pipeline.evaluation.results import predictions_by_cell
from pipeline.evaluation.significance import FEWEST_PATIENTS, FEWEST_SEEDS, LEVEL
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.settings import Backbone

_ROUNDING = 1e-12  # scores lie in [0, 1]: a smaller spread is rounding
_LEAST_FREEDOM = 3.0  # below, Student's distribution is a poor model of a bootstrap over patients
POWER = 0.8
"""Probability that the test finds a difference of the minimum size (p at most `LEVEL`)."""


@dataclass(frozen=True)
class MinimumEffect:
    """One declared difference and its minimum detectable effect; the fields are the columns of detectable_table.csv.

    `error` is the expected standard error of the difference on the test images, estimated from its spread on the
    validation images; `smallest` is the true difference, in the metric's unit, that the test finds with probability
    `POWER`. Both are None if they cannot be estimated, with a `reason`.
    """

    recipe: str
    backbone: Backbone
    task: str
    fraction: float
    metric: str
    arm: Arm
    against: Arm
    seeds: int
    n_val: int | None = None
    n_val_patients: int | None = None
    n_test: int | None = None
    n_test_patients: int | None = None
    error: float | None = None
    smallest: float | None = None
    reason: str = ""


def minimum_effects(
    recipe: Recipe, validation: pa.Table, test_images: Mapping[str, Sequence[int]]
) -> list[MinimumEffect]:
    """The minimum detectable effect of every difference that `recipe` declares, in the order of `differences`.

    `validation` holds predictions of validation images (schema `PREDICTIONS`); `test_images` lists, for each task, the
    number of test images of each patient. Predictions of test images are not needed.
    """
    found = predictions_by_cell(validation)
    rows = []
    for fraction in recipe.downstream.fractions:
        for d in declared(recipe, fraction):
            row = MinimumEffect(d.recipe, d.backbone, d.task, fraction, d.metric, d.arm, d.against, d.seeds)
            rows.append(_estimated(recipe, row, compared_cells(recipe, d), found, test_images.get(d.task, ())))
    return rows


def _estimated(
    recipe: Recipe, row: MinimumEffect, cells: Sequence[Cell], found: Mapping[Cell, pa.Table], images: Sequence[int]
) -> MinimumEffect:
    if not images:
        return replace(row, reason="the task's images are not prepared")
    row = replace(row, n_test=sum(images), n_test_patients=len(images))
    missing = next((cell for cell in cells if cell not in found), None)
    if missing is not None:
        reason = f"{arm_label(recipe, missing.arm)}, seed {missing.seed}: no predictions of validation images"
        return replace(row, reason=reason)
    tables = [found[cell] for cell in cells]
    differences_NS = paired_differences(tables)
    if differences_NS is None:
        return replace(row, reason="the arms predicted different validation images: run the job `finetune` again")
    patients = tables[0]["patient"].to_pylist()
    row = replace(row, n_val=len(patients), n_val_patients=len(set(patients)))
    if min(len(set(patients)), len(images)) < FEWEST_PATIENTS:
        return replace(row, reason=f"fewer than {FEWEST_PATIENTS} validation or test patients")
    error, freedom = expected_error(average_by_encoder(recipe, differences_NS), patients, images)
    if error < _ROUNDING:
        return replace(row, reason="the difference is the same on all validation images: no spread to estimate from")
    return replace(row, error=error, smallest=error * minimum_effect_in_errors(freedom))


def expected_error(
    differences_NS: NDArray[np.float64], patients: Sequence[str], test_images: Sequence[int]
) -> tuple[float, float]:
    """The expected standard error of the mean difference on a test set, and its degrees of freedom.

    `differences_NS` has one row per validation image, with its patient in `patients`, and one column per seed;
    `test_images` is the number of images of each test patient. A difference is modelled as a patient effect plus an
    image effect, with variances from an analysis of variance (Searle 1971, section 10.2). From `FEWEST_SEEDS` seeds on,
    as in the test, the variance of the seeds is added. The degrees of freedom are the number of patients minus one if
    all have equally many images, fewer otherwise, and are pooled with those of the seeds (`_freedom`).
    """
    between, within = _variances(differences_NS.mean(axis=1), patients)
    images_P = np.asarray(test_images, dtype=np.float64)
    shares_P = (between * images_P**2 + within * images_P) / images_P.sum() ** 2
    parts, freedoms = [float(shares_P.sum())], [_freedom(shares_P) - 1]
    seeds = differences_NS.shape[1]
    if seeds >= FEWEST_SEEDS:
        parts.append(float(differences_NS.mean(axis=0).var(ddof=1)) / seeds)
        freedoms.append(seeds - 1)
    square = sum(parts)
    uncertain = sum(part**2 / max(freedom, _LEAST_FREEDOM) for part, freedom in zip(parts, freedoms, strict=True))
    return square**0.5, square**2 / uncertain if square > 0 else _LEAST_FREEDOM


def _freedom(shares: NDArray[np.float64]) -> float:
    """Effective number of the `shares` of a variance (Satterthwaite 1946): their count if all are equal."""
    squares = float((shares**2).sum())
    return float(shares.sum()) ** 2 / squares if squares > 0 else float(len(shares))


def minimum_effect_in_errors(freedom: float) -> float:
    """The difference, in standard errors, that Student's two-sided test finds with `POWER`: 2.8 for many patients.

    `freedom` is the number of degrees of freedom; few patients make the studentized test heavier-tailed.
    """
    critical = float(stats.t.ppf(1 - LEVEL / 2, freedom))

    def excess_power(errors: float) -> float:
        power = stats.nct.sf(critical, freedom, errors) + stats.nct.cdf(-critical, freedom, errors)
        return float(power) - POWER

    return float(optimize.brentq(excess_power, 0.0, 2 * critical))  # at 2 × critical the power is 97 %


def _variances(differences_N: NDArray[np.float64], patients: Sequence[str]) -> tuple[float, float]:
    """Variance between and within patients; all of it is within if patients differ no more than images do."""
    _, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    images_P = np.bincount(patient_N).astype(np.float64)
    means_P = np.bincount(patient_N, weights=differences_N) / images_P
    images, people = len(differences_N), len(images_P)
    inside = float(((differences_N - means_P[patient_N]) ** 2).sum())
    across = float((images_P * (means_P - differences_N.mean()) ** 2).sum())
    within = inside / (images - people) if images > people else 0.0
    usual = (images - (images_P**2).sum() / images) / (people - 1)
    between = (across / (people - 1) - within) / usual
    return (float(between), within) if between > 0 else (0.0, (inside + across) / (images - 1))
