"""What a report says of data sets, and what its results are to be compared with.

Belongs here: the wording of those tables, and names as they are printed. Not here: results (`results_tables`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.constant import Constant
from pipeline.evaluation.document import TextTable
from pipeline.evaluation.mode_collapse import ByEpoch, ModeCollapse
from pipeline.evaluation.results import Result
from pipeline.methods import METHODS, SHOWN_LABELS
from pipeline.recipe import Arm, Backbone, Recipe, encoder_of, is_frozen
from pipeline.settings import format_setting

METRIC_WORDS: Mapping[str, str] = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "auc": "AUC"}
"""First words of metrics' names that are written otherwise where they are printed; files keep the names."""
BACKBONE_LABELS: Mapping[str, str] = {"vgg16_bn": "VGG16-BN", "resnet50": "ResNet-50"}
_EPOCHS = 10  # columns that a page is wide enough for


@dataclass(frozen=True)
class Inpainting:
    """How well a context encoder fills the hidden centre of validation images, in squared z-scores."""

    backbone: Backbone
    encoder: str
    """Its method, or its variant."""
    seed: int
    validation_mse: float
    mean_patch_mse: float
    """The error of the training images' mean centre, the predictor to beat."""


@dataclass(frozen=True)
class DatasetRow:
    """One data set (paper Table 1): its images, and its patients, by split."""

    dataset: str
    task: str
    images: int
    train: int
    val: int
    test: int
    patients: int
    train_patients: int
    val_patients: int
    test_patients: int


def dataset_row(dataset: str, task: str, images: pa.Table) -> DatasetRow:
    """Count the rows of `images` (columns `patient` and `split`) and their patients by split."""
    sides = [images.filter(pc.equal(images["split"], side)) for side in ("train", "val", "test")]
    train, val, test = (len(side) for side in sides)
    patients, *by_side = (pc.count_distinct(part["patient"]).as_py() for part in (images, *sides))
    return DatasetRow(dataset, task, len(images), train, val, test, patients, *by_side)


def dataset_table(rows: Sequence[DatasetRow]) -> TextTable:
    """The data sets in the layout of the paper's Table 1, with patients in parentheses."""
    body = [
        (
            row.dataset,
            row.task,
            f"{row.images} ({row.patients})",
            f"{row.train} ({row.train_patients})",
            f"{row.val} ({row.val_patients})",
            f"{row.test} ({row.test_patients})",
        )
        for row in rows
    ]
    names = ("images (patients)", "train", "val", "test")
    return TextTable(("Data set", "Task", *names), body, numbers_from=2)


def arm_label(recipe: Recipe, arm: Arm) -> str:
    """An arm, or an encoder, as it is printed: as the paper calls it; of a variant its method and what it changes."""
    return ", ".join(_parts(recipe, arm))


def pair_label(recipe: Recipe, arm: Arm, against: Arm) -> str:
    """A difference of two arms as it is printed: "CE+DCM − CE"; what both of them change is said once, at the end."""
    (first, *changes), (second, *others) = _parts(recipe, arm), _parts(recipe, against)
    if changes and changes == others:
        return f"{first} − {second}, both {', '.join(changes)}"
    return f"{arm_label(recipe, arm)} − {arm_label(recipe, against)}"


def _parts(recipe: Recipe, arm: Arm) -> list[str]:
    encoder, frozen = encoder_of(arm), "+F" if is_frozen(arm) else ""
    variant = recipe.pretraining.variants.get(encoder)
    if variant is None:
        return [f"{METHODS[encoder].label}{frozen}"]
    shown = [SHOWN_LABELS[variant.labels].label] if variant.labels != "own" else []
    changes = [f"{name} {format_setting(value)}" for name, value in variant.settings.items()]
    return [f"{METHODS[variant.method].label}{frozen}", *shown, *changes]


def constant_comparison_table(recipe: Recipe, results: Iterable[Result], constants: Sequence[Constant]) -> TextTable:
    """For each task, fraction and seed: the best constant predictor, the best arm, and how many arms are above."""
    scores = {constant.task: constant for constant in constants}
    regimes: dict[tuple[str, float, int], list[Result]] = {}
    for result in results:
        if result.status == "ran" and result.task in scores:
            regimes.setdefault((result.task, result.fraction, result.seed), []).append(result)
    body = [_comparison(recipe, scores[task], arms) for (task, _, _), arms in regimes.items()]
    head = ("Task", "Training images", "Seed", "Metric", "Best constant predictor", "Best arm", "Arms above it")
    return TextTable(head, body, numbers_from=len(head))


