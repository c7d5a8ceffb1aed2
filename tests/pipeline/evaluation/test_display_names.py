"""Printed names of arms, differences and metrics."""

import pytest

from pipeline.evaluation.display_names import arm_label, metric_label, pair_label
from pipeline.recipe import Recipe


def test_a_variant_is_printed_as_its_method_and_what_it_changes(recipe: Recipe) -> None:
    settings = recipe.model_dump()
    settings["pretraining"]["variants"] = {
        "a": {"method": "ce_dcm", "labels": "shuffled"},
        "b": {"method": "dcm", "labels": "source", "epochs": 3},
        "c": {"method": "ce", "lambda_adv": 0, "learning_rate": 0.00025},
        "d": {"method": "ce", "discriminator_batch_norm": False},
        "e": {"method": "metadata_pairs", "pairs": "file"},
        "f": {"method": "ce_dcm", "labels": "shuffled", "without_source": 2, "epochs": 3},
    }
    del settings["evaluation"]["comparisons"]
    variants = Recipe.model_validate(settings)
    assert [arm_label(variants, arm) for arm in ("ce", "ce_dcm_frozen", "ce_frozen", "a_frozen", *"abcdef")] == [
        *("CE", "CE+DCM+F", "CE+F", "CE+DCM+F, labels shuffled"),
        *("CE+DCM, labels shuffled", "DCM, sources as labels, epochs 3"),
        "CE, learning_rate 0.00025, lambda_adv 0",
        "CE, discriminator_batch_norm off",
        "Pairs, pairs file",
        "CE+DCM, labels shuffled, without source 2, epochs 3",
    ]


def test_a_path_is_printed_without_its_folders(recipe: Recipe) -> None:
    settings = recipe.model_dump()
    external = {"resnet50": {"weights": "/far/smith/usfm.safetensors", "mean": 100, "sd": 50}}
    settings["pretraining"]["variants"] = {
        "a": {"method": "ce", "start_from": "/far/smith/encoder_7"},
        "b": {"method": "external", "external": external},
    }
    del settings["evaluation"]["comparisons"]
    variants = Recipe.model_validate(settings)
    assert arm_label(variants, "a") == "CE, start_from encoder_7"
    assert arm_label(variants, "b") == "External, external usfm.safetensors"


def test_changes_that_both_arms_share_are_printed_once(recipe: Recipe) -> None:
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
