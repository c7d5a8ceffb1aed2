"""A recipe's figures, from what its experiment folder holds.

Belongs here: which figures there are, what they are called, and gathering what is drawn. Not here: drawing (`figures`).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from matplotlib.figure import Figure

from pipeline.downstream.task_images import TaskImages, task_images
from pipeline.evaluation.confusion import confusion
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.differences import Difference, differences
from pipeline.evaluation.document import Picture
from pipeline.evaluation.figures import (
    InpaintingRow,
    boxplots_figure,
    confusions_figure,
    curves_figure,
    differences_figure,
    inpainting_figure,
    overlays_figure,
    save_figure,
)
from pipeline.evaluation.overlays import best_median_worst
from pipeline.evaluation.report import constants_of, outcomes_of, predictions_of
from pipeline.evaluation.results import results_rows
from pipeline.evaluation.tables import BACKBONE_LABELS, arm_label, percent, task_label
from pipeline.files import read_table
from pipeline.images.batches import center_patch
from pipeline.methods import Method
from pipeline.pretraining.curves import SCORE_INPAINTED
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.encoder_folder import Preprocessing, read_curves
from pipeline.pretraining.inpainting import inpaint
from pipeline.recipe import PROBES, Arm, Backbone, Recipe
from pipeline.store import Experiment
from pipeline.training.loop import VALIDATION_LOSS
from pipeline.training.outcome import Outcome

INPAINTING_ROWS = 8
_Place = tuple[str, Backbone, float]
"""A task, a backbone, and a share of the training images."""


def inpainting_pictures(recipe: Recipe, experiment: Experiment) -> dict[Backbone, Picture]:
    """The inpainting figure of each backbone (paper Figure 5), whether it has been drawn or not."""
    return {
        backbone: Picture(
            experiment.reports / f"inpainting{_suffix(recipe, backbone)}.png",
            f"Validation images, their hidden centres, and what each context encoder of {BACKBONE_LABELS[backbone]} "
            f"paints there{_of_first_seed(recipe)} (paper Figure 5).",
            "A grid of ultrasound images: a row per image; original, centre hidden, and inpainted by each method.",
        )
        for backbone in recipe.pretraining.backbones
    }


def curves_pictures(recipe: Recipe, experiment: Experiment) -> dict[Backbone, Picture]:
    """The training curves of each backbone, whether they have been drawn or not."""
    return {
        backbone: Picture(
            experiment.reports / f"training_curves{_suffix(recipe, backbone)}.png",
            f"Pretraining of {BACKBONE_LABELS[backbone]}, epoch by epoch{_of_first_seed(recipe)}.",
            "Line charts of losses and scores by epoch, a panel per quantity and a line per pretraining method.",
        )
        for backbone in recipe.pretraining.backbones
    }


def boxplots_pictures(recipe: Recipe, folder: Path) -> dict[tuple[float, int], Picture]:
    """The boxplots of each fraction and seed (paper Figure 6) in `folder`, drawn or not; none without tasks.

    The first regime's file is boxplots.png, that of others says which they are of.
    """
    places = list(product(recipe.downstream.fractions, recipe.downstream.seeds)) if recipe.downstream.tasks else []
    return {
        (fraction, seed): Picture(
            folder / f"boxplots{f'_fraction-{fraction:g}_seed-{seed}' if number else ''}.png",
            f"Bootstrap values of every arm, {percent(fraction)} of the training images, seed {seed} (paper Figure 6).",
            "Boxplots of the metric, a panel per task and a box per backbone and arm; the values are in the tables.",
        )
        for number, (fraction, seed) in enumerate(places)
    }


def differences_pictures(recipe: Recipe, folder: Path) -> list[Picture]:
    """The declared differences in `folder`, drawn or not; none where the recipe compares nothing."""
    picture = Picture(
        folder / "differences.png",
        "Every declared difference of two arms with its 95 % interval (thin) and its deviation from seed to seed "
        "(thick); filled where Holm's p-value is at most 0.05.",
        "A forest plot: a panel per task, a row per comparison and share of the training images; numbers in the table.",
    )
    return [picture] if recipe.comparisons and recipe.downstream.tasks else []


def confusion_pictures(recipe: Recipe, experiment: Experiment) -> dict[_Place, Picture]:
    """The confusion matrices of each ordinal task, backbone and fraction, whether they have been drawn or not."""
    return {
        place: Picture(
            experiment.reports / f"confusion_{_file_stem(recipe, place)}.png",
            f"{_titled(place)}: true classes down, decoded classes across; counts{_all_seeds(recipe)}, and their share "
            "of the true class.",
            "Confusion matrices, a panel per arm.",
        )
        for place in _places(recipe, "ordinal")
    }


def overlay_pictures(recipe: Recipe, experiment: Experiment) -> dict[_Place, Picture]:
    """The outlines of each segmentation, backbone and fraction, whether they have been drawn or not."""
    return {
        place: Picture(
            experiment.reports / f"overlays_{_file_stem(recipe, place)}.png",
            f"{_titled(place)}, seed {recipe.downstream.seeds[0]}: the test images with each arm's best, median and "
            "worst Dice, true and predicted outlines. An arm without predictions is left out.",
            "A grid of ultrasound images with true and predicted outlines: a row per arm; best, median and worst.",
        )
        for place in _places(recipe, "segmentation")
    }


def write_inpainting_figure(recipe: Recipe, experiment: Experiment, pool: PretrainingSet) -> list[Path]:
    """Draw `inpainting_pictures`; none of a backbone without a context encoder."""
    paths = []
    for backbone, picture in inpainting_pictures(recipe, experiment).items():
        folders = {e: _first_seed(recipe, experiment, backbone, e) for e in recipe.pretraining.context_encoders}
        trained = {arm_label(recipe, encoder): folder for encoder, folder in folders.items() if _ran(folder)}
        rows = _inpainting_rows(pool, list(trained.values())) if trained else []
        figure = inpainting_figure(rows, list(trained)) if trained else None
        paths += _drawn(picture, figure)
    return paths


def write_training_curves(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Draw `curves_pictures` of the encoders that were trained."""
    paths = []
    for backbone, picture in curves_pictures(recipe, experiment).items():
        settings = recipe.pretraining
        trained = {e: read_curves(_first_seed(recipe, experiment, backbone, e)) for e in settings.encoders}
        curves = {
            arm_label(recipe, encoder): _titled_curves(metrics, settings.method_of(encoder))
            for encoder, metrics in trained.items()
            if metrics
        }
        title = f"Pretraining of {BACKBONE_LABELS[backbone]}{_of_first_seed(recipe)}"
        paths += _drawn(picture, curves_figure(title, curves) if curves else None)
    return paths


