"""A recipe's report: its numbers, chapters and files, computed from its `evidence`; `html_report` makes the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from pipeline.checked_json import read_checked
from pipeline.errors import UserError
from pipeline.evaluation import results_tables
from pipeline.evaluation.constant import Constant, constant_comparison_table
from pipeline.evaluation.differences import Difference, differences
from pipeline.evaluation.display_names import percent
from pipeline.evaluation.document import Chapter, Section
from pipeline.evaluation.evidence import Evidence, evidence_of
from pipeline.evaluation.frozen_scores import FROZEN, frozen_chapters
from pipeline.evaluation.inpainting_error import InpaintingError, inpainting_table
from pipeline.evaluation.minimum_effect import POWER, MinimumEffect, minimum_effects
from pipeline.evaluation.mode_collapse import ModeCollapse, mode_collapse_sections, mode_collapses
from pipeline.evaluation.results import Result, results_rows, write_rows
from pipeline.evaluation.results_by_source import results_by_source_sections
from pipeline.evaluation.summaries import Summary, summaries
from pipeline.evaluation.training_time import training_time_table
from pipeline.files import digest, write_json, write_text
from pipeline.recipe import Recipe
from pipeline.recipe.evaluation import Evaluation
from pipeline.store import Experiment

_ROWS: Mapping[str, tuple[type, str]] = {
    "results_table.csv": (Result, "results"),
    "metrics_table.csv": (Summary, "summaries"),
    "differences_table.csv": (Difference, "differences"),
    "detectable_table.csv": (MinimumEffect, "minimum_effects"),
    "collapse_table.csv": (ModeCollapse, "mode_collapses"),
}
"""Each CSV file with the type of its rows and the field of `Report` that holds them."""
MARKDOWN, LATEX, REPORT = "results_table.md", "results_table.tex", "report.json"
RESULTS_FILES = (*_ROWS, MARKDOWN, LATEX, REPORT)
"""The files of `write_results`."""


@dataclass(frozen=True)
class Report:
    """The numbers of a recipe's report and its chapters, whose anchors are unique."""

    recipe: Mapping[str, Any]
    """Settings of the recipe, `Recipe.shared`."""
    results: Sequence[Result]
    summaries: Sequence[Summary]
    differences: Sequence[Difference]
    minimum_effects: Sequence[MinimumEffect]
    mode_collapses: Sequence[ModeCollapse]
    constants: Sequence[Constant]
    inpaintings: Sequence[InpaintingError]
    chapters: Sequence[Chapter]

    @property
    def markdown(self) -> str:
        """The whole report as one Markdown file."""
        title = f"# Results of the recipe {self.recipe['name']}\n"
        return "\n".join((title, *(chapter.markdown() for chapter in self.chapters)))

    @property
    def digest(self) -> str:
        """SHA-256 of all results, metrics and differences, and of the scores of frozen encoders."""
        frozen = [chapter for chapter in self.chapters if chapter.anchor == FROZEN]
        return digest([str(row) for row in (*self.results, *self.summaries, *self.differences, *frozen)])

    @property
    def numbers(self) -> dict[str, float]:
        """Scores and p-values under the names that MLflow stores them by."""
        scores = {
            f"{r.backbone}.{r.arm}.{r.task}.fraction-{r.fraction:g}.seed-{r.seed}": r.mean
            for r in self.results
            if r.mean is not None
        }
        p_values = {
            f"p.{d.backbone}.{d.arm}-{d.against}.{d.task}.fraction-{d.fraction:g}": d.p
            for d in self.differences
            if d.p is not None
        }
        return scores | p_values


def write_results(recipe: Recipe, experiment: Experiment) -> Report:
    """Compute the report and write `RESULTS_FILES`: rows as CSV, all tables as Markdown, results and differences as
    LaTeX, and the JSON that `read_report` reads.
    """
    report, folder = compute_report(evidence_of(recipe, experiment)), experiment.reports
    for name, (kind, field) in _ROWS.items():
        write_rows(folder / name, kind, getattr(report, field))
    write_text(folder / MARKDOWN, report.markdown)
    write_text(folder / LATEX, results_tables.results_latex(recipe, report.summaries, report.differences))
    write_json(folder / REPORT, to_jsonable_python(report))
    return report


def read_report(recipe: Recipe, experiment: Experiment) -> Report:
    """The report that `write_results` wrote last.

    Raises `UserError` if there is none, or if settings of the recipe have changed since.
    """
    path = experiment.reports / REPORT
    if not path.is_file():
        raise UserError(f"{path} does not exist: run the job `report` first.")
    report = read_checked(Report, path)
    if report.recipe != recipe.shared:
        raise UserError(f"{path} was computed with other settings of the recipe: run the job `report` again.")
    return report


