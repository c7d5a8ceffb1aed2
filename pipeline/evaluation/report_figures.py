"""A recipe's figures: their files and captions, and what is drawn in them (`figures` draws it)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from matplotlib.figure import Figure

from pipeline.cohort.image_facts import SPLIT, image_facts, positions_in
from pipeline.downstream.predictions import unpack_mask
from pipeline.downstream.task_images import TaskImages, task_images
from pipeline.errors import UserError
from pipeline.evaluation import figures
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.differences import Difference
from pipeline.evaluation.display_names import arm_label, backbone_label, percent, task_label
from pipeline.evaluation.document import Picture
from pipeline.evaluation.evidence import constants_of, predictions_of
from pipeline.evaluation.figures import EmbeddingMap, InpaintingRow, Overlay
from pipeline.evaluation.metrics import image_scores
from pipeline.evaluation.report import read_report
from pipeline.evaluation.task_metrics import confusion
from pipeline.files import read_table
from pipeline.images.batches import center_patch
from pipeline.pretraining.curves import by_panel_title
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.encoder_folder import Preprocessing, read_curves
from pipeline.pretraining.inpainting import inpaint
from pipeline.pretraining.pool import load_pool
from pipeline.pretraining.top_folders import folders_if_known
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.recipe.labels import SHAPES
from pipeline.settings import Backbone
from pipeline.store import Experiment, Store
from pipeline.tables import DICOM_INDEX, EMBEDDINGS, read_pool
from pipeline.training.outcome import has_run

INPAINTING_ROWS = 8
Drawn = Iterator[tuple[Picture, Figure | None]]
"""Pictures with their figures; None if there is nothing to draw."""
_TaskModels = tuple[str, Backbone, float]
"""Task, backbone, and fraction of the training images: the models of one confusion matrix or overlay figure."""


def inpainting_pictures(recipe: Recipe, experiment: Experiment) -> dict[Backbone, Picture]:
    """The inpainting figure of each backbone (paper Figure 5), drawn or not."""
    return {
        backbone: Picture(
            experiment.reports / f"inpainting{_suffix(recipe, backbone)}.png",
            f"Validation images, the same with a hidden centre, and the inpainting of each context encoder with "
            f"{backbone_label(backbone)}{_first_of_seeds(recipe)} (paper Figure 5).",
            "A grid of ultrasound images: a row per image; original, centre hidden, and inpainted by each method.",
        )
        for backbone in recipe.pretraining.backbones
    }


def curves_pictures(recipe: Recipe, experiment: Experiment) -> dict[Backbone, Picture]:
    """The training curves of each backbone, drawn or not."""
    return {
        backbone: Picture(
            experiment.reports / f"training_curves{_suffix(recipe, backbone)}.png",
            f"Pretraining of {backbone_label(backbone)}, epoch by epoch{_first_of_seeds(recipe)}.",
            "Line charts of losses and scores by epoch, a panel per quantity and a line per pretraining method.",
        )
        for backbone in recipe.pretraining.backbones
    }


def maps_pictures(recipe: Recipe, experiment: Experiment) -> dict[Backbone, Picture]:
    """The maps of each backbone's encoders, drawn or not."""
    return {
        backbone: Picture(
            experiment.reports / f"embedding_maps{_suffix(recipe, backbone)}.png",
            f"Images of the pretraining pool on the map (t-SNE) of each encoder with {backbone_label(backbone)}, "
            f"coloured by label, machine and source{_first_of_seeds(recipe)}.",
            "A grid of scatter plots: a row per encoder, a column per fact by which the points are coloured.",
        )
        for backbone in recipe.pretraining.backbones
    }


def boxplots_pictures(recipe: Recipe, folder: Path) -> dict[tuple[float, int], Picture]:
    """The boxplots of each fraction and seed (paper Figure 6) in `folder`, drawn or not; empty without tasks.

    The first one is boxplots.png; the names of the others hold their fraction and seed.
    """
    shown = list(product(recipe.downstream.fractions, recipe.downstream.seeds)) if recipe.downstream.tasks else []
    return {
        (fraction, seed): Picture(
            folder / f"boxplots{f'_fraction-{fraction:g}_seed-{seed}' if number else ''}.png",
            f"Bootstrap values of every arm, {percent(fraction)} of the training images, seed {seed} (paper Figure 6).",
            "Boxplots of the metric, a panel per task and a box per backbone and arm; the values are in the tables.",
        )
        for number, (fraction, seed) in enumerate(shown)
    }


