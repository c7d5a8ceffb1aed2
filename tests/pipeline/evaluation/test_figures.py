"""Contents of figures; their appearance was checked by eye."""

import dataclasses
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from pipeline.evaluation.constant import Constant
from pipeline.evaluation.differences import Difference
from pipeline.evaluation.figures import (
    EmbeddingMap,
    InpaintingRow,
    Overlay,
    _colour,
    boxplots_figure,
    confusions_figure,
    curves_figure,
    differences_figure,
    inpainting_figure,
    maps_figure,
    overlays_figure,
    save_figure,
)
from pipeline.evaluation.report_figures import (
    draw,
    forest_plot,
    save_all,
)
from pipeline.pretraining.context_encoder import TRAIN_METRICS
from pipeline.pretraining.encoder_folder import write_curves
from pipeline.recipe import Recipe
from pipeline.store import Store
from tests.pipeline.evaluation.conftest import everything, write_models


def inpainting(label: str, level: int) -> InpaintingRow:
    versions = [np.full((16, 24), level + i, np.uint8) for i in range(4)]
    return InpaintingRow(label, versions[0], versions[1], versions[2:])


def test_the_inpainting_grid_has_a_row_per_image_and_a_column_per_version() -> None:
    axes = inpainting_figure([inpainting("liver, abdomen", 10), inpainting("thyroid", 60)], ["CE", "CE+DCM"]).axes
    assert [a.get_title() for a in axes[:4]] == ["Original", "Centre hidden", "CE", "CE+DCM"]
    assert [int(a.images[0].get_array()[0, 0]) for a in axes] == [10, 11, 12, 13, 60, 61, 62, 63]
    assert [axes[0].get_ylabel(), axes[4].get_ylabel()] == ["liver,\nabdomen", "thyroid"]
    assert {a.images[0].get_clim() for a in axes} == {(0, 255)}


def test_a_row_without_one_of_the_methods_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        inpainting_figure([inpainting("liver", 10)], ["CE"])


