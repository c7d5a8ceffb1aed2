"""The declared differences between arms, tested as one family per fraction of the training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.bootstrap import deviation
from pipeline.evaluation.display_names import arm_label
from pipeline.evaluation.metrics import METRICS, image_scores
from pipeline.evaluation.results import Result, cell_of, predictions_by_cell
from pipeline.evaluation.significance import FEWEST_PATIENTS, FEWEST_SEEDS, holm, paired_test
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.settings import Backbone

About = Literal["models", "encoders", "methods"]


@dataclass(frozen=True)
class Difference:
    """One row of the differences table; the fields, in order, are the columns of differences_table.csv.

    `about` is what a p-value applies to: the pretraining methods if pretraining seeds were resampled, the pretrained
    encoders if fine-tuning seeds were (either takes `FEWEST_SEEDS`), otherwise the fine-tuned models. `difference` is
    the metric of `arm` minus that of `against`, averaged over the seeds; `low` to `high` is its 95 % interval, `p` its
    two-sided p-value, `p_holm` the p-value adjusted over the `family` tests of its fraction, and `seed_sd` the standard
    deviation of the difference between seeds. Values that cannot be computed are None, with a `reason`.
    """

    recipe: str
    backbone: Backbone
    task: str
    fraction: float
    metric: str
    arm: Arm
    against: Arm
    family: int
    seeds: int
    about: About
    n_test: int | None = None
    n_test_patients: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    seed_sd: float | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str = ""


def differences(recipe: Recipe, results: Sequence[Result], predictions: pa.Table) -> list[Difference]:
    """Every comparison of `recipe` for each of its backbones and each task, by fraction of the training images.

    P-values are adjusted over all declared tests of a fraction, even those without a p-value: an arm that diverges does
    not make the others more significant.
    """
    found = predictions_by_cell(predictions)
    by_cell = {cell_of(result): result for result in results}
    rows: list[Difference] = []
    for fraction in recipe.downstream.fractions:
        family = [_difference(recipe, row, by_cell, found) for row in declared(recipe, fraction)]
        adjusted = holm([row.p for row in family])
        rows += [replace(row, p_holm=p) for row, p in zip(family, adjusted, strict=True)]
    return rows


def declared(recipe: Recipe, fraction: float) -> list[Difference]:
    """The declared comparisons at one fraction of the training images, without numbers."""
    tasks = recipe.downstream.tasks
    family = len(recipe.compared) * len(tasks)
    seeds = len(recipe.downstream.seeds)
    about = about_of(recipe)
    return [
        Difference(recipe.name, backbone, name, fraction, METRICS[task.kind], c.arm, c.against, family, seeds, about)
        for c, backbone in recipe.compared
        for name, task in tasks.items()
    ]


def about_of(recipe: Recipe) -> About:
    """What the p-values of `recipe` apply to: the level with enough seeds (`FEWEST_SEEDS`) to measure its variation."""
    if len(recipe.pretraining.seeds) >= FEWEST_SEEDS:
        return "methods"
    alone = len(recipe.pretraining.seeds) == 1
    return "encoders" if alone and len(recipe.downstream.seeds) >= FEWEST_SEEDS else "models"


def _difference(
    recipe: Recipe, row: Difference, results: Mapping[Cell, Result], found: Mapping[Cell, pa.Table]
) -> Difference:
    cells = compared_cells(recipe, row)
    missing = next((results[cell] for cell in cells if results[cell].status != "ran"), None)
    if missing is not None:
        reason = f"{arm_label(recipe, missing.arm)}, seed {missing.seed}: {missing.status}: {missing.reason}"
        return replace(row, reason=reason)
    tables = [found[cell] for cell in cells]
    differences_NS = paired_differences(tables)
    if differences_NS is None:
        return replace(row, reason="the arms predicted different test images: run the job `finetune` again")
    return _tested(recipe, row, differences_NS, tables[0]["patient"].to_pylist())


def compared_cells(recipe: Recipe, row: Difference) -> list[Cell]:
    """The cells that `row` compares: those of `arm` in the order of the seeds, then those of `against`."""
    return [
        Cell(recipe.name, row.backbone, arm, row.task, row.fraction, seed)
        for arm in (row.arm, row.against)
        for seed in recipe.downstream.seeds
    ]


def paired_differences(tables: Sequence[pa.Table]) -> NDArray[np.float64] | None:
    """Scores of the first half of `tables` minus those of the second, one row per image and one column per seed.

    `tables` are predictions in the order of `compared_cells`. None if their images differ.
    """
    images = [table.select(["image_id", "patient"]) for table in tables]
    if not all(other.equals(images[0]) for other in images):
        return None
    scores_AN = np.array([image_scores(table) for table in tables])
    seeds = len(tables) // 2
    differences_NS: NDArray[np.float64] = (scores_AN[:seeds] - scores_AN[seeds:]).T
    return differences_NS


def _tested(recipe: Recipe, row: Difference, differences_NS: NDArray[np.float64], patients: list[str]) -> Difference:
    settings = recipe.evaluation
    by_encoder_NS = average_by_encoder(recipe, differences_NS)
    test = paired_test(by_encoder_NS, patients, settings.test_resamples, settings.seed)
    patient_count = len(set(patients))
    return replace(
        row,
        n_test=len(patients),
        n_test_patients=patient_count,
        difference=test.difference,
        low=test.low,
        high=test.high,
        seed_sd=deviation(differences_NS.mean(axis=0)) if row.seeds > 1 else None,
        p=test.p,
        reason="" if test.p is not None else _too_few(patient_count),
    )


def average_by_encoder(recipe: Recipe, differences_NS: NDArray[np.float64]) -> NDArray[np.float64]:
    """One column per independent draw: the fine-tuning seeds, averaged by encoder if there are several encoders.

    Models of one encoder resemble each other; as separate draws they would count as additional pretrainings.
    """
    encoders = len(recipe.pretraining.seeds)
    if encoders == 1:
        return differences_NS
    return np.stack([differences_NS[:, first::encoders].mean(axis=1) for first in range(encoders)], axis=1)


def _too_few(patients: int) -> str:
    count = "one test patient" if patients == 1 else f"{patients} test patients"
    return f"no p-value: {count}; the test needs at least {FEWEST_PATIENTS}"