def differences_pictures(recipe: Recipe, folder: Path) -> list[Picture]:
    """The declared differences in `folder`, drawn or not; empty if the recipe compares nothing."""
    picture = Picture(
        folder / "differences.png",
        "Every declared difference between two arms with its 95 % interval (thin line) and its standard deviation "
        "between seeds (thick line); the marker is filled if Holm's p-value is at most 0.05.",
        "A forest plot: a panel per task, a row per comparison and share of the training images; numbers in the table.",
    )
    return [picture] if recipe.comparisons and recipe.downstream.tasks else []


def confusion_pictures(recipe: Recipe, experiment: Experiment) -> dict[_TaskModels, Picture]:
    """The confusion matrices of each ordinal task, backbone and fraction, drawn or not."""
    return {
        models: Picture(
            experiment.reports / f"confusion_{_file_stem(recipe, models)}.png",
            f"{_title(models)}: true classes in rows, predicted classes in columns; counts{_all_seeds(recipe)}, and "
            "their share of the true class.",
            "Confusion matrices, a panel per arm.",
        )
        for models in _models_by_kind(recipe, "ordinal")
    }


def overlay_pictures(recipe: Recipe, experiment: Experiment) -> dict[_TaskModels, Picture]:
    """The overlays of each segmentation task, backbone and fraction, drawn or not."""
    return {
        models: Picture(
            experiment.reports / f"overlays_{_file_stem(recipe, models)}.png",
            f"{_title(models)}, seed {recipe.downstream.seeds[0]}: true and predicted outlines on the test images with "
            "each arm's best, median and worst Dice. Arms without predictions are left out.",
            "A grid of ultrasound images with true and predicted outlines: a row per arm; best, median and worst.",
        )
        for models in _models_by_kind(recipe, "segmentation")
    }


def draw(name: str, recipe: Recipe, store: Store) -> list[Path]:
    """Draw the figure asset `name`, one of `FIGURES`; returns its PNG files.

    Raises `UserError` if the report (`differences_figure`), or the images of a task (`segmentation_overlays`), have
    changed since.
    """
    return save_all(FIGURES[name](recipe, store))


def save_all(drawn: Drawn) -> list[Path]:
    """Save the figures; without one, delete the file of an earlier run, which a report would show."""
    paths = []
    for picture, figure in drawn:
        if figure is None:
            picture.path.unlink(missing_ok=True)
        else:
            figures.save_figure(figure, picture.path)
            paths.append(picture.path)
    return paths


def _inpainting(recipe: Recipe, store: Store) -> Drawn:
    experiment, pool = store.experiment(recipe.name), load_pool(store, recipe)
    for backbone, picture in inpainting_pictures(recipe, experiment).items():
        folders = {e: _first_seed(recipe, experiment, backbone, e) for e in recipe.pretraining.context_encoders}
        trained = {arm_label(recipe, encoder): folder for encoder, folder in folders.items() if has_run(folder)}
        rows = _inpainting_rows(pool, list(trained.values())) if trained else []
        yield picture, figures.inpainting_figure(rows, list(trained)) if trained else None


def _training_curves(recipe: Recipe, store: Store) -> Drawn:
    settings, experiment = recipe.pretraining, store.experiment(recipe.name)
    for backbone, picture in curves_pictures(recipe, experiment).items():
        trained = {e: read_curves(_first_seed(recipe, experiment, backbone, e)) for e in settings.encoders}
        curves = {
            arm_label(recipe, encoder): by_panel_title(metrics, settings.method_of(encoder))
            for encoder, metrics in trained.items()
            if metrics
        }
        title = f"Pretraining of {backbone_label(backbone)}{_first_of_seeds(recipe)}"
        yield picture, figures.curves_figure(title, curves) if curves else None


def _embedding_maps(recipe: Recipe, store: Store) -> Drawn:
    """Maps of the first seed, if there are embeddings; images that have left the pool since are left out."""
    experiment = store.experiment(recipe.name)
    rows = EMBEDDINGS.read(experiment.tables) if EMBEDDINGS.path(experiment.tables).is_file() else None
    for backbone, picture in maps_pictures(recipe, experiment).items():
        maps = _maps_of(recipe, store, rows, backbone) if rows is not None else {}
        yield picture, figures.maps_figure(maps) if maps else None


