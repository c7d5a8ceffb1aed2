"""Tables of data sets and constants as they are read."""

import pyarrow as pa
import pytest

from pipeline.evaluation.constant import Constant
from pipeline.evaluation.results import results_rows
from pipeline.evaluation.tables import (
    DatasetRow,
    Inpainting,
    arm_label,
    constant_comparison_table,
    dataset_row,
    dataset_table,
    inpainting_table,
    metric_label,
    pair_label,
)
from pipeline.recipe import Recipe
from tests.pipeline.evaluation.conftest import everything, lines


def test_the_comparison_counts_the_arms_above_the_constant(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 7, "ce_dcm_frozen": 9})
    constants = [
        Constant("quality", "accuracy", "class 2", 0.75),
        Constant("liver_kidney", "dice", "mean training mask", 0.95),
    ]
    text = constant_comparison_table(recipe, results_rows(recipe, outcomes, predictions), constants).markdown()
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
    assert lines(dataset_table([row]).markdown(), "| thyroid") == [
        ["thyroid", "Segmentation", "7 (4)", "3 (2)", "3 (1)", "1 (1)"]
    ]


def test_a_variant_is_printed_as_its_method_and_what_it_changes(recipe: Recipe) -> None:
    settings = recipe.model_dump()
    settings["pretraining"]["variants"] = {
        "a": {"method": "ce_dcm", "labels": "shuffled"},
        "b": {"method": "dcm", "labels": "source", "epochs": 3},
        "c": {"method": "ce", "lambda_adv": 0, "learning_rate": 0.00025},
        "d": {"method": "ce", "discriminator_batch_norm": False},
    }
    del settings["evaluation"]["comparisons"]
    variants = Recipe.model_validate(settings)
    assert [arm_label(variants, arm) for arm in ("ce", "ce_dcm_frozen", "ce_frozen", "a_frozen", *"abcd")] == [
        *("CE", "CE+DCM+F", "CE+F", "CE+DCM+F, labels shuffled"),
        *("CE+DCM, labels shuffled", "DCM, sources as labels, epochs 3"),
        "CE, learning_rate 0.00025, lambda_adv 0",
        "CE, discriminator_batch_norm off",
    ]


def test_what_both_arms_of_a_difference_change_is_said_once(recipe: Recipe) -> None:
    settings = recipe.model_dump()
    settings["pretraining"]["variants"] = {
        "a": {"method": "ce_dcm", "lambda_adv": 0.01, "epochs": 3},
        "b": {"method": "ce", "lambda_adv": 0.01, "epochs": 3},
        "c": {"method": "ce", "epochs": 3},
    }
    del settings["evaluation"]["comparisons"]
    variants = Recipe.model_validate(settings)
    assert [pair_label(variants, *pair) for pair in (("ce_dcm_frozen", "ce"), "ab", "ac")] == [
        "CE+DCM+F − CE",
        "CE+DCM − CE, both epochs 3, lambda_adv 0.01",
        "CE+DCM, epochs 3, lambda_adv 0.01 − CE, epochs 3",
    ]


def test_inpainting_has_a_row_per_seed(recipe: Recipe) -> None:
    rows = [Inpainting("resnet50", "ce", seed, error, 0.5) for seed, error in ((0, 0.4), (1, 0.6))]
    assert lines(inpainting_table(recipe, rows).markdown(), "| ResNet-50") == [
        ["ResNet-50", "CE", "0", "0.400", "0.500", "yes"],
        ["ResNet-50", "CE", "1", "0.600", "0.500", "no"],
    ]


def test_a_pool_without_a_test_split_counts_none() -> None:
    row = dataset_row("archive", "Inpainting", pa.table({"patient": ["a", "b"], "split": ["train", "val"]}))
    assert (row.test, row.test_patients) == (0, 0)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("dice", "Dice"),
        ("iou liver", "IoU liver"),
        ("hd95 (pixels) soft tissue", "HD95 (pixels) soft tissue"),
        ("auc at least iou", "AUC at least iou"),  # a class may be called so
        ("mean absolute error", "mean absolute error"),
    ],
)
def test_a_metric_is_printed_by_its_usual_name(name: str, printed: str) -> None:
    assert metric_label(name) == printed
