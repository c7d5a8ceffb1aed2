"""A recipe's reports, from what its experiment folder holds.

Belongs here: gathering outcomes, predictions and curves, and writing tables and figures from them. Not here: their
layout (`tables`, `figures`), and any training.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pyarrow as pa
import torch
from matplotlib.figure import Figure

from pipeline.downstream.predictions import PREDICTIONS, Cell, cells, read_predictions
from pipeline.downstream.tasks import task_images
from pipeline.evaluation.constant import Constant, best_constant
from pipeline.evaluation.differences import Difference, differences
from pipeline.evaluation.figures import (
    InpaintingRow,
    boxplots_figure,
    curves_figure,
    inpainting_figure,
    save_figure,
)
from pipeline.evaluation.results import Result, results_rows, write_csv
from pipeline.evaluation.results_tables import (
    differences_markdown,
    metrics_markdown,
    results_latex,
    results_markdown,
)
from pipeline.evaluation.summaries import Summary, summaries
from pipeline.evaluation.tables import (
    ARM_LABELS,
    BACKBONE_LABELS,
    DatasetRow,
    Inpainting,
    comparison_markdown,
    dataset_markdown,
    dataset_row,
    inpainting_markdown,
)
from pipeline.files import read_json, read_table, write_text
from pipeline.images.batches import center_patch
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.encoder_folder import CURVES, INPAINTING, Preprocessing
from pipeline.pretraining.pretrain import inpaint
from pipeline.recipe import PROBES, Backbone, Evaluation, Method, Recipe, Task
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome

CURVE_TITLES = {
    "dcm": {
        "train_loss": "label loss, training",
        "val_loss": "label loss, validation",
        "val_accuracy": "accuracy of labels, validation",
    },
    "ce": {
        "train_loss": "L_F, training",
        "val_loss": "L_F, validation",
        "val_mse": "squared error (z-scores²), validation",
        "val_diversity": "diversity of the inpainted, validation",
        "train_discriminator_loss": "L_D, training",
        "train_score_real": "D of the real, training",
        "train_score_inpainted": "D of the inpainted, training",
        "train_saturation": "D beyond the margin, training",
    },
}
"""What a panel of the training curves is called; DCM's loss is another function than L_F of CE and CE+DCM.

What follows from the panels shown has none: the reconstruction in training is L_F but for a thousandth.
"""
RESULTS_FILES = (
    *("results_table.csv", "metrics_table.csv", "differences_table.csv"),
    *("results_table.md", "results_table.tex"),
)
"""What `write_results` writes."""
INPAINTING_ROWS = 8
INPAINTING_METHODS: tuple[Method, ...] = ("ce", "ce_dcm")


@dataclass(frozen=True)
class ResultsReport:
    """What the results table was made of."""

    results: Sequence[Result]
    summaries: Sequence[Summary]
    differences: Sequence[Difference]
    constants: Sequence[Constant]
    inpaintings: Sequence[Inpainting]
    markdown: str


def write_results(recipe: Recipe, experiment: Experiment) -> ResultsReport:
    """Write the paper's Table 2, the differences that the recipe declares, all metrics, and what to compare them with.

    Files: results_table.csv, metrics_table.csv and differences_table.csv; results_table.md with all of it;
    results_table.tex with results and differences.
    """
    report = _results_report(recipe, experiment)
    results, metrics, tested, markdown, latex = (experiment.reports / name for name in RESULTS_FILES)
    write_csv(results, Result, report.results)
    write_csv(metrics, Summary, report.summaries)
    write_csv(tested, Difference, report.differences)
    write_text(markdown, report.markdown)
    write_text(latex, results_latex(recipe, report.summaries, report.differences))
    return report


def write_dataset_table(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> str:
    """Write dataset_table.csv and .md (paper Table 1): the pool and every task, images and patients by split."""
    rows = [dataset_row("Archive", "Semantic inpainting", pool)]
    for name, task in recipe.downstream.tasks.items():
        path = experiment.task_images(name)
        if path.is_file():
            kind = "ordinal classification" if task.kind == "ordinal" else "segmentation"
            label = name.replace("_", " ").capitalize()
            rows.append(dataset_row(label, kind, read_table(path).select(["patient", "split"])))
    write_csv(experiment.reports / "dataset_table.csv", DatasetRow, rows)
    markdown = dataset_markdown(rows)
    write_text(experiment.reports / "dataset_table.md", f"# Data sets of the recipe {recipe.name}\n\n{markdown}\n")
    return markdown


def write_inpainting_figure(recipe: Recipe, experiment: Experiment, pool: PretrainingSet) -> list[Path]:
    """Write inpainting.png, one per backbone where there are two (paper Figure 5); none without a context encoder."""
    paths = []
    for backbone in recipe.pretraining.backbones:
        trained = [method for method in INPAINTING_METHODS if _ran(experiment.encoder(backbone, method))]
        if trained:
            folders = [experiment.encoder(backbone, method) for method in trained]
            figure = inpainting_figure(_inpainting_rows(pool, folders), [ARM_LABELS[method] for method in trained])
            paths.append(_save(recipe, experiment, "inpainting", backbone, figure))
    return paths


def write_training_curves(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Write training_curves.png, one per backbone where there are two, of the encoders that were trained."""
    paths = []
    for backbone in recipe.pretraining.backbones:
        files = {method: experiment.encoder(backbone, method) / CURVES for method in recipe.pretraining.methods}
        curves = {ARM_LABELS[method]: _curves(path, method) for method, path in files.items() if path.is_file()}
        if curves:
            figure = curves_figure(f"Pretraining of {BACKBONE_LABELS[backbone]}", curves)
            paths.append(_save(recipe, experiment, "training_curves", backbone, figure))
    return paths


