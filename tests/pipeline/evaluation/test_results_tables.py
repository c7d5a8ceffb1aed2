"""Printed tables of results, differences and metrics."""

import pytest

from pipeline.downstream.predictions import PREDICTIONS, Cell
from pipeline.evaluation.differences import differences
from pipeline.evaluation.document import Section
from pipeline.evaluation.results import results_rows
from pipeline.evaluation.results_tables import (
    differences_sections,
    metrics_sections,
    results_latex,
    results_sections,
)
from pipeline.evaluation.summaries import summaries
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome
from tests.pipeline.evaluation.conftest import everything, lines, of_seeds


def text_of(sections: list[Section]) -> str:
    return "\n".join(section.markdown() for section in sections)


def printed(recipe: Recipe, right: dict[str, int]) -> str:
    outcomes, predictions = everything(recipe, right)
    results = results_rows(recipe, outcomes, predictions)
    return text_of(results_sections(recipe, results, summaries(recipe, results, predictions), predictions))


@pytest.fixture
def markdown(recipe: Recipe) -> str:
    return printed(recipe, {"ce": 7, "ce_dcm_frozen": 9})


def test_the_layout_is_the_papers_with_one_table_per_fraction(markdown: str) -> None:
    assert [line for line in markdown.splitlines() if line.startswith("#")] == [
        "### 100 % of the training images, seed 0",
        "### 5 % of the training images, seed 0",
    ]
    head = ["Backbone", "Pretraining", "Quality (accuracy)", "Liver kidney (Dice)"]
    assert lines(markdown, "| Backbone") == [head, head]
    arms = ["ImageNet", "CE", "CE+DCM+F"]
    assert [row[1] for row in lines(markdown, "| VGG16-BN")] == arms * 2
    assert [row[1] for row in lines(markdown, "| ResNet-50")] == arms * 2


def test_the_best_of_each_backbone_and_task_is_bold_and_no_other(markdown: str) -> None:
    for row in lines(markdown, "| VGG16-BN") + lines(markdown, "| ResNet-50"):
        bold = [cell.startswith("**0.900 ± ") and cell.endswith("**") for cell in row[2:]]
        assert bold == [row[1] == "CE+DCM+F"] * 2
    assert lines(markdown, "| ResNet-50")[1][2].startswith("0.700 ± 0.")


def test_arms_with_the_same_printed_mean_are_both_bold(recipe: Recipe) -> None:
    rows = lines(printed(recipe, {"ce": 8, "ce_dcm_frozen": 8}), "| ResNet-50")
    assert [row[2].startswith("**") for row in rows[:3]] == [False, True, True]


def test_an_arm_that_did_not_run_has_its_reason_below_the_table(markdown: str) -> None:
    assert lines(markdown, "| ResNet-50")[0][2:] == ["not run", "not run"]
    assert "- ResNet-50 ImageNet, Quality, Liver kidney: not run: no file" in markdown


def test_an_arm_without_rows_is_not_run(recipe: Recipe) -> None:
    bare = text_of(results_sections(recipe, [], [], PREDICTIONS.empty_table()))
    rows = lines(bare, "| ResNet-50") + lines(bare, "| VGG16-BN")
    assert len(rows) == 12
    assert {cell for row in rows for cell in row[2:]} == {"not run"}


def test_images_and_patients_trained_on_are_printed(markdown: str) -> None:
    assert "Trained on: Quality 100 images of 20 patients; Liver kidney 100 images of 20 patients." in markdown
    assert "Trained on: Quality 5 images of 1 patient; Liver kidney 5 images of 1 patient." in markdown


def test_seed_spread_stands_beside_bootstrap_spread(three_seeds: Recipe) -> None:
    """7, 8 and 9 of ten images right, by seed: mean 0.8, deviation of the seeds 0.1."""
    results, predictions = of_seeds(three_seeds, {"ce": (7, 8, 9), "ce_dcm_frozen": (5, 5, 5)})
    text = text_of(results_sections(three_seeds, results, summaries(three_seeds, results, predictions), predictions))
    assert "### 100 % of the training images, mean over seeds 0, 1, 2" in text
    _, ce, frozen = lines(text, "| ResNet-50")[:3]
    assert ce[2].startswith("**0.800 ± 0.") and ce[2].endswith(" (seeds 0.100)**")
    assert frozen[2].startswith("0.500 ± 0.") and frozen[2].endswith(" (seeds 0.000)")


def test_a_diverged_seed_is_counted_and_has_its_reason_below_the_table(three_seeds: Recipe) -> None:
    outcomes, predictions = everything(three_seeds, {"ce": 7})
    lost = Cell("tiny", "resnet50", "ce", "quality", 1.0, 1)
    results = results_rows(three_seeds, outcomes | {lost: Outcome("diverged", "train_loss was nan", "f")}, predictions)
    text = text_of(results_sections(three_seeds, results, summaries(three_seeds, results, predictions), predictions))
    assert lines(text, "| ResNet-50")[1][2].endswith("(seeds 0.000; 2 of 3 seeds)")
    assert "- ResNet-50 CE, Quality (seed 1): diverged: train_loss was nan" in text
    assert "- ResNet-50 ImageNet, Quality, Liver kidney: not run: no file" in text