def _maps_of(recipe: Recipe, store: Store, rows: pa.Table, backbone: Backbone) -> dict[str, list[EmbeddingMap]]:
    """The panels of each encoder of `backbone` that has a map."""
    pool, index = read_pool(store, recipe), DICOM_INDEX.read(store.tables)
    facts = image_facts(pool, index, folders_if_known(store.private, pool["sop_instance"].to_pylist()), recipe.labels)
    found = {}
    for encoder in recipe.pretraining.encoders:
        of_encoder = (pc.field("backbone") == backbone) & (pc.field("encoder") == encoder)
        shown = rows.filter(of_encoder & (pc.field("seed") == recipe.pretraining.seeds[0]))
        positions = np.array([-1 if at is None else at for at in positions_in(pool, shown)], np.int64)
        xy_N2 = np.column_stack([shown["x"].to_numpy(), shown["y"].to_numpy()])[positions >= 0]
        if len(xy_N2):
            of_images = {name: [values[at] for at in positions[positions >= 0]] for name, values in facts.items()}
            found[arm_label(recipe, encoder)] = [
                EmbeddingMap(name, xy_N2, of_images[name]) for name in of_images if name != SPLIT
            ]
    return found


def _boxplots(recipe: Recipe, store: Store) -> Drawn:
    experiment = store.experiment(recipe.name)
    predictions, constants = predictions_of(recipe, experiment), constants_of(recipe, experiment)
    return boxplots(recipe, predictions, constants, experiment.reports)


def boxplots(recipe: Recipe, predictions: pa.Table, constants: Sequence[Constant], folder: Path) -> Drawn:
    """The figures of `boxplots_pictures` in `folder`."""
    for (fraction, seed), picture in boxplots_pictures(recipe, folder).items():
        yield picture, figures.boxplots_figure(recipe, predictions, fraction, seed, constants)


def _differences(recipe: Recipe, store: Store) -> Drawn:
    experiment = store.experiment(recipe.name)
    return forest_plot(recipe, read_report(recipe, experiment).differences, experiment.reports)


def forest_plot(recipe: Recipe, rows: Sequence[Difference], folder: Path) -> Drawn:
    """The figure of `differences_pictures` in `folder`, if at least one of `rows` was measured."""
    measured = any(row.difference is not None for row in rows)
    for picture in differences_pictures(recipe, folder):
        yield picture, figures.differences_figure(recipe, rows) if measured else None


def _confusion_matrices(recipe: Recipe, store: Store) -> Drawn:
    """The counts of all seeds together, if an arm has predictions."""
    experiment = store.experiment(recipe.name)
    predictions = predictions_of(recipe, experiment)
    for models, picture in confusion_pictures(recipe, experiment).items():
        by_arm, classes = _by_arm(recipe, predictions, models), recipe.downstream.tasks[models[0]].classes
        matrices = {arm_label(recipe, arm): confusion(rows, len(classes)) for arm, rows in by_arm.items()}
        found = any(counts is not None for counts in matrices.values())
        title = f"{_title(models)}{_all_seeds(recipe)}"
        yield picture, figures.confusions_figure(title, classes, matrices) if found else None


def _overlays(recipe: Recipe, store: Store) -> Drawn:
    """Images of the first seed, if an arm has predictions."""
    experiment, seed = store.experiment(recipe.name), recipe.downstream.seeds[0]
    predictions = predictions_of(recipe, experiment).filter(pc.field("seed") == seed)
    for models, picture in overlay_pictures(recipe, experiment).items():
        by_arm = {arm: rows for arm, rows in _by_arm(recipe, predictions, models).items() if len(rows)}
        if not by_arm:
            yield picture, None
            continue
        task = recipe.downstream.tasks[models[0]]
        images = task_images(read_table(experiment.task_images(models[0])), task, recipe.images)
        overlays = {arm_label(recipe, arm): best_median_worst(rows, images) for arm, rows in by_arm.items()}
        yield picture, figures.overlays_figure(f"{_title(models)}, seed {seed}", task.classes[1:], overlays)


def best_median_worst(predictions: pa.Table, images: TaskImages) -> list[Overlay]:
    """Overlays of the images with a model's highest, median and lowest Dice, in this order.

    `predictions` (schema `PREDICTIONS`, at least one row) belong to one segmentation model, `images` to its task. Dice
    is averaged over the foreground classes. For an even number of images the lower median is chosen; ties keep the
    order of the manifest. Raises `UserError` if `predictions` do not match `images`.
    """
    scores = image_scores(predictions)
    order = np.lexsort((predictions["image_id"].to_numpy(), -scores))
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    rows = predictions.take(list(chosen.values())).to_pylist()
    return [
        _overlay(f"{name}: Dice {score:.3f}", row, images)
        for name, score, row in zip(chosen, scores[list(chosen.values())], rows, strict=True)
    ]