def test_curves_have_a_panel_per_metric_and_count_epochs_from_one() -> None:
    figure = curves_figure(
        "Pretraining", {"CE": {"L_F, training": [3, 2], "squared error": [1, 1]}, "DCM": {"L_F, training": [4]}}
    )
    loss, mse = figure.axes
    assert (loss.get_title(), mse.get_title(), mse.get_xlabel()) == ("L_F, training", "squared error", "epoch")
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 3], [2, 2]], [[1, 4]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CE", "DCM"]


def test_epochs_without_a_value_are_skipped_and_the_others_marked() -> None:
    figure = curves_figure("Pretraining", {"CE": {"rank": [math.nan, 3, math.nan, 2], "loss": [4, 3, 2, 1]}})
    rank, loss = (axes.lines[0] for axes in figure.axes)
    assert rank.get_xydata().tolist() == [[2, 3], [4, 2]]
    assert (rank.get_marker(), loss.get_marker()) == ("o", "")


def test_boxplots_have_a_panel_per_task_and_a_box_per_arm_that_ran(recipe: Recipe) -> None:
    _, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    figure = boxplots_figure(recipe, predictions, 0.05, 0, [Constant("quality", "accuracy", "class 2", 0.3)])
    quality, liver = figure.axes
    assert (quality.get_title(), liver.get_title()) == ("Quality", "Liver kidney")
    names = [tick.get_text() for tick in quality.get_xticklabels()]
    assert names[:3] == ["VGG16-BN ImageNet (not run)", "VGG16-BN CE", "VGG16-BN CE+DCM+F"]
    assert len(names) == 6
    assert len(quality.patches) == 4
    assert any(list(line.get_ydata()) == [0.3, 0.3] for line in quality.lines)


def difference_row(recipe: Recipe, task: str, fraction: float, **numbers: object) -> Difference:
    """A row of the declared comparison on ResNet-50."""
    place = ("accuracy" if task == "quality" else "dice", "ce_dcm_frozen", "ce", 4, 3, "models")
    return Difference(recipe.name, "resnet50", task, fraction, *place, **numbers)  # type: ignore[arg-type]


def forest(recipe: Recipe) -> tuple[list[Difference], Figure]:
    found = {"difference": 0.1, "low": -0.05, "high": 0.25, "seed_sd": 0.02, "p": 0.03, "p_holm": 0.2}
    sure = {"difference": -0.2, "low": -0.3, "high": -0.1, "seed_sd": None, "p": 0.01, "p_holm": 0.04}
    rows = [
        difference_row(recipe, task, fraction, **(found if fraction == 1 else sure if task == "quality" else {}))
        for fraction in (1.0, 0.05)
        for task in ("quality", "liver_kidney")
    ]
    rows += [dataclasses.replace(row, backbone="vgg16_bn", difference=None) for row in rows]
    return rows, differences_figure(recipe, rows)


def test_a_forest_plot_has_a_panel_per_task_and_a_row_per_comparison_backbone_and_fraction(three_seeds: Recipe) -> None:
    _, figure = forest(three_seeds)
    quality, liver = figure.axes
    assert (quality.get_title(), liver.get_title()) == ("Quality", "Liver kidney")
    assert [tick.get_text() for tick in quality.get_yticklabels()] == [
        "VGG16-BN CE+DCM+F − CE, 100 %",
        "VGG16-BN CE+DCM+F − CE, 5 %",
        "ResNet-50 CE+DCM+F − CE, 100 %",
        "ResNet-50 CE+DCM+F − CE, 5 %",
    ]
    assert not any(tick.get_text() for tick in liver.get_yticklabels()), "said once, on the left"
    low, high = quality.get_xlim()
    assert low == -high and quality.get_ylim()[0] > quality.get_ylim()[1], (
        "no effect in the middle, the first row above"
    )


def test_a_forest_plot_draws_intervals_seeds_and_what_holm_leaves(three_seeds: Recipe) -> None:
    quality, liver = forest(three_seeds)[1].axes
    drawn = [(line.get_xdata(), line.get_ydata(), line.get_linewidth()) for line in quality.lines]
    spans = {(*np.round(x, 3), y[0], width) for x, y, width in drawn if len(x) == 2 and y[0] == y[1]}
    assert spans == {(-0.05, 0.25, 2, 1.2), (0.08, 0.12, 2, 5), (-0.3, -0.1, 3, 1.2)}
    marks = {
        float(line.get_xdata()[0]): line.get_markerfacecolor() for line in quality.lines if line.get_marker() == "o"
    }
    assert marks[0.1] == "white" and marks[-0.2] != "white", "only the second is at most 0.05 after Holm"
    assert [text.get_text() for text in quality.texts] == ["not run"] * 2
    assert [text.get_text() for text in liver.texts] == ["not run"] * 3


def long_names(recipe: Recipe) -> Recipe:
    """One task, one backbone, eight arms with long names, and their comparisons."""
    settings = recipe.model_dump()
    rates = {f"slow_{n}": {"discriminator_learning_rate": n * 1e-6} for n in (2, 3)}
    variants = {
        f"{method}_{name}": {"method": method, **changed}
        for name, changed in (rates | {"no_norm": {"discriminator_batch_norm": False}}).items()
        for method in ("ce", "ce_dcm")
    }
    settings["pretraining"] |= {"backbones": ["resnet50"], "methods": ["ce", "ce_dcm"], "variants": variants}
    settings["downstream"]["arms"] = ["ce", "ce_dcm", *variants]
    del settings["downstream"]["tasks"]["liver_kidney"]
    pairs = [("ce_dcm", "ce"), *((f"ce_dcm_{name}", f"ce_{name}") for name in (*rates, "no_norm"))]
    settings["evaluation"]["comparisons"] = [{"arm": arm, "against": against} for arm, against in pairs]
    return Recipe.model_validate(settings)


def written(figure: Figure) -> list[Bbox]:
    """Boxes, in pixels, of the texts of a one-panel figure except the numbers on its axes."""
    figure.draw_without_rendering()
    (panel,) = figure.axes
    names = [*panel.get_yticklabels(), *panel.get_xticklabels()]
    texts = [panel.title, panel.xaxis.label, panel.yaxis.label, *(tick for tick in names if len(tick.get_text()) > 6)]
    texts += [] if figure.get_suptitle() == "" else [figure._suptitle]  # type: ignore[attr-defined]
    return [text.get_window_extent() for text in texts if text.get_text()] + [figure.legends[0].get_window_extent()]


@pytest.mark.parametrize("which", ["forest", "boxes"])
def test_long_names_are_readable_in_a_figure_of_one_task(recipe: Recipe, which: str) -> None:
    tuned = long_names(recipe)
    if which == "forest":
        rows = [
            dataclasses.replace(
                difference_row(tuned, "quality", fraction, difference=0.1), arm=pair.arm, against=pair.against
            )
            for pair in tuned.comparisons
            for fraction in (1.0, 0.05)
        ]
        figure = differences_figure(tuned, rows)
    else:
        _, predictions = everything(tuned, dict.fromkeys(tuned.downstream.arms, 7))
        figure = boxplots_figure(tuned, predictions, 1.0, 0, [Constant("quality", "accuracy", "class 2", 0.3)])
    boxes = written(figure)
    assert len(boxes) >= 8 + 3, "eight rows or boxes, title, axis, legend"
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, "nothing is cut off at the sides"
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, "nor above or below"
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), "nothing is written over something else"


