"""The report as one self-contained HTML page: no script, no network access, pictures embedded."""

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pyarrow.compute as pc
import yaml
from jinja2 import Template
from PIL import Image

from pipeline import code_versions
from pipeline.evaluation import report_figures
from pipeline.evaluation.dataset_table import dataset_rows, dataset_table
from pipeline.evaluation.differences import about_of
from pipeline.evaluation.display_names import KIND_LABELS, arm_label, backbone_label, percent, task_label
from pipeline.evaluation.document import Bold, Chapter, Picture, Section, TextTable
from pipeline.evaluation.figures import DPI
from pipeline.evaluation.report import Report, read_report
from pipeline.evaluation.results_tables import few_seeds_warning
from pipeline.files import data_url, read_table, write_text
from pipeline.pages.templates import page_templates
from pipeline.recipe import Recipe
from pipeline.recipe.downstream import Task
from pipeline.recipe.pretraining import Pretraining
from pipeline.store import Experiment, Store
from pipeline.tables import DICOM_INDEX, IMAGES, REJECTED_FILES, REJECTED_FRAMES, pretraining_pool_table, read_pool

_HERE = Path(__file__).parent
_LIBRARIES = ("sonotag", "torch", "torchvision", "numpy", "pyarrow", "pydicom", "scikit-learn", "scipy", "matplotlib")
_SCOPE = (
    "All numbers apply to this archive, these test sets and patients like theirs. This software is not a medical "
    "device, and nothing here implies that a model may be used on patients."
)
_MAPS = (
    "Near points are images with similar features; distances between groups, and their sizes, mean nothing. Groups by "
    "machine or source mean that the encoder represents the machine. The baseline's map, of a random encoder, is the "
    "control. The folder private of the store holds a page of these maps with thumbnails and nearest neighbours."
)
_LIMITS = (
    "The value after ± is the standard deviation of the paper's bootstrap. It is not a standard error (its resamples "
    "may be smaller than the test set) and not an interval, and it treats images of one patient as independent. Two "
    "arms with overlapping ranges may differ, and two with separate ranges may not: see the differences between arms.",
    "A p-value above 0.05 does not show that two arms are equal; the interval shows how much they may differ.",
    "Only the differences that the recipe declares are tested. A difference first noticed in these tables is not a "
    "finding.",
    "An arm that did not run has no result. Nothing can be concluded about it.",
)


def write_html_report(recipe: Recipe, store: Store) -> Path:
    """Write report.html among the recipe's reports; returns its path.

    The tables are those that `write_results` computed last, the figures those that have been drawn. The same store
    gives the same bytes. Raises `UserError` as `read_report`.
    """
    experiment = store.experiment(recipe.name)
    report = read_report(recipe, experiment)
    html = _template().render(
        title=f"Report of the recipe {recipe.name}",
        summary=_summary(report),
        chapters=_chapters(recipe, store, report),
        recipe=yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True),
    )
    write_text(experiment.page, html)
    return experiment.page


def _template() -> Template:
    pages = page_templates(_HERE)
    pages.filters |= {"data_url": data_url, "css_width": _css_width, "unbroken": _unbroken}
    pages.tests["bold"] = lambda cell: isinstance(cell, Bold)
    return pages.get_template("html_report.html")


def _unbroken(text: str) -> str:
    """`text` without a line break beside a ± or −, before a %, within an interval, or before a count at the end."""
    within = r"(?<=,) (?=[+−]\d)|(?<=\d,) (?=\d+\.\d+\])|(?<=\(seeds) (?=\d)"
    return re.sub(rf" (?=[±−] )|(?<= [±−]) |(?<=\d) (?=%)|{within}| (?=\(\d+\)$)", "\N{NO-BREAK SPACE}", text)


def _css_width(path: Path) -> int:
    """Width of the picture at `path` in CSS pixels (96 per inch)."""
    with Image.open(path) as picture:
        return round(picture.width * 96 / DPI)