@pytest.mark.parametrize("with_tags", [7, 9])
def test_an_arm_with_a_seed_missing_is_not_bold_though_its_number_is_the_best(
    three_seeds: Recipe, with_tags: int
) -> None:
    """Even if the best of the other arms has the same printed mean."""
    outcomes, predictions = everything(three_seeds, {"ce": 9, "ce_dcm_frozen": with_tags})
    del outcomes[Cell("tiny", "resnet50", "ce", "quality", 1.0, 1)]
    results = results_rows(three_seeds, outcomes, predictions)
    text = text_of(results_sections(three_seeds, results, summaries(three_seeds, results, predictions), predictions))
    _, ce, frozen = lines(text, "| ResNet-50")[:3]
    assert ce[2].startswith("0.900 ± ") and frozen[2].startswith(f"**0.{with_tags}00 ± ")
    assert ce[3].startswith("**0.900 ± "), "of the other task every seed ran"


def test_differences_have_intervals_and_p_values(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (4, 4, 4), "ce_dcm_frozen": (9, 9, 9)})
    tested = differences(three_seeds, results, predictions)
    text = text_of(differences_sections(three_seeds, tested))
    assert text.count("| Backbone | Task | Compared |") == 2
    assert "| p, Holm (4 tests) |" in text
    row = lines(text, "| ResNet-50 | Quality")[0]
    assert row[1:3] == ["Quality (accuracy)", "CE+DCM+F − CE"]
    found = next(d for d in tested if (d.backbone, d.task) == ("resnet50", "quality"))
    assert row[3] == f"+0.500 [+{found.low:.3f}, +{found.high:.3f}]"
    assert row[4:6] == ["0.000", f"{found.p:.3f}"]
    assert row[7] == "10 (10)"
    assert all(len(section.notes) == 1 for section in differences_sections(three_seeds, tested))


def test_a_difference_without_a_result_has_its_reason_below_the_table(three_seeds: Recipe) -> None:
    outcomes, predictions = everything(three_seeds, {"ce": 4})
    tested = differences(three_seeds, results_rows(three_seeds, outcomes, predictions), predictions)
    section, _ = differences_sections(three_seeds, tested)
    assert section.table.rows[0][:1] + section.table.rows[0][3:] == ("VGG16-BN", "not run", "–", "–", "–", "–")
    assert section.notes == [], "no p-value, so nothing that it applies to"
    assert section.points[0].startswith("CE+DCM+F − CE, VGG16-BN, Quality: CE+DCM+F, seed 0: not run: ")


def test_other_metrics_are_printed_for_every_arm_that_ran(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    text = text_of(
        metrics_sections(recipe, summaries(recipe, results_rows(recipe, outcomes, predictions), predictions))
    )
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### Quality: 100 % of the training images, seed 0",
        "### Quality: 5 % of the training images, seed 0",
        "### Liver kidney: 100 % of the training images, seed 0",
        "### Liver kidney: 5 % of the training images, seed 0",
    ]
    quality, _, liver, _ = lines(text, "| Backbone")
    assert quality[2:] == ["mean absolute error", "quadratic kappa", "AUC at least 1", "AUC at least 2"]
    assert liver[2:] == [
        *("IoU", "HD95 (pixels)", "Dice liver", "Dice kidney", "IoU liver", "IoU kidney"),
        *("HD95 (pixels) liver", "HD95 (pixels) kidney"),
    ]
    ce = lines(text, "| VGG16-BN | CE |")[0]
    assert ce[2].startswith("0.300 ± 0.")
    assert ce[4:] == ["–", "–"], "every true class is 2, so no threshold has two sides"


def test_latex_holds_the_same_numbers(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (4, 4, 4), "ce_dcm_frozen": (9, 9, 9)})
    rows, tested = summaries(three_seeds, results, predictions), differences(three_seeds, results, predictions)
    latex = results_latex(three_seeds, rows, tested)
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 4
    assert r"ResNet-50 & ImageNet & not run & not run \\" in latex
    assert r"\textbf{0.900 $\pm$ 0." in latex
    assert r"CE+DCM+F $-$ CE" in latex
    bare = results_latex(three_seeds, [], [])
    assert bare.count("not run") == 2 * 3 * 2 * 2, "backbones, arms, tasks, fractions"


@pytest.mark.parametrize(
    ("pretraining", "fine_tuning", "told"), [(1, 3, False), (3, 3, True), (4, 4, True), (5, 5, False)]
)
def test_few_pretraining_seeds_come_with_the_rate_at_which_they_mislead(
    three_seeds: Recipe, pretraining: int, fine_tuning: int, told: bool
) -> None:
    settings = three_seeds.model_dump()
    settings["pretraining"]["seeds"] = list(range(pretraining))
    settings["downstream"]["seeds"] = list(range(fine_tuning))
    recipe = Recipe.model_validate(settings)
    right = {"ce": (2, 4, 5, 3, 3)[:fine_tuning], "ce_dcm_frozen": (7, 6, 5, 6, 6)[:fine_tuning]}
    tested = differences(recipe, *of_seeds(recipe, right))
    notes = [note for section in differences_sections(recipe, tested) for note in section.notes]
    assert len(notes) == 2 and all(("43 %" in note) == told for note in notes)
    assert all(("apply to the models" in note) == (pretraining == 1 or told) for note in notes)
