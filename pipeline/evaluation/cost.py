"""What trainings cost: the time that they took where they ran.

Belongs here: adding it up, and its table. Not here: measuring it (`Outcome`), forecasts (`pretraining.preflight`).
"""

from collections.abc import Mapping, Sequence

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.collapse import Training
from pipeline.evaluation.layout import Grid
from pipeline.evaluation.tables import BACKBONE_LABELS, arm_label, percent, task_label
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome


def cost_grid(recipe: Recipe, trainings: Sequence[Training], outcomes: Mapping[Cell, Outcome]) -> Grid:
    """One row per pretrained encoder, seeds together, then one per task and fraction, arms and seeds together."""
    took: dict[tuple[str, str], list[float | None]] = {}
    for training in trainings:
        if training.status == "ran":
            place = (BACKBONE_LABELS[training.backbone], f"Pretraining, {arm_label(recipe, training.encoder)}")
            took.setdefault(place, []).append(training.seconds)
    for cell, outcome in outcomes.items():
        if outcome.status == "ran":
            what = f"Fine-tuning, {task_label(cell.task)}, {percent(cell.fraction)} of the training images"
            took.setdefault((BACKBONE_LABELS[cell.backbone], what), []).append(outcome.seconds)
    body = [(*place, str(len(seconds)), *_times(seconds)) for place, seconds in took.items()]
    return Grid(("Backbone", "What", "Trainings", "Minutes each, mean", "Hours together"), body, numbers_from=2)


def _times(seconds: Sequence[float | None]) -> tuple[str, str]:
    """The mean and the sum of `seconds`; of trainings that did not write it down, no sum."""
    known = [value for value in seconds if value is not None]
    mean = f"{sum(known) / len(known) / 60:.1f}" if known else "–"
    return mean, f"{sum(known) / 3600:.2f}" if len(known) == len(seconds) else "–"