def _summary(report: Report) -> str:
    ran = sum(result.status == "ran" for result in report.results)
    tested = sum(row.p is not None for row in report.differences)
    return (
        f"{ran} of {len(report.results)} fine-tunings ran; {tested} of {len(report.differences)} declared differences "
        "could be tested. All numbers are computed from the predictions and outcomes in this store."
    )


def _chapters(recipe: Recipe, store: Store, report: Report) -> list[Chapter]:
    experiment = store.experiment(recipe.name)
    pictures = {
        "results": report_figures.boxplots_pictures(recipe, experiment.reports).values(),
        "differences": report_figures.differences_pictures(recipe, experiment.reports),
        "inpainting": report_figures.inpainting_pictures(recipe, experiment).values(),
    }
    *frozen, effects, results, differences, metrics, constants, inpainting, collapse, time = (
        replace(chapter, pictures=_drawn(pictures.get(chapter.anchor, ()))) for chapter in report.chapters
    )
    confusions = _drawn(report_figures.confusion_pictures(recipe, experiment).values())
    overlays = _drawn(report_figures.overlay_pictures(recipe, experiment).values())
    curves = _drawn(report_figures.curves_pictures(recipe, experiment).values())
    return [
        Chapter("overview", "Overview", [_arms_text(recipe)], [Section("The recipe in short", _recipe_table(recipe))]),
        _data(recipe, store, experiment),
        *frozen,
        _maps(recipe, experiment),
        effects,
        results,
        differences,
        Chapter("limits", "Limits of interpretation", [_SCOPE, _limit_of_seeds(recipe), *_LIMITS]),
        metrics,
        constants,
        _gallery("confusions", "Confusion matrices", confusions, "No ordinal task has predictions."),
        _gallery("overlays", "Segmentation outlines", overlays, "No segmentation has predictions."),
        inpainting,
        collapse,
        time,
        _gallery("curves", "Training curves of the encoders", curves, "No encoder has been pretrained."),
        Chapter("versions", "Versions", [_VERSIONS], [Section("", _versions_table())]),
    ]


def _maps(recipe: Recipe, experiment: Experiment) -> Chapter:
    """What the encoders' maps can show, before the maps."""
    pictures = _drawn(report_figures.maps_pictures(recipe, experiment).values())
    text = [_MAPS] if pictures else ["No encoder has embeddings: run the job `evaluate`."]
    return Chapter("maps", "Maps of the archive", text, pictures=pictures)


def _gallery(anchor: str, title: str, pictures: Sequence[Picture], otherwise: str) -> Chapter:
    return Chapter(anchor, title, [] if pictures else [otherwise], pictures=pictures)


def _drawn(pictures: Iterable[Picture]) -> list[Picture]:
    return [picture for picture in pictures if picture.path.is_file()]


def _limit_of_seeds(recipe: Recipe) -> str:
    """What cannot be concluded from this number of pretraining seeds."""
    seeds = len(recipe.pretraining.seeds)
    if about_of(recipe) == "methods":
        return f"Each encoder was pretrained with {seeds} seeds on one archive: p-values apply to the methods on it."
    if seeds > 1:
        return (
            f"Each encoder was pretrained with {seeds} seeds. This is too few to measure how much pretrainings vary: "
            f"p-values apply to these models only. {few_seeds_warning(recipe)}"
        )
    return (
        "Each backbone and method has one pretrained encoder, of one seed. No spread here includes another "
        "pretraining, and no p-value applies to the methods as such."
    )


def _arms_text(recipe: Recipe) -> str:
    """What an arm is, and the methods of the recipe's arms."""
    methods = {method.name: method for method in map(recipe.pretraining.method_of, recipe.pretraining.encoders)}
    named = [f"{method.label}: {method.description}." for method in methods.values()]
    return " ".join(
        [
            "An arm is an encoder that was pretrained in one way and then fine-tuned for every task.",
            *named,
            "+F: the encoder is frozen during fine-tuning.",
        ]
    )


