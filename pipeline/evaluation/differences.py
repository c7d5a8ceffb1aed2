"""The differences of arms that a recipe declares, tested as one family in each regime.

Belongs here: pairing predictions, and why a difference cannot be tested. Not here: the test itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.bootstrap import deviation
from pipeline.evaluation.metrics import METRICS, image_scores
from pipeline.evaluation.results import Result, cell_of, predictions_by_cell
from pipeline.evaluation.significance import FEWEST_PATIENTS, FEWEST_SEEDS, holm, paired_test
from pipeline.evaluation.tables import arm_label
from pipeline.recipe import Arm, Backbone, Recipe

About = Literal["models", "encoders", "methods"]


@dataclass(frozen=True)
class Difference:
    """One row of the differences table; its fields, in order, are the table's columns.

    A p-value is `about` the pretraining methods where pretraining seeds were drawn too, about the pretrained encoders
    where fine-tuning seeds were (`FEWEST_SEEDS` of either), else about the models that were fine-tuned from them.
    `difference` is the metric of `arm` minus that of `against`, averaged over the seeds, `low` to `high` its 95 %
    interval, `p` its two-sided p-value and `p_holm` the one adjusted over the `family` tests of the regime; `seed_sd`
    is the deviation of the difference from seed to seed. What cannot be told is None, and `reason` says why.
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
    """Every comparison of `recipe` on its backbones and every task, regime by regime.

    A regime's p-values are adjusted together, over all its tests, also those that could not be made: an arm that
    diverges does not make the others more significant.
    """
    found = predictions_by_cell(predictions)
    by_cell = {cell_of(result): result for result in results}
    rows: list[Difference] = []
    for fraction in recipe.downstream.fractions:
        regime = [_difference(recipe, row, by_cell, found) for row in declared(recipe, fraction)]
        adjusted = holm([row.p for row in regime])
        rows += [replace(row, p_holm=p) for row, p in zip(regime, adjusted, strict=True)]
    return rows


def declared(recipe: Recipe, fraction: float) -> list[Difference]:
    """The comparisons of a regime, as the recipe declares them: without any number."""
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
    """What a p-value of the recipe's differences is about: what was drawn often enough to say how much it varies."""
    if len(recipe.pretraining.seeds) >= FEWEST_SEEDS:
        return "methods"
    alone = len(recipe.pretraining.seeds) == 1
    return "encoders" if alone and len(recipe.downstream.seeds) >= FEWEST_SEEDS else "models"


def _difference(
    recipe: Recipe, row: Difference, results: Mapping[Cell, Result], found: Mapping[Cell, pa.Table]
) -> Difference:
    cells = compared_cells(recipe, row)
    lacking = [results[cell] for cell in cells if results[cell].status != "ran"]
    if lacking:
        first = lacking[0]
        return replace(row, reason=f"{arm_label(recipe, first.arm)}, seed {first.seed}: {first.status}: {first.reason}")
    tables = [found[cell] for cell in cells]
    differences_NS = paired_differences(tables)
    if differences_NS is None:
        return replace(row, reason="the predictions are of different test images: run the job `finetune` again")
    return _tested(recipe, row, differences_NS, tables[0]["patient"].to_pylist())


def compared_cells(recipe: Recipe, row: Difference) -> list[Cell]:
    """The cells that `row` compares: those of its arm by seed, then those of the other one."""
    return [
        Cell(recipe.name, row.backbone, arm, row.task, row.fraction, seed)
        for arm in (row.arm, row.against)
        for seed in recipe.downstream.seeds
    ]


def paired_differences(tables: Sequence[pa.Table]) -> NDArray[np.float64] | None:
    """Scores of the first half of `tables` minus those of the second, a row per image and a column per seed.

    `tables` are predictions in the order of `compared_cells`; None where they are not of the same images.
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
    drawn_NS = drawn_differences(recipe, differences_NS)
    test = paired_test(drawn_NS, patients, settings.test_resamples, settings.seed)
    people = len(set(patients))
    return replace(
        row,
        n_test=len(patients),
        n_test_patients=people,
        difference=test.difference,
        low=test.low,
        high=test.high,
        seed_sd=deviation(differences_NS.mean(axis=0)) if row.seeds > 1 else None,
        p=test.p,
        reason="" if test.p is not None else _too_few(people),
    )


def drawn_differences(recipe: Recipe, differences_NS: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns that the test draws: the fine-tuning seeds, those of one encoder averaged where there are several.

    Models of one encoder resemble each other: drawn one by one they would count as more pretrainings than there were.
    """
    encoders = len(recipe.pretraining.seeds)
    if encoders == 1:
        return differences_NS
    return np.stack([differences_NS[:, first::encoders].mean(axis=1) for first in range(encoders)], axis=1)


def _too_few(patients: int) -> str:
    who = "one test patient" if patients == 1 else f"{patients} test patients"
    return (
        f"no p-value: {who}, and fewer than {FEWEST_PATIENTS} can all differ in one direction by chance more often "
        "than once in twenty"
    )
