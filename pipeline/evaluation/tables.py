"""Tables for reading, in Markdown and in the paper's layout.

Belongs here: the layout of results, data sets and comparisons. Not here: the numbers themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.constant import Constant
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.results import Result
from pipeline.recipe import Backbone, Method, Recipe

ARM_LABELS: Mapping[str, str] = {
    "baseline": "Baseline",
    "imagenet": "ImageNet",
    "dcm": "DCM",
    "ce": "CE",
    "ce_dcm": "CE+DCM",
    "ce_dcm_frozen": "CE+DCM+F",
}
"""What the paper calls the arms (section 4.3)."""
BACKBONE_LABELS: Mapping[str, str] = {"vgg16_bn": "VGG16-BN", "resnet50": "ResNet-50"}


@dataclass(frozen=True)
class Inpainting:
    """How well a context encoder fills the hidden centre of validation images, in squared z-scores."""

    backbone: Backbone
    method: Method
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


def dataset_markdown(rows: Sequence[DatasetRow]) -> str:
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
    return _markdown(("Data set", "Task", *names), body, numbers_from=2)


def results_markdown(recipe: Recipe, results: Sequence[Result], predictions: pa.Table) -> str:
    """The results in the layout of the paper's Table 2: one table per fraction and seed of `recipe`.

    A cell is mean ± sd; the best of a backbone and task, as printed, is in bold; a cell without a number says
    "not run" or "diverged", and why stands below. `predictions` tell how many images and patients were trained on.
    """
    downstream = recipe.downstream
    sections = []
    for fraction, seed in product(downstream.fractions, downstream.seeds):
        here = [r for r in results if (r.fraction, r.seed) == (fraction, seed)]
        parts = [
            f"### {_percent(fraction)} of the training images, seed {seed}",
            _results_table(recipe, here).rstrip(),
            _trained_on(predictions, fraction, seed),
            _reasons(here),
        ]
        sections.append("\n\n".join(part for part in parts if part))
    return "\n\n".join(sections) + "\n"


def comparison_markdown(results: Iterable[Result], constants: Sequence[Constant]) -> str:
    """For each task, fraction and seed: the best constant predictor, the best arm, and how many arms are above."""
    scores = {constant.task: constant for constant in constants}
    regimes: dict[tuple[str, float, int], list[Result]] = {}
    for result in results:
        if result.status == "ran" and result.task in scores:
            regimes.setdefault((result.task, result.fraction, result.seed), []).append(result)
    body = [_comparison(scores[task], arms) for (task, _, _), arms in regimes.items()]
    head = ("Task", "Training images", "Seed", "Metric", "Best constant predictor", "Best arm", "Arms above it")
    return _markdown(head, body)


def inpainting_markdown(inpaintings: Iterable[Inpainting]) -> str:
    """For each context encoder: its error on validation images beside that of the mean training patch."""
    body = [
        (
            BACKBONE_LABELS[i.backbone],
            ARM_LABELS[i.method],
            f"{i.validation_mse:.3f}",
            f"{i.mean_patch_mse:.3f}",
            "yes" if i.validation_mse < i.mean_patch_mse else "no",
        )
        for i in inpaintings
    ]
    head = ("Backbone", "Pretraining", "Validation error (squared z-scores)", "Error of the mean patch", "Better?")
    return _markdown(head, body)


def _comparison(constant: Constant, arms: Sequence[Result]) -> tuple[str, ...]:
    best = max(arms, key=_mean)
    above = sum(_mean(arm) > constant.score for arm in arms)
    return (
        task_label(constant.task),
        _percent(best.fraction),
        str(best.seed),
        constant.metric,
        f"{constant.score:.3f} ({constant.predictor})",
        f"{_number(best)} ({_arm_label(best)})",
        f"{above} of {len(arms)}",
    )


def _results_table(recipe: Recipe, results: Sequence[Result]) -> str:
    found = {(r.backbone, r.arm, r.task): r for r in results}
    tasks = list(recipe.downstream.tasks)
    metrics = [METRICS[task.kind] for task in recipe.downstream.tasks.values()]
    body = []
    for backbone in recipe.pretraining.backbones:
        best = {task: _best_printed(r for r in results if (r.backbone, r.task) == (backbone, task)) for task in tasks}
        for arm in recipe.downstream.arms:
            numbers = [_cell(found.get((backbone, arm, task)), best[task]) for task in tasks]
            body.append((BACKBONE_LABELS[backbone], ARM_LABELS[arm], *numbers))
    columns = [f"{task_label(task)} ({metric})" for task, metric in zip(tasks, metrics, strict=True)]
    return _markdown(("Backbone", "Pretraining", *columns), body, numbers_from=2)


def _best_printed(results: Iterable[Result]) -> str:
    return max((f"{_mean(r):.3f}" for r in results if r.status == "ran"), default="")


def _cell(result: Result | None, best: str) -> str:
    if result is None or result.status != "ran":
        return result.status if result else "not run"
    return f"**{_number(result)}**" if f"{_mean(result):.3f}" == best else _number(result)


def _trained_on(predictions: pa.Table, fraction: float, seed: int) -> str:
    here = predictions.filter((pc.field("fraction") == fraction) & (pc.field("seed") == seed))
    sets = here.group_by(["task", "n_train", "n_train_patients"], use_threads=False).aggregate([]).to_pylist()
    said = (f"{task_label(s['task'])} {s['n_train']} images of {_patients(s['n_train_patients'])}" for s in sets)
    return f"Trained on: {'; '.join(said)}." if sets else ""


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _reasons(results: Iterable[Result]) -> str:
    """Why cells have no number, one line for all tasks of an arm that share the reason."""
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for r in results:
        if r.status != "ran":
            tasks.setdefault((_arm_label(r), r.status, r.reason), []).append(task_label(r.task))
    return "\n".join(f"- {arm}, {', '.join(names)}: {status}: {why}" for (arm, status, why), names in tasks.items())


def _mean(result: Result) -> float:
    """The mean of a result that ran."""
    assert result.mean is not None
    return result.mean


def _number(result: Result) -> str:
    return f"{_mean(result):.3f} ± {result.sd:.3f}"


def _arm_label(result: Result) -> str:
    return f"{BACKBONE_LABELS[result.backbone]} {ARM_LABELS[result.arm]}"


def task_label(name: str) -> str:
    """A task name as it is printed: `liver_kidney` is "Liver kidney"."""
    return name.replace("_", " ").capitalize()


def _percent(fraction: float) -> str:
    return f"{fraction * 100:g} %"


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]], numbers_from: int | None = None) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    first_number = len(head) if numbers_from is None else numbers_from
    rule = ["---" if i < first_number else "---:" for i in range(len(head))]
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (head, rule, *body)]
    return "\n".join(lines) + "\n"
