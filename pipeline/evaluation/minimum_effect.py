"""The smallest difference that a test set could show, told from validation images before the test images are looked at.

Belongs here: what spread, patients and images allow a test to find. Not here: the test itself (`significance`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import optimize, stats

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.differences import compared_cells, declared, drawn_differences, paired_differences
from pipeline.evaluation.results import predictions_by_cell
from pipeline.evaluation.significance import FEWEST_PATIENTS, FEWEST_SEEDS, LEVEL
from pipeline.evaluation.tables import arm_label
from pipeline.recipe import Arm, Backbone, Recipe

_ROUNDING = 1e-12  # scores lie in [0, 1]: a smaller spread is rounding
_LEAST_FREEDOM = 3.0  # below, Student's distribution says little of a bootstrap over patients
POWER = 0.8
"""How often the test finds a difference of that size (p at most `LEVEL`)."""


@dataclass(frozen=True)
class MinimumEffect:
    """One declared difference, and how large it must be to be found; its fields, in order, are the table's columns.

    `error` is the standard error that the difference will have on the test images, told from its spread on the
    validation images; `smallest` the true difference, in the metric's unit, that the test finds with `POWER`. Both are
    None where they cannot be told, and `reason` says why.
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
    """What could be found of every difference that `recipe` declares, in the order of its differences.

    `validation` holds predictions of validation images (schema `PREDICTIONS`), `test_images` how many test images each
    patient of a task has. No prediction of a test image is needed.
    """
    found = predictions_by_cell(validation)
    rows = []
    for fraction in recipe.downstream.fractions:
        for d in declared(recipe, fraction):
            row = MinimumEffect(d.recipe, d.backbone, d.task, fraction, d.metric, d.arm, d.against, d.seeds)
            rows.append(_told(recipe, row, compared_cells(recipe, d), found, test_images.get(d.task, ())))
    return rows


def _told(
    recipe: Recipe, row: MinimumEffect, cells: Sequence[Cell], found: Mapping[Cell, pa.Table], images: Sequence[int]
) -> MinimumEffect:
    if not images:
        return replace(row, reason="the task has not been prepared")
    row = replace(row, n_test=sum(images), n_test_patients=len(images))
    lacking = next((cell for cell in cells if cell not in found), None)
    if lacking is not None:
        return replace(
            row, reason=f"{arm_label(recipe, lacking.arm)}, seed {lacking.seed}: no validation images predicted"
        )
    tables = [found[cell] for cell in cells]
    differences_NS = paired_differences(tables)
    if differences_NS is None:
        return replace(row, reason="the predictions are of different validation images: run the job `finetune` again")
    patients = tables[0]["patient"].to_pylist()
    row = replace(row, n_val=len(patients), n_val_patients=len(set(patients)))
    if min(len(set(patients)), len(images)) < FEWEST_PATIENTS:
        return replace(row, reason=f"fewer than {FEWEST_PATIENTS} validation or test patients")
    error, freedom = expected_error(drawn_differences(recipe, differences_NS), patients, images)
    if error < _ROUNDING:
        return replace(row, reason="the arms differ alike on all validation images: their spread is not known")
    return replace(row, error=error, smallest=error * minimum_effect_in_errors(freedom))


def expected_error(
    differences_NS: NDArray[np.float64], patients: Sequence[str], test_images: Sequence[int]
) -> tuple[float, float]:
    """The standard error of the mean difference on a test set, and its degrees of freedom.

    `differences_NS` are those of validation images, whose patients `patients` names, and of drawn seeds; `test_images`
    are the images of each test patient. A difference is taken for the sum of a part of the patient and one of the
    image, whose variances are those of an analysis of variance (Searle 1971, section 10.2). From `FEWEST_SEEDS` seeds
    on, as in the test, the spread of the seeds counts too. Degrees of freedom are one less than the patients where all
    have as many images, fewer where some have most of them, and those of patients and seeds are joined (`_freedom`).
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
    """As how many equal ones the `shares` of a variance count (Satterthwaite 1946): as many as there are, if equal."""
    squares = float((shares**2).sum())
    return float(shares.sum()) ** 2 / squares if squares > 0 else float(len(shares))


def minimum_effect_in_errors(freedom: float) -> float:
    """The difference, in its standard errors, that Student's two-sided test finds with `POWER`; 2.8 with many patients.

    `freedom` is the number of degrees of freedom: the test is studentized, so few patients make it heavier-tailed.
    """
    critical = float(stats.t.ppf(1 - LEVEL / 2, freedom))

    def lacking(errors: float) -> float:
        found = stats.nct.sf(critical, freedom, errors) + stats.nct.cdf(-critical, freedom, errors)
        return float(found) - POWER

    return float(optimize.brentq(lacking, 0.0, 2 * critical))  # of 2 × critical it finds 97 %


def _variances(differences_N: NDArray[np.float64], patients: Sequence[str]) -> tuple[float, float]:
    """Variance between patients and within them; where patients differ no more than images do, all of it is within."""
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
