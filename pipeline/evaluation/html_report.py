"""The report as one HTML page that stands alone: no script, nothing from a network, pictures inside.

Belongs here: what the page says beside the tables, and making it. Not here: any number (`report`), drawing (`figures`).
"""

import base64
import hashlib
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pyarrow.compute as pc
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from pipeline import code_versions
from pipeline.evaluation.differences import about_of
from pipeline.evaluation.document import Bold, Chapter, Picture, Section, TextTable
from pipeline.evaluation.figures import DPI
from pipeline.evaluation.portable import portable
from pipeline.evaluation.report import ResultsReport, dataset_rows, evidence_of, results_report
from pipeline.evaluation.report_figures import (
    boxplots_pictures,
    confusion_pictures,
    curves_pictures,
    differences_pictures,
    inpainting_pictures,
    overlay_pictures,
)
from pipeline.evaluation.results_tables import misread
from pipeline.evaluation.tables import BACKBONE_LABELS, arm_label, dataset_table, percent, task_label
from pipeline.files import data_url, read_table, write_text
from pipeline.recipe import Pretraining, Recipe, Task
from pipeline.store import Experiment, Store
from pipeline.tables import DICOM_INDEX, IMAGES, REJECTED_FILES, REJECTED_FRAMES, pretraining_pool_table, read_pool

_HERE = Path(__file__).parent
_LIBRARIES = ("sonotag", "torch", "torchvision", "numpy", "pyarrow", "pydicom", "scikit-learn", "scipy", "matplotlib")
_LIMITS = (
    "Every number is about this archive, these test sets and patients like theirs. The programme is no medical device, "
    "and none of this says that a model may be used on patients.",
    "The deviation behind ± is that of the paper's bootstrap. With resamples smaller than the test set it is no "
    "standard error, it is never an interval, and images of one patient count in it as if they were independent. Two "
    "arms whose ranges overlap may differ, and two whose ranges do not may be alike: see the differences.",
    "A p-value above 0.05 does not show that two arms are equal; the interval says how different they may be.",
    "Only the differences that the recipe declares are tested. One that was noticed in these tables is not a finding.",
    "An arm that did not run has no number. Its absence says nothing about it.",
)


