"""Results, differences, minimum detectable effects and all metrics as tables to read."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, product
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.differences import About, Difference
from pipeline.evaluation.display_names import (
    arm_label,
    backbone_label,
    metric_label,
    pair_label,
    percent,
    signed,
    task_label,
)
from pipeline.evaluation.document import Bold, Section, TableCell, TextTable
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.minimum_effect import MinimumEffect
from pipeline.evaluation.results import Result
from pipeline.evaluation.significance import FEWEST_SEEDS, LEVEL, WRONG_ABOUT_METHODS
from pipeline.evaluation.summaries import Summary, own_metric
from pipeline.recipe import Recipe

_Row = TypeVar("_Row", Difference, MinimumEffect)
_APPLIES_TO: Mapping[About, str] = {
    "models": "Intervals and p-values apply to the models fine-tuned with these seeds. They do not apply to the "
    f"pretrained encoders (this takes {FEWEST_SEEDS} fine-tuning seeds of one encoder) or to the pretraining methods "
    f"({FEWEST_SEEDS} pretraining seeds).",
    "encoders": "Intervals and p-values apply to the pretrained encoders: fine-tuning seeds were resampled as well as "
    f"patients. They do not apply to the pretraining methods (this takes {FEWEST_SEEDS} pretraining seeds).",
    "methods": "Intervals and p-values apply to the pretraining methods on this archive: pretraining seeds were "
    "resampled as well as patients.",
}


def results_sections(
    recipe: Recipe, results: Sequence[Result], rows: Sequence[Summary], predictions: pa.Table
) -> list[Section]:
    """The paper's Table 2: one section per fraction of the training images.

    A cell holds mean ± SD and, with several seeds, the SD between seeds. The best printed mean of each backbone and
    task is bold; only arms with all seeds compete. Cells without a number hold "not run" or "diverged", and the reasons
    follow the table.
    """
    return [
        Section(
            _fraction_and_seeds(recipe, fraction),
            _results_table(recipe, rows, fraction),
            _training_images(predictions, fraction),
            _reasons(recipe, [result for result in results if result.fraction == fraction]),
        )
        for fraction in recipe.downstream.fractions
    ]


def differences_sections(recipe: Recipe, rows: Sequence[Difference]) -> list[Section]:
    """One section per fraction: each declared difference with its interval and p-values."""
    return [
        Section(
            _fraction_and_seeds(recipe, fraction),
            _differences_table(recipe, family),
            [_applies_to(recipe, family[0].about)] if any(row.p is not None for row in family) else [],
            _row_reasons(recipe, family),
        )
        for fraction, family in _by_fraction(rows)
    ]


def minimum_effects_sections(recipe: Recipe, rows: Sequence[MinimumEffect]) -> list[Section]:
    """One section per fraction: the minimum detectable effect of each declared difference."""
    return [
        Section(
            _fraction_and_seeds(recipe, fraction),
            _minimum_effects_table(recipe, of_fraction),
            points=_row_reasons(recipe, of_fraction),
        )
        for fraction, of_fraction in _by_fraction(rows)
    ]


def _by_fraction(rows: Sequence[_Row]) -> list[tuple[float, list[_Row]]]:
    return [(fraction, list(group)) for fraction, group in groupby(rows, key=lambda row: row.fraction)]


def _applies_to(recipe: Recipe, about: About) -> str:
    few = about == "models" and len(recipe.pretraining.seeds) > 1
    return f"{_APPLIES_TO[about]} {few_seeds_warning(recipe)}" if few else _APPLIES_TO[about]


def few_seeds_warning(recipe: Recipe) -> str:
    """How often p-values of a few pretraining seeds mislead if they are read as a claim about methods."""
    return (
        f"With {len(recipe.pretraining.seeds)} pretraining seeds they do not apply to the methods: if methods do not "
        f"differ, three seeds give p ≤ {LEVEL:g} in {WRONG_ABOUT_METHODS * 100:.0f} % of simulated experiments."
    )


def metrics_sections(recipe: Recipe, rows: Sequence[Summary]) -> list[Section]:
    """All other metrics of the arms that ran: one section per task and fraction."""
    sections = []
    for task, fraction in product(recipe.downstream.tasks, recipe.downstream.fractions):
        ran = [row for row in rows if (row.task, row.fraction) == (task, fraction) and row.status == "ran"]
        if ran:
            heading = f"{task_label(task)}: {_fraction_and_seeds(recipe, fraction)}"
            sections.append(Section(heading, _metrics_table(recipe, ran)))
    return sections


def results_latex(recipe: Recipe, rows: Sequence[Summary], tested: Sequence[Difference]) -> str:
    """Results and differences of each fraction as LaTeX tables (package booktabs)."""
    tables = []
    for fraction in recipe.downstream.fractions:
        caption = f"of {recipe.name}: {_fraction_and_seeds(recipe, fraction)}."
        family = [row for row in tested if row.fraction == fraction]
        tables.append(_results_table(recipe, rows, fraction).latex(f"Results {caption}"))
        if family:
            tables.append(_differences_table(recipe, family).latex(f"Differences {caption}"))
    return "\n".join(tables)


def _results_table(recipe: Recipe, rows: Sequence[Summary], fraction: float) -> TextTable:
    found = {(r.backbone, r.arm, r.task): r for r in own_metric(recipe, rows) if r.fraction == fraction}
    tasks = recipe.downstream.tasks
    body: list[Sequence[TableCell]] = []
    for backbone in recipe.pretraining.backbones:
        complete = [row for row in found.values() if row.backbone == backbone and _has_all_seeds(recipe, row)]
        best = {name: _highest_printed(row for row in complete if row.task == name) for name in tasks}
        for arm in recipe.downstream.arms:
            cells = [_cell(recipe, found.get((backbone, arm, name)), best[name]) for name in tasks]
            body.append((backbone_label(backbone), arm_label(recipe, arm), *cells))
    columns = [f"{task_label(name)} ({metric_label(METRICS[task.kind])})" for name, task in tasks.items()]
    return TextTable(("Backbone", "Pretraining", *columns), body, numbers_from=2)


def _differences_table(recipe: Recipe, rows: Sequence[Difference]) -> TextTable:
    return TextTable.of(
        rows,
        {
            "Backbone": lambda row: backbone_label(row.backbone),
            "Task": _task_and_metric,
            "Compared": lambda row: pair_label(recipe, row.arm, row.against),
            "Difference [95 % interval]": _difference,
            "SD between seeds": lambda row: _optional(row.seed_sd, ".3f"),
            "p": lambda row: _p_value(row.p),
            f"p, Holm ({rows[0].family} test{'s' * (rows[0].family > 1)})": lambda row: _p_value(row.p_holm),
            "Test images (patients)": lambda row: _images(row.n_test, row.n_test_patients),
        },
        numbers_from=3,
    )


def _minimum_effects_table(recipe: Recipe, rows: Sequence[MinimumEffect]) -> TextTable:
    return TextTable.of(
        rows,
        {
            "Backbone": lambda row: backbone_label(row.backbone),
            "Task": _task_and_metric,
            "Compared": lambda row: pair_label(recipe, row.arm, row.against),
            "Smallest detectable difference": lambda row: _optional(row.smallest, ".3f"),
            "Expected standard error": lambda row: _optional(row.error, ".4f"),
            "Validation images (patients)": lambda row: _images(row.n_val, row.n_val_patients),
            "Test images (patients)": lambda row: _images(row.n_test, row.n_test_patients),
        },
        numbers_from=3,
    )


def _metrics_table(recipe: Recipe, rows: Sequence[Summary]) -> TextTable:
    own = METRICS[recipe.downstream.tasks[rows[0].task].kind]
    metrics = [name for name in dict.fromkeys(row.metric for row in rows) if name != own]
    found = {(row.backbone, row.arm, row.metric): row for row in rows}
    body = [
        (
            backbone_label(backbone),
            arm_label(recipe, arm),
            *(_number(recipe, found[backbone, arm, metric]) for metric in metrics),
        )
        for backbone, arm in dict.fromkeys((row.backbone, row.arm) for row in rows)
    ]
    return TextTable(("Backbone", "Pretraining", *map(metric_label, metrics)), body, numbers_from=2)


def _task_and_metric(row: Difference | MinimumEffect) -> str:
    return f"{task_label(row.task)} ({metric_label(row.metric)})"


def _row_reasons(recipe: Recipe, rows: Iterable[Difference | MinimumEffect]) -> list[str]:
    return [
        f"{pair_label(recipe, row.arm, row.against)}, {backbone_label(row.backbone)}, {task_label(row.task)}: "
        f"{row.reason}"
        for row in rows
        if row.reason
    ]


def _has_all_seeds(recipe: Recipe, row: Summary) -> bool:
    """Whether every seed ran: a mean without the diverged seeds would favour the arm."""
    return row.seeds == len(recipe.downstream.seeds)


def _highest_printed(rows: Iterable[Summary]) -> str:
    return max((f"{row.mean:.3f}" for row in rows if row.mean is not None), default="")


def _cell(recipe: Recipe, row: Summary | None, best: str) -> TableCell:
    if row is None or row.mean is None:
        return row.status if row else "not run"
    number = _number(recipe, row)
    return Bold(number) if f"{row.mean:.3f}" == best and _has_all_seeds(recipe, row) else number


def _number(recipe: Recipe, row: Summary) -> str:
    if row.mean is None:
        return "–"
    declared = len(recipe.downstream.seeds)
    notes = [f"seeds {row.seed_sd:.3f}"] if row.seed_sd is not None else []
    notes += [f"{row.seeds} of {declared} seeds"] if row.seeds < declared else []
    return f"{row.mean:.3f} ± {row.sd:.3f}" + (f" ({'; '.join(notes)})" if notes else "")


def _difference(row: Difference) -> str:
    if row.difference is None:
        return "not run"
    if row.low is None or row.high is None:
        return signed(row.difference)
    return f"{signed(row.difference)} [{signed(row.low)}, {signed(row.high)}]"


def _optional(number: float | None, form: str) -> str:
    return "–" if number is None else format(number, form)


def _p_value(p: float | None) -> str:
    return "<0.001" if p is not None and p < 0.001 else _optional(p, ".3f")


def _images(images: int | None, patients: int | None) -> str:
    return "–" if images is None else f"{images} ({patients})"


def _fraction_and_seeds(recipe: Recipe, fraction: float) -> str:
    first, *others = recipe.downstream.seeds
    seeds = f"mean over seeds {', '.join(map(str, (first, *others)))}" if others else f"seed {first}"
    return f"{percent(fraction)} of the training images, {seeds}"


def _training_images(predictions: pa.Table, fraction: float) -> list[str]:
    of_fraction = predictions.filter(pc.field("fraction") == fraction)
    sets = of_fraction.group_by(["task", "n_train", "n_train_patients"], use_threads=False).aggregate([]).to_pylist()
    counts = [f"{task_label(s['task'])} {s['n_train']} images of {_patients(s['n_train_patients'])}" for s in sets]
    return [f"Trained on: {'; '.join(counts)}."] if counts else []


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _reasons(recipe: Recipe, results: Iterable[Result]) -> list[str]:
    """Why there is no number: one line per arm and reason, with its tasks and seeds."""
    tasks: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for r in results:
        if r.status != "ran":
            arm = f"{backbone_label(r.backbone)} {arm_label(recipe, r.arm)}"
            tasks.setdefault((arm, r.status, r.reason), {}).setdefault(task_label(r.task), []).append(r.seed)
    return [
        f"{arm}, {', '.join(_with_seeds(recipe, name, seeds) for name, seeds in names.items())}: {status}: {reason}"
        for (arm, status, reason), names in tasks.items()
    ]


def _with_seeds(recipe: Recipe, task: str, seeds: Sequence[int]) -> str:
    """The task; its seeds follow in parentheses unless they are all seeds of the recipe."""
    if len(seeds) == len(recipe.downstream.seeds):
        return task
    return f"{task} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