def _recipe_table(recipe: Recipe) -> TextTable:
    """The settings needed to read the tables; the whole recipe is at the end of the page."""
    trained, tuned = recipe.pretraining, recipe.downstream
    rows = [
        ("Images", f"{recipe.images.height} × {recipe.images.width} pixels, grey"),
        ("Labels from DICOM tags", ", ".join(recipe.labels.names)),
        ("Backbones", ", ".join(backbone_label(backbone) for backbone in trained.backbones)),
        ("Pretraining", _labels(recipe, trained.encoders)),
        ("Length of pretraining", f"{_length(trained)}, {trained.precision}, {_seeds(trained.seeds)}"),
        ("Arms", _labels(recipe, tuned.arms)),
        *((f"Task {task_label(name)}", _task(task)) for name, task in tuned.tasks.items()),
        ("Share of the training images", ", ".join(percent(fraction) for fraction in tuned.fractions)),
        ("Fine-tuning seeds", ", ".join(map(str, tuned.seeds))),
    ]
    return TextTable(("Setting", "In this recipe"), rows, numbers_from=2)


def _labels(recipe: Recipe, arms: Sequence[str]) -> str:
    """The labels of arms or encoders in one line; those of variants may contain commas."""
    labels = [arm_label(recipe, arm) for arm in arms]
    return ("; " if any("," in label for label in labels) else ", ").join(labels)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _task(task: Task) -> str:
    least = f", at least {task.min_steps} steps" if task.min_steps else ""
    return f"{KIND_LABELS[task.kind]} into {', '.join(task.classes)}; {_length(task)}{least}"


def _length(training: Pretraining | Task) -> str:
    return f"{training.epochs} epoch{'' if training.epochs == 1 else 's'} in batches of {training.batch_size}"


def _data(recipe: Recipe, store: Store, experiment: Experiment) -> Chapter:
    sections = []
    counts = _archive_counts(store, experiment)
    if counts:
        sections.append(Section("The archive at its last ingestion", TextTable(("What", "Count"), counts, 1)))
    if pretraining_pool_table(recipe.labels.names).path(experiment.tables).is_file():
        rows = dataset_rows(recipe, experiment, read_pool(store, recipe))
        sections.append(Section("Data sets (paper Table 1)", dataset_table(rows)))
    return Chapter("data", "Data", [] if sections else ["No archive has been ingested."], sections)


def _archive_counts(store: Store, experiment: Experiment) -> list[tuple[str, str]]:
    """Rows of the existing tables of the archive, and the number of patients."""
    tables = (
        ("Records (DICOM instances with a readable header)", DICOM_INDEX.path(store.tables)),
        ("Rejected files", REJECTED_FILES.path(store.tables)),
        ("Images, cropped to the insonated area", IMAGES.path(experiment.tables)),
        ("Rejected frames", REJECTED_FRAMES.path(experiment.tables)),
    )
    rows = [(label, str(len(read_table(path)))) for label, path in tables if path.is_file()]
    if DICOM_INDEX.path(store.tables).is_file():
        patients = pc.count_distinct(DICOM_INDEX.read(store.tables)["patient"]).as_py()
        rows.insert(1, ("Patients of the records", str(patients)))
    return rows


_VERSIONS = (
    "Software versions that made this page, and the version of each stage's code. The versions that an encoder was "
    "trained with are in its model card."
)


def _versions_table() -> TextTable:
    stages = {name.lower(): number for name, number in vars(code_versions).items() if name.isupper()}
    rows = [
        ("Python", platform.python_version()),
        *((library, version(library)) for library in _LIBRARIES),
        *((f"stage {stage}", str(number)) for stage, number in stages.items()),
    ]
    return TextTable(("What", "Version"), rows, numbers_from=2)