def test_without_a_measured_difference_nothing_is_drawn_and_an_old_figure_goes(
    three_seeds: Recipe, tmp_path: Path
) -> None:
    rows, _ = forest(three_seeds)
    assert save_all(forest_plot(three_seeds, rows, tmp_path)) == [tmp_path / "differences.png"]
    nothing = [dataclasses.replace(row, difference=None) for row in rows]
    assert save_all(forest_plot(three_seeds, nothing, tmp_path)) == [] and not list(tmp_path.iterdir())


def test_more_arms_than_colours_are_drawn_all_the_same(three_seeds: Recipe) -> None:
    assert len({_colour(number) for number in range(12)}) == 12
    assert _colour(12) == _colour(0)


def test_a_recipe_without_tasks_has_no_boxplots(tmp_path: Path) -> None:
    assert draw("boxplots", Recipe(name="none"), Store(tmp_path)) == [] and not list(tmp_path.iterdir())


def test_a_confusion_matrix_has_a_panel_per_arm_with_counts_and_shares_of_the_true_class() -> None:
    figure = confusions_figure("Quality", ["no", "yes"], {"CE": np.array([[3, 1], [0, 0]]), "ImageNet": None})
    trained, absent = figure.axes
    assert (trained.get_title(), absent.get_title()) == ("CE", "ImageNet")
    assert [text.get_text() for text in trained.texts] == ["3\n75 %", "1\n25 %", "–", "–"]
    assert trained.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]
    assert [tick.get_text() for tick in trained.get_yticklabels()] == ["no", "yes"]
    assert [text.get_text() for text in absent.texts] == ["no predictions"]


def test_outlines_run_between_the_pixels_of_a_class_and_others(tmp_path: Path) -> None:
    """A square at the upper left corner: its outline is closed along the edges of the image."""
    truth = np.zeros((8, 12), np.uint8)
    truth[:4, :4] = 1
    overlay = Overlay("best", np.full((8, 12), 9, np.uint8), truth, np.zeros_like(truth))
    figure = overlays_figure("Liver", ["liver", "kidney"], {"CE": [overlay]})
    (axes,) = figure.axes
    assert (axes.get_title(), axes.get_ylabel()) == ("best", "CE")
    (outline,) = axes.collections
    points = np.concatenate([path.vertices for path in outline.get_paths()])
    assert (points.min(), points.max()) == (-0.5, 3.5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("liver, true", "liver, predicted", "kidney, true", "kidney, predicted"),
    ]
    save_figure(figure, tmp_path / "overlays.png")