def write_boxplots(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Write boxplots.png of the first regime, boxplots_fraction-F_seed-S.png of others (paper Figure 6).

    Nothing where the recipe has no task.
    """
    if not recipe.downstream.tasks:
        return []
    predictions = predictions_of(recipe, experiment)
    constants = _constants(recipe, experiment)
    paths = []
    for place, (fraction, seed) in enumerate(product(recipe.downstream.fractions, recipe.downstream.seeds)):
        suffix = "" if place == 0 else f"_fraction-{fraction:g}_seed-{seed}"
        path = experiment.reports / f"boxplots{suffix}.png"
        save_figure(boxplots_figure(recipe, predictions, fraction, seed, constants), path)
        paths.append(path)
    return paths


def predictions_of(recipe: Recipe, experiment: Experiment) -> pa.Table:
    """All predictions that this experiment holds for the arms and tasks of `recipe`.

    Raises `UserError` where another version wrote them.
    """
    places = {(cell.backbone, cell.arm, cell.task): None for cell in cells(recipe)}
    paths = (experiment.predictions(*place) for place in places)
    return pa.concat_tables([PREDICTIONS.empty_table(), *(read_predictions(path) for path in paths if path.is_file())])


def _results_report(recipe: Recipe, experiment: Experiment) -> ResultsReport:
    predictions = predictions_of(recipe, experiment)
    results = results_rows(recipe, _outcomes(recipe, experiment), predictions)
    rows, tested = summaries(recipe, results, predictions), differences(recipe, results, predictions)
    constants, inpaintings = _constants(recipe, experiment), _inpaintings(recipe, experiment)
    parts = [
        f"# Results of the recipe {recipe.name}",
        _what_is_printed(recipe.evaluation),
        results_markdown(recipe, results, rows, predictions),
        "## Is one arm better than another?",
        _what_is_tested(recipe.evaluation) if tested else "The recipe compares no arms.",
        differences_markdown(recipe, tested),
        "## All metrics",
        metrics_markdown(recipe, rows) or "No arm ran.",
        "## Is it better than a constant?",
        comparison_markdown(results, constants) if constants else "No task has been prepared.",
        "## Is the inpainting better than the mean?",
        inpainting_markdown(inpaintings) if inpaintings else "No context encoder has been trained.",
    ]
    markdown = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
    return ResultsReport(results, rows, tested, constants, inpaintings, markdown)


def _what_is_printed(settings: Evaluation) -> str:
    return (
        f"Metric on the whole test set ± its standard deviation over {settings.resamples} bootstrap resamples of "
        f"{settings.resample_share:.0%} of the test images; after it, where there are several seeds, the standard "
        "deviation from seed to seed. Best of a backbone in bold."
    )


def _what_is_tested(settings: Evaluation) -> str:
    return (
        f"Paired, whole patients resampled {settings.test_resamples:,} times, two-sided; Holm's p-values hold for all "
        "tests of a table together. What is tested and what is not: docs/evaluation.md."
    )


def _outcomes(recipe: Recipe, experiment: Experiment) -> dict[Cell, Outcome]:
    found = {c: Outcome.read(experiment.model(c.backbone, c.arm, c.task, c.fraction, c.seed)) for c in cells(recipe)}
    return {cell: outcome for cell, outcome in found.items() if outcome is not None}


def _constants(recipe: Recipe, experiment: Experiment) -> list[Constant]:
    def constant(name: str, task: Task) -> Constant:
        return best_constant(name, task, task_images(read_table(experiment.task_images(name)), task, recipe.images))

    tasks = recipe.downstream.tasks.items()
    return [constant(name, task) for name, task in tasks if experiment.task_images(name).is_file()]


def _inpaintings(recipe: Recipe, experiment: Experiment) -> list[Inpainting]:
    found = []
    for backbone, method in product(recipe.pretraining.backbones, INPAINTING_METHODS):
        path = experiment.encoder(backbone, method) / INPAINTING
        if path.is_file():
            report = read_json(path)
            found.append(Inpainting(backbone, method, report["validation_mse"], report["mean_patch_mse"]))
    return found


def _inpainting_rows(pool: PretrainingSet, folders: Sequence[Path]) -> list[InpaintingRow]:
    chosen = _one_per_group(pool)
    (originals_NHW,) = pool.images.batches([torch.tensor(chosen)])
    hidden_NHW = originals_NHW.clone()
    center_patch(hidden_NHW).fill_(round(Preprocessing.read(folders[0]).mean))  # what the encoder sees there
    inpainted = [inpaint(folder, originals_NHW) for folder in folders]
    return [
        InpaintingRow(
            _groups_of(pool, image),
            originals_NHW[row].numpy(),
            hidden_NHW[row].numpy(),
            [method[row].numpy() for method in inpainted],
        )
        for row, image in enumerate(chosen)
    ]


def _one_per_group(pool: PretrainingSet) -> list[int]:
    """Validation images, the first of each group that has one; of a pool without labels the first ones."""
    chosen: list[int] = []
    validation = pool.val.tolist()
    for column, name in enumerate(pool.label_names):
        of_group = [image for image in validation if pool.labels_NL[image, column] and image not in chosen]
        if name not in PROBES and of_group:
            chosen.append(of_group[0])
    return (chosen or validation)[:INPAINTING_ROWS]


def _groups_of(pool: PretrainingSet, image: int) -> str:
    carried = pool.labels_NL[image].tolist()
    names = [n for n, value in zip(pool.label_names, carried, strict=True) if value and n not in PROBES]
    return ", ".join(names)


def _save(recipe: Recipe, experiment: Experiment, name: str, backbone: Backbone, figure: Figure) -> Path:
    """Save under `name` alone where the recipe has one backbone, else under both."""
    alone = len(recipe.pretraining.backbones) == 1
    path = experiment.reports / (f"{name}.png" if alone else f"{name}_{backbone}.png")
    save_figure(figure, path)
    return path


def _ran(folder: Path) -> bool:
    outcome = Outcome.read(folder)
    return outcome is not None and outcome.status == "ran"


def _curves(path: Path, method: Method) -> dict[str, list[float]]:
    """The curves of a trained encoder, under the titles of their panels."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    titles = CURVE_TITLES["dcm" if method == "dcm" else "ce"]
    return {title: [float(row[name]) for row in rows] for name, title in titles.items()}
