"""Results, their differences and all their metrics, as they are read.

Belongs here: the wording of these tables and of what stands below them. Not here: the numbers themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.differences import About, Difference
from pipeline.evaluation.document import Bold, Section, TextTable
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.minimum_effect import MinimumEffect
from pipeline.evaluation.results import Result
from pipeline.evaluation.significance import FEWEST_SEEDS, LEVEL, WRONG_ABOUT_METHODS
from pipeline.evaluation.summaries import Summary, own_metric
from pipeline.evaluation.tables import BACKBONE_LABELS, arm_label, metric_label, pair_label, percent, task_label
from pipeline.recipe import Recipe

_ABOUT: Mapping[About, str] = {
    "models": "Intervals and p-values are about the models fine-tuned with these seeds, not about the encoders that "
    f"they started from (that takes {FEWEST_SEEDS} seeds of one encoder), nor about the methods of pretraining (that "
    f"takes {FEWEST_SEEDS} pretraining seeds).",
    "encoders": "Intervals and p-values are about the pretrained encoders: fine-tuning seeds were resampled as well as "
    f"patients. They are not about the methods of pretraining: that takes {FEWEST_SEEDS} pretraining seeds.",
    "methods": "Intervals and p-values are about the methods of pretraining, on this archive: pretraining seeds were "
    "resampled as well as patients.",
}


def results_sections(
    recipe: Recipe, results: Sequence[Result], rows: Sequence[Summary], predictions: pa.Table
) -> list[Section]:
    """The layout of the paper's Table 2: one section per fraction of the training images.

    A cell is mean ± sd, and the deviation from seed to seed where there are several; the best of a backbone and task,
    as printed, is in bold, of the arms all of whose seeds ran. What has no number says "not run" or "diverged", and
    why, seed by seed, stands below.
    """
    return [
        Section(
            _regime(recipe, fraction),
            _results_table(recipe, rows, fraction),
            _trained_on(predictions, fraction),
            _reasons(recipe, [result for result in results if result.fraction == fraction]),
        )
        for fraction in recipe.downstream.fractions
    ]


def differences_sections(recipe: Recipe, rows: Sequence[Difference]) -> list[Section]:
    """One section per fraction: each difference that the recipe declares, its interval and its p-values."""
    sections = []
    for fraction, of_regime in groupby(rows, key=lambda row: row.fraction):
        regime = list(of_regime)
        reasons = [f"{_pair(recipe, row)}, {_place(row)}: {row.reason}" for row in regime if row.reason]
        notes = _notes(recipe, regime[0].about) if any(row.p is not None for row in regime) else []
        sections.append(Section(_regime(recipe, fraction), _differences_table(recipe, regime), notes, reasons))
    return sections


def _notes(recipe: Recipe, about: About) -> list[str]:
    """What intervals and p-values are about, and how often they mislead who reads more into them."""
    few = about == "models" and len(recipe.pretraining.seeds) > 1
    return [f"{_ABOUT[about]} {misread(recipe)}" if few else _ABOUT[about]]


def misread(recipe: Recipe) -> str:
    """How wrong it is to read the p-values of a few pretraining seeds as a claim about methods."""
    return (
        f"With {len(recipe.pretraining.seeds)} pretraining seeds they say nothing of the methods: where methods do not "
        f"differ, three seeds give p ≤ {LEVEL:g} in {WRONG_ABOUT_METHODS:.0%} of simulated experiments."
    ).replace("%", " %")


def minimum_effects_sections(recipe: Recipe, rows: Sequence[MinimumEffect]) -> list[Section]:
    """One section per fraction: how large each difference must be to be found, or why that cannot be told."""
    sections = []
    for fraction, of_regime in groupby(rows, key=lambda row: row.fraction):
        regime = list(of_regime)
        reasons = [f"{_pair(recipe, row)}, {_place(row)}: {row.reason}" for row in regime if row.reason]
        sections.append(Section(_regime(recipe, fraction), _minimum_effects_table(recipe, regime), points=reasons))
    return sections


def metrics_sections(recipe: Recipe, rows: Sequence[Summary]) -> list[Section]:
    """All other metrics of the arms that ran: one section per task and fraction."""
    sections = []
    for task in recipe.downstream.tasks:
        for fraction in recipe.downstream.fractions:
            here = [row for row in rows if (row.task, row.fraction) == (task, fraction) and row.status == "ran"]
            if here:
                heading = f"{task_label(task)}: {_regime(recipe, fraction)}"
                sections.append(Section(heading, _metrics_table(recipe, here)))
    return sections


def results_latex(recipe: Recipe, rows: Sequence[Summary], tested: Sequence[Difference]) -> str:
    """Results and differences as LaTeX tables, one after the other (package booktabs)."""
    tables = []
    for fraction in recipe.downstream.fractions:
        regime = _regime(recipe, fraction)
        differences = [row for row in tested if row.fraction == fraction]
        tables.append(_results_table(recipe, rows, fraction).latex(f"Results of {recipe.name}: {regime}."))
        if differences:
            tables.append(_differences_table(recipe, differences).latex(f"Differences of {recipe.name}: {regime}."))
    return "\n".join(tables)


def _results_table(recipe: Recipe, rows: Sequence[Summary], fraction: float) -> TextTable:
    found = {(r.backbone, r.arm, r.task): r for r in own_metric(recipe, rows) if r.fraction == fraction}
    tasks = recipe.downstream.tasks
    body = []
    for backbone in recipe.pretraining.backbones:
        whole = [row for row in found.values() if row.backbone == backbone and _every_seed_ran(recipe, row)]
        best = {name: _best_printed(row for row in whole if row.task == name) for name in tasks}
        for arm in recipe.downstream.arms:
            cells = [_cell(recipe, found.get((backbone, arm, name)), best[name]) for name in tasks]
            body.append((BACKBONE_LABELS[backbone], arm_label(recipe, arm), *cells))
    columns = [f"{task_label(name)} ({metric_label(METRICS[task.kind])})" for name, task in tasks.items()]
    return TextTable(("Backbone", "Pretraining", *columns), body, numbers_from=2)


def _differences_table(recipe: Recipe, rows: Sequence[Difference]) -> TextTable:
    body = [
        (
            BACKBONE_LABELS[row.backbone],
            f"{task_label(row.task)} ({metric_label(row.metric)})",
            _pair(recipe, row),
            _difference(row),
            "–" if row.seed_sd is None else f"{row.seed_sd:.3f}",
            _p_value(row.p),
            _p_value(row.p_holm),
            _images(row.n_test, row.n_test_patients),
        )
        for row in rows
    ]
    head = (
        *("Backbone", "Task", "Compared", "Difference [95 % interval]", "sd of seeds", "p"),
        *(f"p, Holm ({rows[0].family} test{'s' * (rows[0].family > 1)})", "Test images (patients)"),
    )
    return TextTable(head, body, numbers_from=3)


def _minimum_effects_table(recipe: Recipe, rows: Sequence[MinimumEffect]) -> TextTable:
    body = [
        (
            BACKBONE_LABELS[row.backbone],
            f"{task_label(row.task)} ({metric_label(row.metric)})",
            _pair(recipe, row),
            "–" if row.smallest is None else f"{row.smallest:.3f}",
            "–" if row.error is None else f"{row.error:.4f}",
            _images(row.n_val, row.n_val_patients),
            _images(row.n_test, row.n_test_patients),
        )
        for row in rows
    ]
    sets = ("Validation images (patients)", "Test images (patients)")
    head = ("Backbone", "Task", "Compared", "Smallest difference", "Expected standard error", *sets)
    return TextTable(head, body, numbers_from=3)


def _images(images: int | None, patients: int | None) -> str:
    return "–" if images is None else f"{images} ({patients})"


def _metrics_table(recipe: Recipe, rows: Sequence[Summary]) -> TextTable:
    own = METRICS[recipe.downstream.tasks[rows[0].task].kind]
    metrics = [name for name in dict.fromkeys(row.metric for row in rows) if name != own]
    found = {(row.backbone, row.arm, row.metric): row for row in rows}
    body = [
        (
            BACKBONE_LABELS[backbone],
            arm_label(recipe, arm),
            *(_number(recipe, found[backbone, arm, m]) for m in metrics),
        )
        for backbone, arm in dict.fromkeys((row.backbone, row.arm) for row in rows)
    ]
    return TextTable(("Backbone", "Pretraining", *map(metric_label, metrics)), body, numbers_from=2)


def _every_seed_ran(recipe: Recipe, row: Summary) -> bool:
    """Whether none is missing: a mean without the seeds that diverged would favour the arm."""
    return row.seeds == len(recipe.downstream.seeds)


def _best_printed(rows: Iterable[Summary]) -> str:
    return max((f"{row.mean:.3f}" for row in rows if row.mean is not None), default="")


def _cell(recipe: Recipe, row: Summary | None, best: str) -> str:
    if row is None or row.mean is None:
        return row.status if row else "not run"
    number = _number(recipe, row)
    return Bold(number) if f"{row.mean:.3f}" == best and _every_seed_ran(recipe, row) else number


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
        return _signed(row.difference)
    return f"{_signed(row.difference)} [{_signed(row.low)}, {_signed(row.high)}]"


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _pair(recipe: Recipe, row: Difference | MinimumEffect) -> str:
    return pair_label(recipe, row.arm, row.against)


def _place(row: Difference | MinimumEffect) -> str:
    return f"{BACKBONE_LABELS[row.backbone]}, {task_label(row.task)}"


def _regime(recipe: Recipe, fraction: float) -> str:
    first, *others = recipe.downstream.seeds
    seeds = f"mean over seeds {', '.join(map(str, (first, *others)))}" if others else f"seed {first}"
    return f"{percent(fraction)} of the training images, {seeds}"


def _trained_on(predictions: pa.Table, fraction: float) -> list[str]:
    here = predictions.filter(pc.field("fraction") == fraction)
    sets = here.group_by(["task", "n_train", "n_train_patients"], use_threads=False).aggregate([]).to_pylist()
    said = (f"{task_label(s['task'])} {s['n_train']} images of {_patients(s['n_train_patients'])}" for s in sets)
    return [f"Trained on: {'; '.join(said)}."] if sets else []


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _reasons(recipe: Recipe, results: Iterable[Result]) -> list[str]:
    """Why there is no number, one line for all tasks and seeds of an arm that share the reason."""
    tasks: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for r in results:
        if r.status != "ran":
            arm = f"{BACKBONE_LABELS[r.backbone]} {arm_label(recipe, r.arm)}"
            tasks.setdefault((arm, r.status, r.reason), {}).setdefault(task_label(r.task), []).append(r.seed)
    return [
        f"{arm}, {', '.join(_with_seeds(recipe, name, seeds) for name, seeds in names.items())}: {status}: {why}"
        for (arm, status, why), names in tasks.items()
    ]


def _with_seeds(recipe: Recipe, task: str, seeds: Sequence[int]) -> str:
    """The task, with the seeds in parentheses where they are not all of the recipe's."""
    some = len(seeds) < len(recipe.downstream.seeds)
    return f"{task} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})" if some else task
