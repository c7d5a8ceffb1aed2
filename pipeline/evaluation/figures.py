"""Drawing and saving the figures of a report, without a display."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from textwrap import shorten

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.cohort.image_facts import NONE, UNKNOWN
from pipeline.evaluation.bootstrap import bootstrap_means, resample_indices
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.differences import Difference
from pipeline.evaluation.display_names import arm_label, backbone_label, metric_label, pair_label, percent, task_label
from pipeline.evaluation.metrics import METRICS, image_scores, ratio
from pipeline.evaluation.results import predictions_by_cell
from pipeline.evaluation.significance import LEVEL
from pipeline.files import atomic_replace
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.recipe.evaluation import Comparison
from pipeline.settings import Backbone

DPI = 150
"""Resolution of the PNG files."""
_COLOURS = (  # distinguishable with colour blindness
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#bbbbbb", "#222222", "#44aa99", "#ddcc77", "#332288", "#999933"),
)
_MAP_COLOURS = tuple(colour for colour in _COLOURS if colour not in {"#bbbbbb", "#222222"})[:8]
_KEY_LETTERS = 28  # of a value in a key
_TRUE, _PREDICTED = "#ffd92f", "#66ccff"  # lines on a grey image
_STROKES = ("solid", "dashed", "dotted", "dashdot")  # of a segmentation's classes
_SMALL = 8
"""Font size, in points, of repeated labels."""
_WRAP = 4  # panels, or labels of a legend, side by side


@dataclass(frozen=True)
class InpaintingRow:
    """One image of the inpainting figure with its label (its organ groups); every version is grey uint8 (H, W)."""

    label: str
    original: NDArray[np.uint8]
    hidden: NDArray[np.uint8]
    inpainted: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Overlay:
    """A test image with its title: grey uint8, true class and predicted class of each pixel, all of shape (H, W)."""

    title: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


@dataclass(frozen=True)
class EmbeddingMap:
    """Positions of images (N, 2) and the value of one fact for each of them."""

    fact: str
    xy_N2: NDArray[np.float32]
    values: Sequence[str]


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as PNG; the same figure gives the same bytes. Dollar signs are plain text."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with atomic_replace(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def inpainting_figure(rows: Sequence[InpaintingRow], methods: Sequence[str]) -> Figure:
    """The inpainting figure (paper Figure 5): a row per image; columns original, hidden centre, and `methods`."""
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
        axes.set_title(title.replace(", ", ",\n"), fontsize=10)
    return figure


def curves_figure(title: str, curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Training curves: a panel per metric and a line per training; `curves[training][metric]` has a value per epoch.

    Epochs without a value (nan) are skipped: the line then has a marker at each value.
    """
    metrics = list(dict.fromkeys(metric for values in curves.values() for metric in values))
    figure, panels = _panels(len(metrics), 3.6, 2.8)
    for axes, metric in zip(panels, metrics, strict=True):
        for colour, (training, values) in enumerate(curves.items()):
            line = np.array(values.get(metric, []))
            epochs = np.flatnonzero(~np.isnan(line))
            marker = "o" if len(epochs) < len(line) else ""
            axes.plot(epochs + 1, line[epochs], color=_colour(colour), label=training, lw=1.4, marker=marker, ms=3)
        axes.set(title=metric, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    _legend(figure, panels)
    return figure


def maps_figure(maps: Mapping[str, Sequence[EmbeddingMap]]) -> Figure:
    """Maps of images: a row per encoder, a panel per fact, whose most frequent values have colours; key below."""
    facts = [panel.fact for panel in next(iter(maps.values()))]
    figure = Figure(figsize=(3.0 * len(facts), 2.7 * len(maps) + 1.2), layout="constrained")
    *grid, keys = figure.subplots(
        len(maps) + 1, len(facts), squeeze=False, gridspec_kw={"height_ratios": [*[1] * len(maps), 0.35]}
    )
    for line, (name, panels) in zip(grid, maps.items(), strict=True):
        for axes, panel in zip(line, panels, strict=True):
            _map_points(axes, panel)
        line[0].set_ylabel(name.replace(", ", ",\n"), fontsize=_SMALL)
    for axes, fact in zip(grid[0], facts, strict=True):
        axes.set_title(fact, fontsize=10)
    for axes, handles in zip(keys, (line.get_legend_handles_labels() for line in grid[0]), strict=True):
        axes.axis("off")
        axes.legend(*handles, loc="upper center", frameon=False, fontsize=7, ncols=2, markerscale=3, columnspacing=0.8)
    return figure


def _map_points(axes: Axes, panel: EmbeddingMap) -> None:
    """Frequent values in colours, above the others in grey."""
    values, counts = np.array(panel.values), Counter(panel.values)
    frequent = sorted({*counts} - {UNKNOWN, NONE}, key=lambda value: (-counts[value], value))[: len(_MAP_COLOURS)]
    x_N, y_N = panel.xy_N2.T
    for value, colour in ((None, "0.75"), *zip(frequent, _MAP_COLOURS, strict=False)):
        chosen = ~np.isin(values, frequent) if value is None else values == value
        if chosen.any():
            label = "others, or unknown" if value is None else shorten(value, _KEY_LETTERS, placeholder="…")
            axes.scatter(x_N[chosen], y_N[chosen], s=3, color=colour, label=label, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")


def boxplots_figure(
    recipe: Recipe, predictions: pa.Table, fraction: float, seed: int, constants: Sequence[Constant]
) -> Figure:
    """Bootstrap values of every arm that ran at `fraction` and `seed`: a panel per task (paper Figure 6).

    A dashed line marks the score of the task's constant predictor, if `constants` holds one.
    """
    cells = {
        c: rows for c, rows in predictions_by_cell(predictions).items() if (c.fraction, c.seed) == (fraction, seed)
    }
    levels = {constant.task: constant.score for constant in constants}
    boxes = len(recipe.pretraining.backbones) * len(recipe.downstream.arms)
    figure, panels = _panels(len(recipe.downstream.tasks), max(3.8, 0.34 * boxes + 0.8), 4.6)
    for axes, (name, task) in zip(panels, recipe.downstream.tasks.items(), strict=True):
        values = {(c.backbone, c.arm): _bootstrap_values(recipe, rows) for c, rows in cells.items() if c.task == name}
        _boxes(axes, recipe, values)
        if name in levels:
            axes.axhline(levels[name], color="0.4", ls="--", lw=1, label="best constant predictor")
        axes.set(title=task_label(name), ylabel=METRICS[task.kind].capitalize())
    settings = recipe.evaluation
    share = f"{settings.resamples} resamples of {settings.resample_share * 100:g} % of the test images"
    figure.suptitle(f"{fraction * 100:g} % of the training images, seed {seed}\n({share})", fontsize=10)
    _legend(figure, panels)
    return figure


def differences_figure(recipe: Recipe, rows: Sequence[Difference]) -> Figure:
    """A forest plot of the differences that `recipe` declares: a panel per task, a row per comparison and fraction.

    The marker is the difference, the thin line its 95 % interval, the thick line its standard deviation between seeds.
    The marker is filled if Holm's p-value is at most `LEVEL`. Differences that were not measured are marked "not run".
    """
    tasks = recipe.downstream.tasks
    lines = [(*compared, fraction) for compared, fraction in product(recipe.compared, recipe.downstream.fractions)]
    found = {(r.arm, r.against, r.backbone, r.fraction, r.task): r for r in rows}
    labels = [_forest_label(recipe, *line) for line in lines]
    figure, panels = _panels(len(tasks), 2.6, 0.26 * len(lines) + 1.1)
    figure.set_figwidth(figure.get_figwidth() + max(map(_inches, labels)))
    for number, (axes, (name, task)) in enumerate(zip(panels, tasks.items(), strict=True)):
        for position, (pair, backbone, fraction) in enumerate(lines):
            row = found[pair.arm, pair.against, backbone, fraction, name]
            _forest_row(axes, position, row, _colour(recipe.comparisons.index(pair)))
        axes.axvline(0, color="0.4", lw=1)
        axes.set(
            title=task_label(name),
            xlabel=f"difference in {metric_label(METRICS[task.kind])}",
            ylim=(len(lines) - 0.4, -0.6),
        )
        reach = max(map(abs, axes.get_xlim()))
        axes.set_xlim(-reach, reach)  # zero in the middle
        axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", lw=0.3)
        axes.set_yticks(range(len(lines)), labels if number % _WRAP == 0 else [""] * len(lines), fontsize=_SMALL)
    _key_of_forest(figure)
    return figure


def _forest_row(axes: Axes, position: int, row: Difference, colour: str) -> None:
    if row.difference is None:
        axes.plot(0, position, ls="")  # extends the axis to this row
        axes.annotate("not run", (0, position), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
        return
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [position] * 2, color=colour, lw=1.2)
    if row.seed_sd is not None:
        reach = (row.difference - row.seed_sd, row.difference + row.seed_sd)
        axes.plot(reach, [position] * 2, color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
    found = row.p_holm is not None and row.p_holm <= LEVEL
    axes.plot(row.difference, position, marker="o", ms=5, color=colour, mfc=colour if found else "white")


def _forest_label(recipe: Recipe, pair: Comparison, backbone: Backbone, fraction: float) -> str:
    prefix = f"{backbone_label(backbone)} " if len(recipe.pretraining.backbones) > 1 else ""
    return f"{prefix}{pair_label(recipe, pair.arm, pair.against)}, {percent(fraction)}"


def _inches(label: str) -> float:
    """Width of a label at size `_SMALL`."""
    return TextPath((0, 0), label, size=_SMALL).get_extents().width / 72


def _key_of_forest(figure: Figure) -> None:
    handles = [
        Line2D([], [], color="0.3", lw=1.2, label="95 % interval"),
        Line2D([], [], color="0.3", lw=5, alpha=0.35, label="± sd from seed to seed"),
        Line2D([], [], color="0.3", ls="", marker="o", ms=5, label="p (Holm) ≤ 0.05"),
        Line2D([], [], color="0.3", ls="", marker="o", ms=5, mfc="white", label="p (Holm) > 0.05, or none"),
    ]
    columns = min(_WRAP, int(figure.get_figwidth() / 2))  # an entry is at most two inches wide
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=_SMALL)


def confusions_figure(title: str, classes: Sequence[str], matrices: Mapping[str, NDArray[np.int64] | None]) -> Figure:
    """Confusion matrices, a panel per arm: counts, and their share of the true class, which sets the shade.

    A matrix has shape (classes, classes), the true class along the first axis; None marks an arm without predictions.
    """
    side = max(0.5 * len(classes) + 0.6, 2.2)
    figure, panels = _panels(len(matrices), side, side + 0.2)
    figure.set_layout_engine("constrained", hspace=0.1)
    for axes, (arm, counts_CC) in zip(panels, matrices.items(), strict=True):
        axes.set_title(arm, fontsize=10)
        if counts_CC is None:
            axes.set_axis_off()
            axes.set_box_aspect(1)  # like the other panels
            axes.text(0.5, 0.5, "no predictions", ha="center", va="center", transform=axes.transAxes)
        else:
            _confusion(axes, classes, counts_CC)
    figure.suptitle(title, fontsize=10)
    return figure


def _confusion(axes: Axes, classes: Sequence[str], counts_CC: NDArray[np.int64]) -> None:
    shares_CC = ratio(counts_CC, np.broadcast_to(counts_CC.sum(axis=1, keepdims=True), counts_CC.shape), otherwise=0)
    axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares_CC):
        number = f"{counts_CC[row, column]}\n{share * 100:.0f} %" if counts_CC[row].any() else "–"
        axes.text(column, row, number, ha="center", va="center", fontsize=8, color="white" if share > 0.6 else "black")
    upright = max(map(len, classes)) <= 3
    axes.set_xticks(range(len(classes)), classes, fontsize=8, rotation=0 if upright else 90)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)