def _overlay(title: str, row: Mapping[str, Any], images: TaskImages) -> Overlay:
    truth_HW, image = unpack_mask(row["truth_mask"]), row["image_id"]
    index = images.image_ids.index(image) if image in images.image_ids else None
    if index is None or not np.array_equal(images.truth[index].numpy(), truth_HW):
        raise UserError(f"The images of {row['task']} have changed since its predictions: run the job `finetune`.")
    pixels_HW, predicted_HW = images.images_NHW[index].numpy(), unpack_mask(row["predicted_mask"])
    return Overlay(f"{title} (image {image})", pixels_HW, truth_HW, predicted_HW)


FIGURES: Mapping[str, Callable[[Recipe, Store], Drawn]] = {
    "inpainting_figure": _inpainting,
    "training_curves": _training_curves,
    "embedding_maps": _embedding_maps,
    "boxplots": _boxplots,
    "differences_figure": _differences,
    "confusion_matrices": _confusion_matrices,
    "segmentation_overlays": _overlays,
}
"""The figure assets by name; each yields its pictures with their figures."""


def _models_by_kind(recipe: Recipe, kind: str) -> list[_TaskModels]:
    tasks = [name for name, task in recipe.downstream.tasks.items() if task.kind == kind]
    return list(product(tasks, recipe.pretraining.backbones, recipe.downstream.fractions))


def _suffix(recipe: Recipe, backbone: Backbone) -> str:
    """The part of a file name that distinguishes several backbones."""
    return "" if len(recipe.pretraining.backbones) == 1 else f"_{backbone}"


def _file_stem(recipe: Recipe, models: _TaskModels) -> str:
    task, backbone, fraction = models
    fraction_suffix = "" if len(recipe.downstream.fractions) == 1 else f"_fraction-{fraction:g}"
    return f"{task}{_suffix(recipe, backbone)}{fraction_suffix}"


def _title(models: _TaskModels) -> str:
    task, backbone, fraction = models
    return f"{task_label(task)}, {backbone_label(backbone)}, {percent(fraction)} of the training images"


def _all_seeds(recipe: Recipe) -> str:
    seeds = len(recipe.downstream.seeds)
    return f", {seeds} seeds together" if seeds > 1 else ""


def _first_of_seeds(recipe: Recipe) -> str:
    """Which pretraining seed is shown, if there are several."""
    seeds = recipe.pretraining.seeds
    return f"; of {len(seeds)} pretraining seeds the first, {seeds[0]}" if len(seeds) > 1 else ""


def _first_seed(recipe: Recipe, experiment: Experiment, backbone: Backbone, encoder: str) -> Path:
    return experiment.encoder(backbone, encoder, recipe.pretraining.seeds[0])


def _by_arm(recipe: Recipe, predictions: pa.Table, models: _TaskModels) -> dict[Arm, pa.Table]:
    """The predictions of each arm's models, all seeds together; tables may be empty."""
    task, backbone, fraction = models
    selected = (pc.field("task") == task) & (pc.field("backbone") == backbone) & (pc.field("fraction") == fraction)
    rows = predictions.filter(selected)
    return {arm: rows.filter(pc.field("arm") == arm) for arm in recipe.downstream.arms}


def _inpainting_rows(pool: PretrainingSet, folders: Sequence[Path]) -> list[InpaintingRow]:
    chosen = _one_per_group(pool)
    (originals_NHW,) = pool.images.batches([torch.tensor(chosen)])
    hidden_NHW = originals_NHW.clone()
    center_patch(hidden_NHW).fill_(round(Preprocessing.read(folders[0]).mean))  # the encoder's input there
    inpainted = [inpaint(folder, originals_NHW) for folder in folders]
    return [
        InpaintingRow(
            _groups_of(pool, image),
            originals_NHW[row].numpy(),
            hidden_NHW[row].numpy(),
            [of_method[row].numpy() for of_method in inpainted],
        )
        for row, image in enumerate(chosen)
    ]


def _one_per_group(pool: PretrainingSet) -> list[int]:
    """The first validation image of each group; of a pool without labels the first validation images."""
    chosen: list[int] = []
    validation = pool.val.tolist()
    for column, name in enumerate(pool.label_names):
        of_group = [image for image in validation if pool.labels_NL[image, column] and image not in chosen]
        if name not in SHAPES and of_group:
            chosen.append(of_group[0])
    return (chosen or validation)[:INPAINTING_ROWS]


def _groups_of(pool: PretrainingSet, image: int) -> str:
    labels = pool.labels_NL[image].tolist()
    names = [name for name, value in zip(pool.label_names, labels, strict=True) if value and name not in SHAPES]
    return ", ".join(names)