def test_names_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    names = ["$\\frac{1}$", "$x_$", "<b>"]
    save_figure(confusions_figure("$\\nothing$", names, {"$\\no$": np.eye(3, dtype=np.int64)}), tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()


def test_confusion_matrices_are_drawn_per_backbone_and_fraction_if_an_arm_ran(recipe: Recipe, tmp_path: Path) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7})
    store = Store(tmp_path)
    experiment = store.experiment(recipe.name)
    wanted = {c: o for c, o in outcomes.items() if (c.backbone, c.task) == ("resnet50", "quality")}
    write_models(experiment, wanted, predictions)
    experiment.reports.mkdir(parents=True)
    (experiment.reports / "confusion_quality_vgg16_bn_fraction-1.png").write_bytes(b"of an earlier run")
    drawn = draw("confusion_matrices", recipe, store)
    assert sorted(path.name for path in drawn) == [
        "confusion_quality_resnet50_fraction-0.05.png",
        "confusion_quality_resnet50_fraction-1.png",
    ]
    assert sorted(experiment.reports.iterdir()) == sorted(drawn), "nothing is left of what no run drew"


def test_curves_are_drawn_of_encoders_that_were_trained_before_a_metric_was_written_down(
    recipe: Recipe, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    experiment = store.experiment(recipe.name)
    experiment.reports.mkdir(parents=True)
    validation = ("val_loss", "val_mse", "val_score_real", "val_score_inpainted", "val_diversity")
    every = dict.fromkeys((*TRAIN_METRICS, *validation), 0.5)
    write_curves(experiment.encoder("resnet50", "ce_dcm", 0), [every, every])
    since = ("train_adversarial_share", "val_score_real", "val_score_inpainted")
    earlier = {name: value for name, value in every.items() if name not in since}
    write_curves(experiment.encoder("resnet50", "ce", 0), [earlier, earlier])
    (drawn,) = draw("training_curves", recipe, store)
    assert drawn.name.startswith("training_curves") and drawn.stat().st_size > 10_000


def test_without_predictions_no_overlay_is_drawn_and_none_is_left(recipe: Recipe, tmp_path: Path) -> None:
    store = Store(tmp_path)
    experiment = store.experiment(recipe.name)
    experiment.reports.mkdir(parents=True)
    (experiment.reports / "overlays_liver_kidney_resnet50_fraction-1.png").write_bytes(b"of an earlier run")
    assert draw("segmentation_overlays", recipe, store) == [] and not list(experiment.reports.iterdir())


def test_the_same_figure_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        save_figure(inpainting_figure([inpainting("liver", 10)], ["CE", "CE+DCM"]), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_a_map_has_a_point_per_image_and_colours_for_its_most_frequent_known_values() -> None:
    counts = {**{f"group {number}": 20 - number for number in range(10)}, "unknown": 50}
    values = [value for value, count in counts.items() for _ in range(count)]
    xy = np.random.default_rng(0).normal(size=(len(values), 2)).astype(np.float32)
    panels = [EmbeddingMap("study groups", xy, values), EmbeddingMap("source", xy, ["folder 1"] * len(values))]
    figure = maps_figure({"Baseline": panels, "CE": panels})
    first, second, *_ = figure.axes
    drawn = {str(points.get_label()): len(np.asarray(points.get_offsets())) for points in first.collections}
    assert drawn == {f"group {number}": 20 - number for number in range(8)} | {"others, or unknown": 12 + 11 + 50}
    assert [str(points.get_label()) for points in second.collections] == ["folder 1"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["study groups", "source"]


def test_without_embeddings_no_map_is_drawn_and_none_is_left(recipe: Recipe, tmp_path: Path) -> None:
    store = Store(tmp_path)
    experiment = store.experiment(recipe.name)
    experiment.reports.mkdir(parents=True)
    (experiment.reports / "embedding_maps_resnet50.png").write_bytes(b"of an earlier run")
    assert draw("embedding_maps", recipe, store) == [] and not list(experiment.reports.iterdir())
