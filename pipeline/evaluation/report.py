"""A recipe's reports, from what its experiment folder holds.

Belongs here: gathering outcomes and predictions, and writing tables from them. Not here: how they read (`tables`,
`layout`), figures (`report_figures`), and any training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.downstream.predictions import PREDICTIONS, TEST, VALIDATION, Cell, cells, read_predictions
from pipeline.downstream.task_images import task_images
from pipeline.evaluation.constant import Constant, best_constant
from pipeline.evaluation.differences import Difference, differences
from pipeline.evaluation.document import Chapter, Section
from pipeline.evaluation.minimum_effect import POWER, MinimumEffect, minimum_effects
from pipeline.evaluation.mode_collapse import (
    COLLAPSED_BELOW,
    SATURATION,
    ModeCollapse,
    Training,
    mean_by_epoch,
    mode_collapses,
    trainings_of,
)
from pipeline.evaluation.results import Result, results_rows, write_csv
from pipeline.evaluation.results_tables import (
    differences_sections,
    metrics_sections,
    minimum_effects_sections,
    results_latex,
    results_sections,
)
from pipeline.evaluation.summaries import Summary, summaries
from pipeline.evaluation.tables import (
    DatasetRow,
    Inpainting,
    constant_comparison_table,
    dataset_row,
    dataset_table,
    epochs_table,
    inpainting_table,
    mode_collapse_table,
    percent,
)
from pipeline.evaluation.training_time import training_time_table
from pipeline.files import read_json, read_table, write_text
from pipeline.methods.ce import INPAINTING
from pipeline.pretraining.curves import ADVERSARIAL_SHARE, SHARE_AT_THE_PATCH
from pipeline.recipe import Evaluation, Recipe, Task
from pipeline.store import Experiment
from pipeline.training.outcome import Outcome

RESULTS_FILES = (
    *("results_table.csv", "metrics_table.csv", "differences_table.csv", "detectable_table.csv", "collapse_table.csv"),
    *("results_table.md", "results_table.tex"),
)
"""What `write_results` writes."""


@dataclass(frozen=True)
class Evidence:
    """All that a report is computed from: of an experiment's folder, or as it was published (`publication`).

    `predictions` and `validation` are those of test and of validation images, of schema `PREDICTIONS` (published ones
    hold distances in place of masks); `test_images` says how many test images each patient of a task has.
    """

    recipe: Recipe
    outcomes: Mapping[Cell, Outcome]
    predictions: pa.Table
    validation: pa.Table
    test_images: Mapping[str, Sequence[int]]
    constants: Sequence[Constant]
    inpaintings: Sequence[Inpainting]
    trainings: Sequence[Training]


@dataclass(frozen=True)
class ResultsReport:
    """What the results table was made of, and how it reads: its chapters are of one anchor each."""

    recipe: str
    results: Sequence[Result]
    summaries: Sequence[Summary]
    differences: Sequence[Difference]
    minimum_effects: Sequence[MinimumEffect]
    mode_collapses: Sequence[ModeCollapse]
    constants: Sequence[Constant]
    inpaintings: Sequence[Inpainting]
    chapters: Sequence[Chapter]

    @property
    def markdown(self) -> str:
        """All of it as one Markdown file."""
        return "\n".join((f"# Results of the recipe {self.recipe}\n", *(part.markdown() for part in self.chapters)))


def write_results(recipe: Recipe, experiment: Experiment) -> ResultsReport:
    """Write the paper's Table 2, the differences that the recipe declares, all metrics, and what to compare them with.

    Files: `RESULTS_FILES`. A CSV holds one kind of row; results_table.md holds all of it, results_table.tex results and
    differences.
    """
    report = results_report(evidence_of(recipe, experiment))
    results, metrics, tested, minimum, collapsed, markdown, latex = (
        experiment.reports / name for name in RESULTS_FILES
    )
    write_csv(results, Result, report.results)
    write_csv(metrics, Summary, report.summaries)
    write_csv(tested, Difference, report.differences)
    write_csv(minimum, MinimumEffect, report.minimum_effects)
    write_csv(collapsed, ModeCollapse, report.mode_collapses)
    write_text(markdown, report.markdown)
    write_text(latex, results_latex(recipe, report.summaries, report.differences))
    return report


def write_dataset_table(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> str:
    """Write dataset_table.csv and .md (paper Table 1), `dataset_rows`; returns the table in Markdown."""
    rows = dataset_rows(recipe, experiment, pool)
    write_csv(experiment.reports / "dataset_table.csv", DatasetRow, rows)
    markdown = dataset_table(rows).markdown()
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
    """The predictions of test images of those models of `recipe` that ran in this experiment.

    Raises `UserError` where another version wrote them.
    """
    return _predictions_of_models(recipe, experiment, TEST)


def validation_of(recipe: Recipe, experiment: Experiment) -> pa.Table:
    """The same of validation images.

    Raises `UserError` where another version wrote them.
    """
    return _predictions_of_models(recipe, experiment, VALIDATION)


def _predictions_of_models(recipe: Recipe, experiment: Experiment, name: str) -> pa.Table:
    """The tables `name` in the folders of the models that ran, so that they are of the outcome beside them."""
    ran = [cell for cell, outcome in outcomes_of(recipe, experiment).items() if outcome.status == "ran"]
    paths = [experiment.model(c.backbone, c.arm, c.task, c.fraction, c.seed) / name for c in ran]
    found = [read_predictions(path).replace_schema_metadata() for path in paths]
    return pa.concat_tables([PREDICTIONS.empty_table(), *found])


def images_by_test_patient(recipe: Recipe, experiment: Experiment) -> dict[str, list[int]]:
    """How many test images each patient has, of every task that has been prepared; ascending."""
    found = {}
    for name in recipe.downstream.tasks:
        path = experiment.task_images(name)
        if path.is_file():
            images = read_table(path, ["patient", "split"])
            patients = images.filter(pc.equal(images["split"], "test"))["patient"]
            found[name] = sorted(pc.value_counts(patients).field("counts").to_pylist())
    return found


def evidence_of(recipe: Recipe, experiment: Experiment) -> Evidence:
    """All that this experiment holds for `recipe`."""
    return Evidence(
        recipe,
        outcomes_of(recipe, experiment),
        predictions_of(recipe, experiment),
        validation_of(recipe, experiment),
        images_by_test_patient(recipe, experiment),
        constants_of(recipe, experiment),
        _inpaintings(recipe, experiment),
        trainings_of(recipe, experiment),
    )


def results_report(evidence: Evidence) -> ResultsReport:
    """All that can be said of the arms of a recipe."""
    recipe, predictions = evidence.recipe, evidence.predictions
    results = results_rows(recipe, evidence.outcomes, predictions)
    rows, tested = summaries(recipe, results, predictions), differences(recipe, results, predictions)
    minimum = minimum_effects(recipe, evidence.validation, evidence.test_images)
    collapsed = mode_collapses(recipe, evidence.trainings)
    chapters = [
        *(minimum_effects_chapter(recipe, minimum), *_arms_chapters(evidence, results, rows, tested)),
        *_pretraining_chapters(evidence, collapsed),
    ]
    parts = (results, rows, tested, minimum, collapsed, evidence.constants, evidence.inpaintings)
    return ResultsReport(recipe.name, *parts, chapters)


def minimum_effects_chapter(recipe: Recipe, minimum: Sequence[MinimumEffect]) -> Chapter:
    """What the test sets could show, which can be said before a prediction of a test image is read."""
    says = _WHAT_COULD_BE_SEEN if minimum else "The recipe compares no arms."
    return Chapter("detectable", "What could be seen?", [says], minimum_effects_sections(recipe, minimum))


def _arms_chapters(
    evidence: Evidence, results: Sequence[Result], rows: Sequence[Summary], tested: Sequence[Difference]
) -> list[Chapter]:
    recipe, constants = evidence.recipe, evidence.constants
    return [
        Chapter(
            "results",
            "What did each arm reach?",
            [_what_is_printed(recipe.evaluation)],
            results_sections(recipe, results, rows, evidence.predictions),
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
            [Section("", constant_comparison_table(recipe, results, constants), [_HOW_CONSTANTS_ARE_MADE])]
            if constants
            else [],
            "No task has been prepared.",
        ),
    ]


def _pretraining_chapters(evidence: Evidence, collapsed: Sequence[ModeCollapse]) -> list[Chapter]:
    found = _collapse_sections(evidence, collapsed)
    return [
        _chapter(
            "inpainting",
            "Is the inpainting better than the mean?",
            [Section("", inpainting_table(evidence.recipe, evidence.inpaintings))] if evidence.inpaintings else [],
            "No context encoder has been trained.",
        ),
        _chapter("collapse", "Did the inpainting collapse?", found, "No context encoder has been trained."),
        _chapter("cost", "What did it cost?", _cost_sections(evidence), "Nothing has been trained."),
    ]


def _collapse_sections(evidence: Evidence, rows: Sequence[ModeCollapse]) -> list[Section]:
    if not rows:
        return []
    share = "The adversarial term's gradient as a share of the reconstruction's, at the {}, mean over the runs"
    return [
        Section("", mode_collapse_table(evidence.recipe, rows), [_HOW_COLLAPSE_IS_TOLD]),
        *_epochs_sections("D's scores beyond the margin, mean over the runs", evidence, SATURATION),
        *_epochs_sections(share.format("encoder's weights"), evidence, ADVERSARIAL_SHARE, decimals=1),
        *_epochs_sections(share.format("inpainted patches"), evidence, SHARE_AT_THE_PATCH, decimals=1),
    ]


def _epochs_sections(title: str, evidence: Evidence, metric: str, decimals: int = 0) -> list[Section]:
    """The section on a metric of the curves; none where no run has it."""
    by_epoch = mean_by_epoch(evidence.recipe, evidence.trainings, metric)
    if not any(row.runs for row in by_epoch.values()):
        return []
    return [Section(title, epochs_table(evidence.recipe, by_epoch, decimals))]


def _cost_sections(evidence: Evidence) -> list[Section]:
    grid = training_time_table(evidence.recipe, evidence.trainings, evidence.outcomes)
    return [Section("", grid, [_HOW_TIME_IS_TAKEN])] if grid.rows else []


_WHAT_COULD_BE_SEEN = (
    f"The smallest true difference that the test finds {percent(POWER)} of the time (two-sided, 5 %, before Holm), "
    "told from the spread of the paired differences of validation images and from the test set's patients and images. "
    "No prediction of a test image is needed."
)
_HOW_CONSTANTS_ARE_MADE = (
    "The constant is fitted on all training images, also where the arms had a share of them. The best arm is picked on "
    "these test images, so that its number is rather too high."
)
_HOW_TIME_IS_TAKEN = (
    "Time on the machine where it ran, beside whatever else ran there. A training that diverged counts until then; one "
    'that was killed and went on counts with all its stretches (by earlier versions with its last one alone). "(1 of '
    '3)": only one of three wrote its time down.'
)
_HOW_COLLAPSE_IS_TOLD = (
    "Diversity: the deviation of the inpainted patches from image to image over that of the real ones, on validation "
    f"images, mean ± sd over the runs. Collapsed: below {COLLAPSED_BELOW:.2f} in the epoch kept or in the last one: "
    "less than a tenth of the real variance. Runs, here and below: those whose curves hold what is averaged; diverged "
    "ones have no curves, and earlier versions wrote fewer down."
)


def _chapter(anchor: str, title: str, sections: Sequence[Section], otherwise: str) -> Chapter:
    """A chapter of tables, or the sentence `otherwise` where there is none."""
    return Chapter(anchor, title, [] if sections else [otherwise], sections)


def _what_is_printed(settings: Evaluation) -> str:
    return (
        f"Metric on the whole test set ± its standard deviation over {settings.resamples} bootstrap resamples of "
        f"{settings.resample_share:.0%} of the test images; after it, where there are several seeds, the standard "
        "deviation from seed to seed. Best of a backbone in bold; an arm of which a seed is missing does not compete."
    )


def _what_is_tested(settings: Evaluation) -> str:
    return (
        f"Paired, whole patients resampled {settings.test_resamples:,} times, two-sided; Holm's p-values hold for all "
        "tests of a table together. What is tested and what is not: docs/evaluation.md."
    )


def outcomes_of(recipe: Recipe, experiment: Experiment) -> dict[Cell, Outcome]:
    """What became of the cells of `recipe` that this experiment has ended."""
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