def overlays_figure(title: str, classes: Sequence[str], rows: Mapping[str, Sequence[Overlay]]) -> Figure:
    """A row of images per arm with the outlines of the true and predicted `classes` (without background).

    Colour and width distinguish truth and prediction, the line style classes.
    """
    height, width = next(iter(rows.values()))[0].image.shape
    columns = max(len(overlays) for overlays in rows.values())
    size = (2.6 * columns + 0.8, (2.6 * height / width + 0.25) * len(rows) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (arm, overlays) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(arm, rotation=0, ha="right", va="center", fontsize=9)
        for axes, overlay in zip(line, overlays, strict=True):
            axes.imshow(overlay.image, cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.set_title(overlay.title, fontsize=8)
            _outlines(axes, overlay.truth, len(classes), _TRUE, 2.2)
            _outlines(axes, overlay.predicted, len(classes), _PREDICTED, 1.1)
    figure.suptitle(title, fontsize=10)
    _key_of_outlines(figure, classes)
    return figure


def _outlines(axes: Axes, mask_HW: NDArray[np.uint8], classes: int, colour: str, width_pt: float) -> None:
    """Draw the outline of every class in `mask_HW`, closed along the image's edges."""
    height, width = mask_HW.shape
    across, down = np.arange(-1, width + 1), np.arange(-1, height + 1)
    for value in range(1, classes + 1):
        inside = np.pad(mask_HW == value, 1)
        if inside.any():
            stroke = _STROKES[(value - 1) % len(_STROKES)]
            axes.contour(across, down, inside, levels=[0.5], colors=[colour], linestyles=[stroke], linewidths=width_pt)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _key_of_outlines(figure: Figure, classes: Sequence[str]) -> None:
    lines = [
        Line2D([], [], color=colour, ls=_STROKES[number % len(_STROKES)], label=f"{name}, {what}")
        for number, name in enumerate(classes)
        for what, colour in (("true", _TRUE), ("predicted", _PREDICTED))
    ]
    legend = figure.legend(handles=lines, loc="outside lower center", ncols=_WRAP, fontsize=8, labelcolor="white")
    legend.get_frame().set(facecolor="0.2", edgecolor="none")


def _boxes(axes: Axes, recipe: Recipe, values: Mapping[tuple[Backbone, Arm], NDArray[np.float64]]) -> None:
    """Draw one box per backbone and arm in the recipe's order; arms without values are labelled "(not run)"."""
    columns = list(product(recipe.pretraining.backbones, recipe.downstream.arms))
    for position, (backbone, arm) in enumerate(columns):
        if (backbone, arm) in values:
            _box(axes, position, values[backbone, arm], _colour(recipe.downstream.arms.index(arm)))
    names = [
        f"{backbone_label(b)} {arm_label(recipe, a)}{'' if (b, a) in values else ' (not run)'}" for b, a in columns
    ]
    labels = [name.replace(", ", ",\n") for name in names]  # one line per change of a variant
    axes.set_xticks(range(len(columns)), labels, rotation=90, fontsize=8)
    axes.set_xlim(-0.6, len(columns) - 0.4)
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


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Add one legend below all panels, with each label once."""
    found = [axes.get_legend_handles_labels() for axes in panels]
    lines = {label: line for handles, labels in found for line, label in zip(handles, labels, strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=_WRAP, frameon=False)


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of `width` × `height` inches, at most `_WRAP` side by side."""
    columns = min(count, _WRAP)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    panels = [figure.add_subplot(rows, columns, number) for number in range(1, count + 1)]
    return figure, panels
