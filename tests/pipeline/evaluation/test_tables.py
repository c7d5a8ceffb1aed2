"""Tables as they are read."""

import pyarrow as pa
import pytest

from pipeline.downstream.predictions import PREDICTIONS
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.results import results_rows
from pipeline.evaluation.tables import (
    DatasetRow,
    comparison_markdown,
    dataset_markdown,
    dataset_row,
    results_markdown,
)
from pipeline.recipe import Recipe
from tests.pipeline.evaluation.conftest import everything


def lines(markdown: str, start: str) -> list[list[str]]:
    """Cells of the table rows that begin with `start`."""
    return [
        [c.strip() for c in line.strip("| ").split("|")] for line in markdown.splitlines() if line.startswith(start)
    ]


@pytest.fixture
def markdown(recipe: Recipe) -> str:
    outcomes, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    return results_markdown(recipe, results_rows(recipe, outcomes, predictions), predictions)


def test_the_layout_is_the_papers_with_one_table_per_fraction(markdown: str) -> None:
    assert [line for line in markdown.splitlines() if line.startswith("#")] == [
        "### 100 % of the training images, seed 0",
        "### 5 % of the training images, seed 0",
    ]
    head = ["Backbone", "Pretraining", "Quality (accuracy)", "Liver kidney (dice)"]
    assert lines(markdown, "| Backbone") == [head, head]
    arms = ["ImageNet", "CE", "CE+DCM+F"]
    assert [row[1] for row in lines(markdown, "| VGG16-BN")] == arms * 2
    assert [row[1] for row in lines(markdown, "| ResNet-50")] == arms * 2


def test_the_best_of_each_backbone_and_task_is_bold_and_no_other(markdown: str) -> None:
    for row in lines(markdown, "| VGG16-BN") + lines(markdown, "| ResNet-50"):
        bold = [cell.startswith("**0.900 ± ") and cell.endswith("**") for cell in row[2:]]
        assert bold == [row[1] == "CE+DCM+F"] * 2
    assert lines(markdown, "| ResNet-50")[1][2].startswith("0.700 ± 0.")


def test_arms_that_print_alike_are_both_bold(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 8, "ce_dcm_frozen": 8})
    rows = lines(results_markdown(recipe, results_rows(recipe, outcomes, predictions), predictions), "| ResNet-50")
    assert [row[2].startswith("**") for row in rows[:3]] == [False, True, True]


def test_an_arm_that_did_not_run_says_so_and_why_below(markdown: str) -> None:
    assert lines(markdown, "| ResNet-50")[0][2:] == ["not run", "not run"]
    assert "- ResNet-50 ImageNet, Quality, Liver kidney: not run: no file" in markdown


def test_an_arm_without_rows_is_not_run(recipe: Recipe) -> None:
    bare = results_markdown(recipe, [], PREDICTIONS.empty_table())
    rows = lines(bare, "| ResNet-50") + lines(bare, "| VGG16-BN")
    assert len(rows) == 12
    assert {cell for row in rows for cell in row[2:]} == {"not run"}


def test_images_and_patients_trained_on_are_printed(markdown: str) -> None:
    assert "Trained on: Quality 100 images of 20 patients; Liver kidney 100 images of 20 patients." in markdown
    assert "Trained on: Quality 5 images of 1 patient; Liver kidney 5 images of 1 patient." in markdown


def test_the_comparison_counts_the_arms_above_the_constant(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    constants = [
        Constant("quality", "accuracy", "class 2", 0.75),
        Constant("liver_kidney", "dice", "mean training mask", 0.95),
    ]
    text = comparison_markdown(results_rows(recipe, outcomes, predictions), constants)
    quality, liver = lines(text, "| Quality")[0], lines(text, "| Liver")[0]
    assert quality[:5] == ["Quality", "100 %", "0", "accuracy", "0.750 (class 2)"]
    assert quality[5].startswith("0.900 ± ")
    assert quality[5].endswith("(VGG16-BN CE+DCM+F)")
    assert quality[6] == "2 of 4"
    assert liver[6] == "0 of 4"


def test_the_data_set_table_counts_images_and_patients_by_split() -> None:
    table = pa.table(
        {
            "patient": ["a", "a", "b", "c", "c", "c", "d"],
            "split": ["train", "train", "train", "val", "val", "val", "test"],
        }
    )
    row = dataset_row("thyroid", "Segmentation", table)
    assert row == DatasetRow("thyroid", "Segmentation", 7, 3, 3, 1, 4, 2, 1, 1)
    assert lines(dataset_markdown([row]), "| thyroid") == [
        ["thyroid", "Segmentation", "7 (4)", "3 (2)", "3 (1)", "1 (1)"]
    ]


def test_a_pool_without_a_test_split_counts_none() -> None:
    row = dataset_row("archive", "Inpainting", pa.table({"patient": ["a", "b"], "split": ["train", "val"]}))
    assert (row.test, row.test_patients) == (0, 0)
