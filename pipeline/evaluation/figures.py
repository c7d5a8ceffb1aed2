"""Figures of a report, drawn without a display.

Belongs here: drawing and saving. Not here: computing what is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.evaluation.bootstrap import bootstrap_means, resample_indices
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.metrics import METRICS, image_scores
from pipeline.evaluation.results import predictions_by_cell
from pipeline.evaluation.tables import ARM_LABELS, BACKBONE_LABELS, task_label
from pipeline.files import replacing
from pipeline.recipe import Arm, Backbone, Recipe

_DPI = 150
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # told apart by the colour-blind, too
_WRAP = 4  # panels, or labels of a legend, side by side
_Place = tuple[Backbone, Arm]


@dataclass(frozen=True)
class InpaintingRow:
    """One image of the inpainting figure: what it shows (its organ groups), and its versions.

    Every version is grey uint8, shape (H, W): the original, the image with its centre hidden, one per method.
    """

    label: str
    original: NDArray[np.uint8]
    hidden: NDArray[np.uint8]
    inpainted: Sequence[NDArray[np.uint8]]


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG, whole or not at all; the same figure gives the same bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def inpainting_figure(rows: Sequence[InpaintingRow], methods: Sequence[str]) -> Figure:
    """Inpainting side by side (paper Figure 5): a row per image; original, hidden centre, one column per method.

    `methods` name the columns of `InpaintingRow.inpainted`, such as "CE".
    """
    titles = ["Original", "Centre hidden", *methods]
    height, width = rows[0].original.shape
    figure = Figure(figsize=(2.2 * len(titles) + 1.2, 2.2 * height / width * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, image in zip(line, (row.original, row.hidden, *row.inpainted), strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(row.label.replace(", ", ",\n"), rotation=0, ha="right", va="center")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    return figure


def curves_figure(title: str, curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Training curves: a panel per metric, a line per training; `curves[training][metric]` has a value per epoch.

    Metrics of one name share a panel: name what is not comparable apart.
    """
    metrics = list(dict.fromkeys(metric for values in curves.values() for metric in values))
    figure, panels = _panels(len(metrics), 3.6, 2.8)
    for axes, metric in zip(panels, metrics, strict=True):
        for colour, (training, values) in enumerate(curves.items()):
            line = values.get(metric, [])
            axes.plot(range(1, len(line) + 1), line, color=_COLOURS[colour % len(_COLOURS)], label=training, lw=1.4)
        axes.set(title=metric, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    _legend(figure, panels)
    return figure


def boxplots_figure(
    recipe: Recipe, predictions: pa.Table, fraction: float, seed: int, constants: Sequence[Constant]
) -> Figure:
    """Bootstrap values of every arm that ran at `fraction` and `seed`: a panel per task (paper Figure 6).

    A dashed line is the score of the task's best constant predictor, where `constants` holds it.
    """
    cells = {
        c: rows for c, rows in predictions_by_cell(predictions).items() if (c.fraction, c.seed) == (fraction, seed)
    }
    levels = {constant.task: constant.score for constant in constants}
    figure, panels = _panels(len(recipe.downstream.tasks), 3.8, 4.6)
    for axes, (name, task) in zip(panels, recipe.downstream.tasks.items(), strict=True):
        values = {(c.backbone, c.arm): _bootstrap_values(recipe, rows) for c, rows in cells.items() if c.task == name}
        _boxes(axes, recipe, values)
        if name in levels:
            axes.axhline(levels[name], color="0.4", ls="--", lw=1, label="best constant predictor")
        axes.set(title=task_label(name), ylabel=METRICS[task.kind].capitalize())
    settings = recipe.evaluation
    share = f"{settings.resamples} resamples of {settings.resample_share * 100:g} % of the test images"
    figure.suptitle(f"{fraction * 100:g} % of the training images, seed {seed} ({share})", fontsize=10)
    _legend(figure, panels)
    return figure


def _boxes(axes: Axes, recipe: Recipe, values: Mapping[_Place, NDArray[np.float64]]) -> None:
    """One box per backbone and arm in the recipe's order; an arm without values says "not run" in its place."""
    places = list(product(recipe.pretraining.backbones, recipe.downstream.arms))
    for position, place in enumerate(places):
        if place in values:
            _box(axes, position, values[place], _COLOURS[recipe.downstream.arms.index(place[1])])
    names = [f"{BACKBONE_LABELS[b]} {ARM_LABELS[a]}{'' if (b, a) in values else ' (not run)'}" for b, a in places]
    axes.set_xticks(range(len(places)), names, rotation=90, fontsize=8)
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.grid(axis="y", lw=0.3)


def _box(axes: Axes, position: int, values: NDArray[np.float64], colour: str) -> None:
    axes.boxplot(
        values,
        positions=[position],
        widths=0.6,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, "alpha": 0.5},
        medianprops={"color": "black"},
        flierprops={"markersize": 2},
    )


def _bootstrap_values(recipe: Recipe, predictions: pa.Table) -> NDArray[np.float64]:
    scores = image_scores(predictions)
    return bootstrap_means(scores, resample_indices(len(scores), recipe.evaluation))


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below all panels, each label once."""
    found = [axes.get_legend_handles_labels() for axes in panels]
    lines = {label: line for handles, labels in found for line, label in zip(handles, labels, strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=_WRAP, frameon=False)


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each `width` × `height` inches, at most `_WRAP` side by side."""
    columns = min(count, _WRAP)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    panels = [figure.add_subplot(rows, columns, number) for number in range(1, count + 1)]
    return figure, panels