def compute_report(evidence: Evidence) -> Report:
    """Compute every number and chapter of the report."""
    recipe, predictions = evidence.recipe, evidence.predictions
    results = results_rows(recipe, evidence.outcomes, predictions)
    summarized, tested = summaries(recipe, results, predictions), differences(recipe, results, predictions)
    effects = minimum_effects(recipe, evidence.validation, evidence.test_images)
    collapsed = mode_collapses(recipe, evidence.trainings)
    return Report(
        recipe.shared,
        results,
        summarized,
        tested,
        effects,
        collapsed,
        evidence.constants,
        evidence.inpaintings,
        [
            *frozen_chapters(evidence),
            minimum_effects_chapter(recipe, effects),
            *_arms_chapters(evidence, results, summarized, tested),
            *_pretraining_chapters(evidence, collapsed),
        ],
    )


def minimum_effects_chapter(recipe: Recipe, effects: Sequence[MinimumEffect]) -> Chapter:
    """The smallest differences that the test sets can show; needs no prediction of a test image."""
    text = _MINIMUM_EFFECT if effects else _NO_COMPARISON
    sections = results_tables.minimum_effects_sections(recipe, effects)
    return Chapter("detectable", "Smallest detectable difference", [text], sections)


def _arms_chapters(
    evidence: Evidence, results: Sequence[Result], summarized: Sequence[Summary], tested: Sequence[Difference]
) -> list[Chapter]:
    recipe, constants = evidence.recipe, evidence.constants
    arms = results_tables.results_sections(recipe, results, summarized, evidence.predictions)
    compared = [Section("", constant_comparison_table(recipe, results, constants), [_CONSTANT])] if constants else []
    by_source = results_by_source_sections(recipe, evidence.predictions, evidence.sources)
    metrics = [*results_tables.metrics_sections(recipe, summarized), *by_source]
    text = _differences_text(recipe.evaluation) if tested else _NO_COMPARISON
    return [
        Chapter("results", "Results of each arm", [_results_text(recipe.evaluation)], arms),
        Chapter("differences", "Differences between arms", [text], results_tables.differences_sections(recipe, tested)),
        _chapter("metrics", "All metrics", metrics, "No arm ran."),
        _chapter("constants", "Comparison with a constant predictor", compared, "No images of a task are prepared."),
    ]


def _pretraining_chapters(evidence: Evidence, collapsed: Sequence[ModeCollapse]) -> list[Chapter]:
    recipe, errors = evidence.recipe, evidence.inpaintings
    times = training_time_table(recipe, evidence.trainings, evidence.outcomes)
    inpainting = [Section("", inpainting_table(recipe, errors))] if errors else []
    collapse, cost = mode_collapse_sections(evidence, collapsed), [Section("", times, [_TIME])] if times.rows else []
    untrained = "No context encoder has been trained."
    return [
        _chapter("inpainting", "Inpainting error compared with the mean patch", inpainting, untrained),
        _chapter("collapse", "Mode collapse of the inpainting", collapse, untrained),
        _chapter("cost", "Training time", cost, "Nothing has been trained."),
    ]


def _chapter(anchor: str, title: str, sections: Sequence[Section], otherwise: str) -> Chapter:
    """A chapter of tables, or with the sentence `otherwise` if there are none."""
    return Chapter(anchor, title, [] if sections else [otherwise], sections)


_NO_COMPARISON = "The recipe compares no arms."
_MINIMUM_EFFECT = (
    f"The smallest true difference that the paired test finds with a probability of {percent(POWER)} (two-sided, "
    "α = 5 %, before Holm's adjustment). It is estimated from the spread of the paired differences on the validation "
    "images and from the numbers of patients and images in the test set. Predictions of test images are not used."
)
_CONSTANT = (
    "A constant predictor gives the same answer for every image. It is fitted on all training images, even if the arms "
    "were trained on a share of them. The best arm is selected on these test images, so its score is optimistic."
)
_TIME = (
    "Time on the machine that ran the training, including other work. A training that diverged counts up to "
    "that point; one that was interrupted and resumed counts with all its parts (in earlier versions with the last one "
    'alone). "(1 of 3)": only one of three recorded its time.'
)


def _results_text(settings: Evaluation) -> str:
    return (
        f"Metric on the whole test set ± its standard deviation over {settings.resamples} bootstrap resamples of "
        f"{percent(settings.resample_share)} of the test images; with several seeds, their standard deviation in "
        "parentheses. The best arm of each backbone is bold; arms with a missing seed do not compete."
    )


def _differences_text(settings: Evaluation) -> str:
    return (
        f"Paired test, two-sided; whole patients are resampled {settings.test_resamples:,} times. Holm's p-values are "
        "adjusted over all tests of a table. docs/evaluation.md lists what is tested."
    )
