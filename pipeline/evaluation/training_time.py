"""The time that trainings took, summed by encoder and by task (`pipeline.training.outcome` measures it)."""

from collections.abc import Mapping, Sequence

from pipeline.downstream.predictions import Cell, cells
from pipeline.evaluation.display_names import arm_label, backbone_label, percent, task_label
from pipeline.evaluation.document import TextTable
from pipeline.evaluation.evidence import Training
from pipeline.recipe import Recipe
from pipeline.recipe.arms import encoder_of
from pipeline.training.outcome import Outcome


def training_time_table(recipe: Recipe, trainings: Sequence[Training], outcomes: Mapping[Cell, Outcome]) -> TextTable:
    """One row per trained encoder (all seeds), then one per task and fraction (all arms and seeds).

    Diverged trainings count. Models of a diverged encoder do not: they were never trained.
    """
    groups: dict[tuple[str, str], list[Training | Outcome]] = {}
    for training in trainings:
        if recipe.pretraining.method_of(training.encoder).trains:
            what = f"Pretraining, {arm_label(recipe, training.encoder)}"
            groups.setdefault((backbone_label(training.backbone), what), []).append(training)
    diverged = {(t.backbone, t.encoder, t.seed) for t in trainings if t.status == "diverged"}
    for cell in cells(recipe):
        outcome, encoder = outcomes.get(cell), (cell.backbone, encoder_of(cell.arm), recipe.pretraining_seed(cell.seed))
        if outcome is not None and outcome.status != "unavailable" and encoder not in diverged:
            what = f"Fine-tuning, {task_label(cell.task)}, {percent(cell.fraction)} of the training images"
            groups.setdefault((backbone_label(cell.backbone), what), []).append(outcome)
    body = [(*group, _count(runs), *_mean_and_sum([run.seconds for run in runs])) for group, runs in groups.items()]
    head = ("Backbone", "What", "Trainings", "Minutes each, mean", "Hours in total")
    return TextTable(head, body, numbers_from=2)


def _count(runs: Sequence[Training | Outcome]) -> str:
    diverged = sum(run.status == "diverged" for run in runs)
    return f"{len(runs)} ({diverged} diverged)" if diverged else str(len(runs))


def _mean_and_sum(seconds: Sequence[float | None]) -> tuple[str, str]:
    """Mean in minutes and sum in hours; if some durations are unknown, the mean of the others and no sum."""
    known = [value for value in seconds if value is not None]
    if not known:
        return "–", "–"
    mean = f"{sum(known) / len(known) / 60:.1f}"
    if len(known) < len(seconds):
        return f"{mean} ({len(known)} of {len(seconds)})", "–"
    return mean, f"{sum(known) / 3600:.2f}"