def write_boxplots(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Draw `boxplots_pictures`."""
    predictions, constants = predictions_of(recipe, experiment), constants_of(recipe, experiment)
    return draw_boxplots(recipe, predictions, constants, experiment.reports)


def draw_boxplots(recipe: Recipe, predictions: pa.Table, constants: Sequence[Constant], folder: Path) -> list[Path]:
    """Draw `boxplots_pictures` into `folder`."""
    paths = []
    for (fraction, seed), picture in boxplots_pictures(recipe, folder).items():
        paths += _drawn(picture, boxplots_figure(recipe, predictions, fraction, seed, constants))
    return paths


def write_differences(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Draw `differences_pictures`."""
    predictions = predictions_of(recipe, experiment)
    results = results_rows(recipe, outcomes_of(recipe, experiment), predictions)
    return draw_differences(recipe, differences(recipe, results, predictions), experiment.reports)


def draw_differences(recipe: Recipe, rows: Sequence[Difference], folder: Path) -> list[Path]:
    """Draw `differences_pictures` of `rows` into `folder`; none where no difference could be measured."""
    figure = differences_figure(recipe, rows) if any(row.difference is not None for row in rows) else None
    return [path for picture in differences_pictures(recipe, folder) for path in _drawn(picture, figure)]


def write_confusion_matrices(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Draw `confusion_pictures`, all seeds counted together; none where no arm has predictions."""
    predictions = predictions_of(recipe, experiment)
    paths = []
    for place, picture in confusion_pictures(recipe, experiment).items():
        of_arms = _by_arm(recipe, predictions, place)
        figure = None
        if any(map(len, of_arms.values())):
            classes = recipe.downstream.tasks[place[0]].classes
            matrices = {arm_label(recipe, arm): confusion(rows, len(classes)) for arm, rows in of_arms.items()}
            figure = confusions_figure(f"{_titled(place)}{_all_seeds(recipe)}", classes, matrices)
        paths += _drawn(picture, figure)
    return paths


def write_overlays(recipe: Recipe, experiment: Experiment) -> list[Path]:
    """Draw `overlay_pictures` of the first seed; none where no arm has predictions.

    Raises `UserError` where predictions are of other images than the task has now.
    """
    predictions = predictions_of(recipe, experiment)
    first = predictions.filter(pc.field("seed") == recipe.downstream.seeds[0])
    paths = []
    for place, picture in overlay_pictures(recipe, experiment).items():
        of_arms = {arm: rows for arm, rows in _by_arm(recipe, first, place).items() if len(rows)}
        figure = None
        if of_arms:
            images = _task_images(recipe, experiment, place[0])
            rows = {arm_label(recipe, arm): best_median_worst(rows, images) for arm, rows in of_arms.items()}
            title = f"{_titled(place)}, seed {recipe.downstream.seeds[0]}"
            figure = overlays_figure(title, recipe.downstream.tasks[place[0]].classes[1:], rows)
        paths += _drawn(picture, figure)
    return paths


def _drawn(picture: Picture, figure: Figure | None) -> list[Path]:
    """Save `figure`. Where there is none, take away what an earlier run drew, which a report would show."""
    if figure is None:
        picture.path.unlink(missing_ok=True)
        return []
    save_figure(figure, picture.path)
    return [picture.path]


def _places(recipe: Recipe, kind: str) -> list[_Place]:
    tasks = [name for name, task in recipe.downstream.tasks.items() if task.kind == kind]
    return list(product(tasks, recipe.pretraining.backbones, recipe.downstream.fractions))


def _suffix(recipe: Recipe, backbone: Backbone) -> str:
    """What tells the files of several backbones apart."""
    return "" if len(recipe.pretraining.backbones) == 1 else f"_{backbone}"


def _file_stem(recipe: Recipe, place: _Place) -> str:
    task, backbone, fraction = place
    of_fraction = "" if len(recipe.downstream.fractions) == 1 else f"_fraction-{fraction:g}"
    return f"{task}{_suffix(recipe, backbone)}{of_fraction}"


def _titled(place: _Place) -> str:
    task, backbone, fraction = place
    return f"{task_label(task)}, {BACKBONE_LABELS[backbone]}, {percent(fraction)} of the training images"


def _all_seeds(recipe: Recipe) -> str:
    seeds = len(recipe.downstream.seeds)
    return f", {seeds} seeds together" if seeds > 1 else ""


def _of_first_seed(recipe: Recipe) -> str:
    """Which pretraining seed is shown, where there are several."""
    seeds = recipe.pretraining.seeds
    return f"; of {len(seeds)} pretraining seeds the first, {seeds[0]}" if len(seeds) > 1 else ""


def _first_seed(recipe: Recipe, experiment: Experiment, backbone: Backbone, encoder: str) -> Path:
    return experiment.encoder(backbone, encoder, recipe.pretraining.seeds[0])


def _by_arm(recipe: Recipe, predictions: pa.Table, place: _Place) -> dict[Arm, pa.Table]:
    """The predictions of each arm at `place`, of all seeds; no rows where there are none."""
    task, backbone, fraction = place
    here = (pc.field("task") == task) & (pc.field("backbone") == backbone) & (pc.field("fraction") == fraction)
    rows = predictions.filter(here)
    return {arm: rows.filter(pc.field("arm") == arm) for arm in recipe.downstream.arms}


def _task_images(recipe: Recipe, experiment: Experiment, name: str) -> TaskImages:
    return task_images(read_table(experiment.task_images(name)), recipe.downstream.tasks[name], recipe.images)


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


def _ran(folder: Path) -> bool:
    outcome = Outcome.read(folder)
    return outcome is not None and outcome.status == "ran"


def _titled_curves(metrics: Mapping[str, Sequence[float]], method: Method) -> dict[str, Sequence[float]]:
    """The curves of a trained encoder, under the titles of their panels; one of an earlier version may lack some."""
    titles = dict(method.curve_titles)
    if method.inpaints and SCORE_INPAINTED not in metrics:
        titles[VALIDATION_LOSS] = "L_F, validation (D normalized by running statistics)"
    return {title: metrics[name] for name, title in titles.items() if name in metrics}