def inpainting_table(recipe: Recipe, inpaintings: Iterable[Inpainting]) -> TextTable:
    """For each context encoder, seed by seed: its error on validation images beside that of the mean training patch."""
    body = [
        (
            BACKBONE_LABELS[i.backbone],
            arm_label(recipe, i.encoder),
            str(i.seed),
            f"{i.validation_mse:.3f}",
            f"{i.mean_patch_mse:.3f}",
            "yes" if i.validation_mse < i.mean_patch_mse else "no",
        )
        for i in inpaintings
    ]
    numbers = ("Validation error (squared z-scores)", "Error of the mean patch", "Better?")
    head = ("Backbone", "Pretraining", "Seed", *numbers)
    return TextTable(head, body, numbers_from=len(head))


def mode_collapse_table(recipe: Recipe, rows: Iterable[ModeCollapse]) -> TextTable:
    """For each context encoder: how much its patches differ from image to image, and how many runs collapsed."""
    body = [
        (
            BACKBONE_LABELS[row.backbone],
            arm_label(recipe, row.encoder),
            str(row.runs),
            row.epochs_kept or "–",
            _over_runs(row.diversity_kept, row.diversity_kept_sd),
            _over_runs(row.diversity_last, row.diversity_last_sd),
            _collapsed(row),
        )
        for row in rows
    ]
    diversities = ("Diversity, epoch kept", "Diversity, last epoch")
    head = ("Backbone", "Pretraining", "Runs", "Epochs kept", *diversities, "Collapsed")
    return TextTable(head, body, numbers_from=2)


def epochs_table(recipe: Recipe, by_epoch: Mapping[tuple[Backbone, str], ByEpoch], decimals: int = 0) -> TextTable:
    """For each context encoder: a share, as a percentage with so many decimals, in epochs of the longest training.

    Those are up to `_EPOCHS`, evenly spread, and the last one of every shorter training.
    """
    lengths = {len(row.means) for row in by_epoch.values()} - {0}
    spread = np.linspace(1, max(lengths), min(max(lengths), _EPOCHS))
    shown = sorted(lengths | {round(epoch) for epoch in spread})
    body = [
        (
            BACKBONE_LABELS[backbone],
            arm_label(recipe, encoder),
            str(row.runs),
            *(_share(row.means[epoch - 1], decimals) if epoch <= len(row.means) else "–" for epoch in shown),
        )
        for (backbone, encoder), row in by_epoch.items()
    ]
    return TextTable(("Backbone", "Pretraining", "Runs", *(f"Epoch {epoch}" for epoch in shown)), body, numbers_from=2)


def _collapsed(row: ModeCollapse) -> str:
    if not row.runs:
        return f"– ({row.diverged} diverged)" if row.diverged else "–"
    return f"{row.collapsed} of {row.runs}" + (f" ({row.diverged} more diverged)" if row.diverged else "")


def _share(value: float, decimals: int) -> str:
    return f"{value:.{decimals}%}".replace("%", " %")


def _over_runs(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def _comparison(recipe: Recipe, constant: Constant, arms: Sequence[Result]) -> tuple[str, ...]:
    best = max(arms, key=_mean)
    above = sum(_mean(arm) > constant.score for arm in arms)
    return (
        task_label(constant.task),
        percent(best.fraction),
        str(best.seed),
        metric_label(constant.metric),
        f"{constant.score:.3f} ({constant.predictor})",
        f"{_number(best)} ({BACKBONE_LABELS[best.backbone]} {arm_label(recipe, best.arm)})",
        f"{above} of {len(arms)}",
    )


def _mean(result: Result) -> float:
    """The mean of a result that ran."""
    assert result.mean is not None
    return result.mean


def _number(result: Result) -> str:
    return f"{_mean(result):.3f} ± {result.sd:.3f}"


def task_label(name: str) -> str:
    """A task name as it is printed: `liver_kidney` is "Liver kidney"."""
    return name.replace("_", " ").capitalize()


def metric_label(name: str) -> str:
    """A metric's name as it is printed: `hd95 (pixels) liver` is "HD95 (pixels) liver"."""
    word, *rest = name.split(" ", 1)
    return " ".join([METRIC_WORDS.get(word, word), *rest])


def percent(fraction: float) -> str:
    """A share of the training images as it is printed: 0.05 is "5 %"."""
    return f"{fraction * 100:g} %"
