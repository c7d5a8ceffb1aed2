"""A recipe's reports, from what its experiment folder holds.

Belongs here: gathering outcomes and predictions, and writing tables from them. Not here: their layout (`tables`),
figures (`report_figures`), and any training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pyarrow as pa

from pipeline.downstream.predictions import PREDICTIONS, Cell, cells, read_predictions
from pipeline.downstream.tasks import task_images
from pipeline.evaluation.constant import Constant, best_constant
from pipeline.evaluation.differences import Difference, differences
from pipeline.evaluation.layout import Chapter, Section
from pipeline.evaluation.results import Result, results_rows, write_csv
from pipeline.evaluation.results_tables import (
    differences_sections,
    metrics_sections,
    results_latex,
    results_sections,
)
from pipeline.evaluation.summaries import Summary, summaries
from pipeline.evaluation.tables import (
    DatasetRow,
    Inpainting,
    comparison_grid,
    dataset_grid,
    dataset_row,
    inpainting_grid,
)
from pipeline.files import read_json, read_table, write_text
from pipeline.pretraining.encoder_folder import INPAINTING
from pipeline.recipe import Evaluation, Recipe, Task
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome

RESULTS_FILES = (
    *("results_table.csv", "metrics_table.csv", "differences_table.csv"),
    *("results_table.md", "results_table.tex"),
)
"""What `write_results` writes."""


@dataclass(frozen=True)
class ResultsReport:
    """What the results table was made of, and how it reads: its chapters are of one anchor each."""

    recipe: str
    results: Sequence[Result]
    summaries: Sequence[Summary]
    differences: Sequence[Difference]
    constants: Sequence[Constant]
    inpaintings: Sequence[Inpainting]
    chapters: Sequence[Chapter]

    @property
    def markdown(self) -> str:
        """All of it as one Markdown file."""
        return "\n".join((f"# Results of the recipe {self.recipe}\n", *(part.markdown() for part in self.chapters)))


def write_results(recipe: Recipe, experiment: Experiment) -> ResultsReport:
    """Write the paper's Table 2, the differences that the recipe declares, all metrics, and what to compare them with.

    Files: results_table.csv, metrics_table.csv and differences_table.csv; results_table.md with all of it;
    results_table.tex with results and differences.
    """
    report = results_report(recipe, experiment)
    results, metrics, tested, markdown, latex = (experiment.reports / name for name in RESULTS_FILES)
    write_csv(results, Result, report.results)
    write_csv(metrics, Summary, report.summaries)
    write_csv(tested, Difference, report.differences)
    write_text(markdown, report.markdown)
    write_text(latex, results_latex(recipe, report.summaries, report.differences))
    return report


def write_dataset_table(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> str:
    """Write dataset_table.csv and .md (paper Table 1), `dataset_rows`; returns the table in Markdown."""
    rows = dataset_rows(recipe, experiment, pool)
    write_csv(experiment.reports / "dataset_table.csv", DatasetRow, rows)
    markdown = dataset_grid(rows).markdown()
    write_text(experiment.reports / "dataset_table.md", f"# Data sets of the recipe {recipe.name}\n\n{markdown}\n")
    return markdown


def dataset_rows(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> list[DatasetRow]:
    """The pool and every task that has been prepared: images and patients by split."""
    rows = [dataset_row("Archive", "Semantic inpainting", pool)]
    for name, task in recipe.downstream.tasks.items():
        path = experiment.task_images(name)
        if path.is_file():
            kind = "ordinal classification" if task.kind == "ordinal" else "segmentation"
            label = name.replace("_", " ").capitalize()
            rows.append(dataset_row(label, kind, read_table(path).select(["patient", "split"])))
    return rows


def predictions_of(recipe: Recipe, experiment: Experiment) -> pa.Table:
    """All predictions that this experiment holds for the arms and tasks of `recipe`.

    Raises `UserError` where another version wrote them.
    """
    places = {(cell.backbone, cell.arm, cell.task): None for cell in cells(recipe)}
    paths = (experiment.predictions(*place) for place in places)
    return pa.concat_tables([PREDICTIONS.empty_table(), *(read_predictions(path) for path in paths if path.is_file())])


def results_report(recipe: Recipe, experiment: Experiment) -> ResultsReport:
    """All that can be said of the recipe's arms, from the predictions and outcomes that `experiment` holds."""
    predictions = predictions_of(recipe, experiment)
    results = results_rows(recipe, _outcomes(recipe, experiment), predictions)
    rows, tested = summaries(recipe, results, predictions), differences(recipe, results, predictions)
    constants, inpaintings = constants_of(recipe, experiment), _inpaintings(recipe, experiment)
    chapters = [
        Chapter(
            "results",
            "What did each arm reach?",
            [_what_is_printed(recipe.evaluation)],
            results_sections(recipe, results, rows, predictions),
        ),
        Chapter(
            "differences",
            "Is one arm better than another?",
            [_what_is_tested(recipe.evaluation) if tested else "The recipe compares no arms."],
            differences_sections(recipe, tested),
        ),
        _chapter("metrics", "All metrics", metrics_sections(recipe, rows), "No arm ran."),
        _chapter(
            "constants",
            "Is it better than a constant?",
            [Section("", comparison_grid(recipe, results, constants))] if constants else [],
            "No task has been prepared.",
        ),
        _chapter(
            "inpainting",
            "Is the inpainting better than the mean?",
            [Section("", inpainting_grid(recipe, inpaintings))] if inpaintings else [],
            "No context encoder has been trained.",
        ),
    ]
    return ResultsReport(recipe.name, results, rows, tested, constants, inpaintings, chapters)


def _chapter(anchor: str, title: str, sections: Sequence[Section], otherwise: str) -> Chapter:
    """A chapter of tables, or the sentence `otherwise` where there is none."""
    return Chapter(anchor, title, [] if sections else [otherwise], sections)


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


def constants_of(recipe: Recipe, experiment: Experiment) -> list[Constant]:
    """The best constant predictor of every task that has been prepared."""

    def constant(name: str, task: Task) -> Constant:
        return best_constant(name, task, task_images(read_table(experiment.task_images(name)), task, recipe.images))

    tasks = recipe.downstream.tasks.items()
    return [constant(name, task) for name, task in tasks if experiment.task_images(name).is_file()]


def _inpaintings(recipe: Recipe, experiment: Experiment) -> list[Inpainting]:
    found = []
    settings = recipe.pretraining
    for backbone, encoder, seed in product(settings.backbones, settings.context_encoders, settings.seeds):
        path = experiment.encoder(backbone, encoder, seed) / INPAINTING
        if path.is_file():
            report = read_json(path)
            found.append(Inpainting(backbone, encoder, seed, report["validation_mse"], report["mean_patch_mse"]))
    return found