def write_html_report(recipe: Recipe, store: Store) -> Path:
    """Write report.html among the recipe's reports and return its path.

    It holds all tables anew, from what the store holds now, and those figures that have been drawn. Paths in the recipe
    and in the reasons of arms that did not run are cut to their last name. The same store gives the same bytes.
    """
    experiment = store.experiment(recipe.name)
    report = results_report(evidence_of(recipe, experiment))
    style = (_HERE / "html_report.css").read_text(encoding="utf-8")
    html = _template().render(
        title=f"Report of the recipe {recipe.name}",
        summary=_summary(report),
        chapters=_chapters(recipe, store, report),
        recipe=yaml.safe_dump(portable(recipe).model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        style=Markup(style),  # our own file, whose digest is all that the page's policy lets style it
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
    )
    write_text(experiment.page, html)
    return experiment.page


def _template() -> Template:
    pages = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    pages.filters |= {"data_url": data_url, "width": _width, "held": _held}
    pages.tests["bold"] = lambda cell: isinstance(cell, Bold)
    return pages.get_template("html_report.html")


def _held(cell: str) -> str:
    """No line ends beside a ± or −, nor between a count and the one in parentheses behind it."""
    return re.sub(r" (?=[±−] )|(?<= [±−]) | (?=\(\d+\)$)", "\N{NO-BREAK SPACE}", cell)


def _width(path: Path) -> int:
    """How wide the picture at `path` is drawn, in CSS pixels, of which an inch has 96."""
    with Image.open(path) as picture:
        return round(picture.width * 96 / DPI)


def _summary(report: ResultsReport) -> str:
    ran = sum(result.status == "ran" for result in report.results)
    tested = sum(row.p is not None for row in report.differences)
    return (
        f"{ran} of {len(report.results)} fine-tunings ran; {tested} of {len(report.differences)} declared differences "
        "could be tested. Everything here was computed from the predictions and outcomes that this store holds."
    )


def _chapters(recipe: Recipe, store: Store, report: ResultsReport) -> list[Chapter]:
    experiment = store.experiment(recipe.name)
    of_report = {chapter.anchor: chapter for chapter in report.chapters}
    drawn = {
        "results": boxplots_pictures(recipe, experiment.reports).values(),
        "differences": differences_pictures(recipe, experiment.reports),
        "inpainting": inpainting_pictures(recipe, experiment).values(),
    }
    detectable, results, differences, metrics, constants, inpainting, collapse, cost = (
        replace(chapter, pictures=_existing(drawn.get(anchor, ()))) for anchor, chapter in of_report.items()
    )
    confusions = _existing(confusion_pictures(recipe, experiment).values())
    overlays = _existing(overlay_pictures(recipe, experiment).values())
    curves = _existing(curves_pictures(recipe, experiment).values())
    return [
        Chapter("overview", "What was done", sections=[Section("The recipe in short", _recipe_table(recipe))]),
        _data(recipe, store, experiment),
        detectable,
        results,
        differences,
        Chapter("limits", "What one may not conclude", [_LIMITS[0], _limit_of_seeds(recipe), *_LIMITS[1:]]),
        metrics,
        constants,
        _gallery("confusions", "Which classes are taken for which?", confusions, "No ordinal task has predictions."),
        _gallery("overlays", "Where do the outlines lie?", overlays, "No segmentation has predictions."),
        inpainting,
        collapse,
        cost,
        _gallery("curves", "How did pretraining go?", curves, "No encoder has been pretrained."),
        Chapter("versions", "Versions", [_VERSIONS], [Section("", _versions_table())]),
    ]


def _gallery(anchor: str, title: str, pictures: Sequence[Picture], otherwise: str) -> Chapter:
    return Chapter(anchor, title, [] if pictures else [otherwise], pictures=pictures)


def _existing(pictures: Iterable[Picture]) -> list[Picture]:
    return [picture for picture in pictures if picture.path.is_file()]


def _limit_of_seeds(recipe: Recipe) -> str:
    """What the number of pretrainings does not allow to say."""
    seeds = len(recipe.pretraining.seeds)
    if about_of(recipe) == "methods":
        return f"Each encoder was pretrained with {seeds} seeds, on one archive: p-values are about the methods on it."
    if seeds > 1:
        return (
            f"Each encoder was pretrained with {seeds} seeds. That is too few to tell how much pretrainings differ: "
            f"p-values are about these models. {misread(recipe)}"
        )
    return (
        "There is one pretrained encoder per backbone and method, of one seed. Another pretraining is part of no "
        "spread here, and no p-value is about the methods as such."
    )


def _recipe_table(recipe: Recipe) -> TextTable:
    """What a reader must know of the recipe to read the tables; all of it stands at the end of the page."""
    trained, tuned = recipe.pretraining, recipe.downstream
    rows = [
        ("Images", f"{recipe.images.height} × {recipe.images.width} pixels, grey"),
        ("Labels from tags", ", ".join(recipe.labels.names)),
        ("Backbones", ", ".join(BACKBONE_LABELS[backbone] for backbone in trained.backbones)),
        ("Pretraining", _labels(recipe, trained.encoders)),
        ("Pretrained for", f"{_length(trained)}, {trained.precision}, {_seeds(trained.seeds)}"),
        ("Arms", _labels(recipe, tuned.arms)),
        *((f"Task {task_label(name)}", _task(task)) for name, task in tuned.tasks.items()),
        ("Of the training images", ", ".join(percent(fraction) for fraction in tuned.fractions)),
        ("Fine-tuning seeds", ", ".join(map(str, tuned.seeds))),
    ]
    return TextTable(("What", "In this recipe"), rows, numbers_from=2)


def _labels(recipe: Recipe, arms: Sequence[str]) -> str:
    """Arms or encoders in a line; a variant's label may hold a comma."""
    labels = [arm_label(recipe, arm) for arm in arms]
    return ("; " if any("," in label for label in labels) else ", ").join(labels)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _task(task: Task) -> str:
    kind = "ordinal classification" if task.kind == "ordinal" else "segmentation"
    least = f", at least {task.min_steps} steps" if task.min_steps else ""
    return f"{kind} into {', '.join(task.classes)}; {_length(task)}{least}"


def _length(training: Pretraining | Task) -> str:
    return f"{training.epochs} epoch{'' if training.epochs == 1 else 's'} in batches of {training.batch_size}"


def _data(recipe: Recipe, store: Store, experiment: Experiment) -> Chapter:
    sections = []
    archive = _archive_rows(store, experiment)
    if archive:
        sections.append(Section("The archive, as it was read last", TextTable(("What", "How many"), archive, 1)))
    pool = pretraining_pool_table(recipe.labels.names)
    if pool.path(experiment.tables).is_file():
        rows = dataset_rows(recipe, experiment, read_pool(store, recipe))
        sections.append(Section("Data sets (paper Table 1)", dataset_table(rows)))
    return Chapter("data", "On which data?", [] if sections else ["No archive has been read."], sections)


def _archive_rows(store: Store, experiment: Experiment) -> list[tuple[str, str]]:
    """Counts of the archive's tables that there are."""
    counted = (
        ("Records: instances whose header was read", DICOM_INDEX.path(store.tables)),
        ("Files rejected", REJECTED_FILES.path(store.tables)),
        ("Images, cut to the insonated area", IMAGES.path(experiment.tables)),
        ("Frames rejected", REJECTED_FRAMES.path(experiment.tables)),
    )
    rows = [(says, str(len(read_table(path)))) for says, path in counted if path.is_file()]
    if DICOM_INDEX.path(store.tables).is_file():
        patients = pc.count_distinct(DICOM_INDEX.read(store.tables)["patient"]).as_py()
        rows.insert(1, ("Patients of the records", str(patients)))
    return rows


_VERSIONS = (
    "What this page was made with, and the version of each stage's code. What an encoder was trained with stands in "
    "its model card."
)


def _versions_table() -> TextTable:
    stages = {name.lower(): number for name, number in vars(code_versions).items() if name.isupper()}
    rows = [
        ("Python", platform.python_version()),
        *((library, version(library)) for library in _LIBRARIES),
        *((f"stage {stage}", str(number)) for stage, number in stages.items()),
    ]
    return TextTable(("What", "Version"), rows, numbers_from=2)
