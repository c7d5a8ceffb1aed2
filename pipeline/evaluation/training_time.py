"""What trainings cost: the time that they took where they ran.

Belongs here: adding it up, and its table. Not here: measuring it (`Outcome`), forecasts (`pretraining.preflight`).
"""

from collections.abc import Mapping, Sequence

from pipeline.downstream.predictions import Cell, cells
from pipeline.evaluation.document import TextTable
from pipeline.evaluation.mode_collapse import Training
from pipeline.evaluation.tables import BACKBONE_LABELS, arm_label, percent, task_label
from pipeline.recipe import Recipe, encoder_of
from pipeline.training.outcome import Outcome


def training_time_table(recipe: Recipe, trainings: Sequence[Training], outcomes: Mapping[Cell, Outcome]) -> TextTable:
    """One row per encoder that is trained, seeds together, then one per task and fraction, arms and seeds together.

    Trainings that diverged count; models of an encoder that diverged do not: they were never trained.
    """
    took: dict[tuple[str, str], list[Training | Outcome]] = {}
    for training in trainings:
        if recipe.pretraining.method_of(training.encoder).trains:
            what = f"Pretraining, {arm_label(recipe, training.encoder)}"
            took.setdefault((BACKBONE_LABELS[training.backbone], what), []).append(training)
    lost = {(t.backbone, t.encoder, t.seed) for t in trainings if t.status == "diverged"}
    for cell in cells(recipe):
        outcome, encoder = outcomes.get(cell), (cell.backbone, encoder_of(cell.arm), recipe.pretraining_seed(cell.seed))
        if outcome is not None and outcome.status != "unavailable" and encoder not in lost:
            what = f"Fine-tuning, {task_label(cell.task)}, {percent(cell.fraction)} of the training images"
            took.setdefault((BACKBONE_LABELS[cell.backbone], what), []).append(outcome)
    body = [(*place, _counted(ended), *_times([each.seconds for each in ended])) for place, ended in took.items()]
    return TextTable(("Backbone", "What", "Trainings", "Minutes each, mean", "Hours together"), body, numbers_from=2)


def _counted(ended: Sequence[Training | Outcome]) -> str:
    diverged = sum(each.status == "diverged" for each in ended)
    return f"{len(ended)} ({diverged} diverged)" if diverged else str(len(ended))


def _times(seconds: Sequence[float | None]) -> tuple[str, str]:
    """The mean and the sum of `seconds`; where some did not write theirs down, of how many the mean is, and no sum."""
    known = [value for value in seconds if value is not None]
    if not known:
        return "–", "–"
    mean = f"{sum(known) / len(known) / 60:.1f}"
    if len(known) < len(seconds):
        return f"{mean} ({len(known)} of {len(seconds)})", "–"
    return mean, f"{sum(known) / 3600:.2f}"
