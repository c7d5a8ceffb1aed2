"""Sums of training times."""

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.evidence import Training
from pipeline.evaluation.training_time import training_time_table
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome, Status

QUALITY = {"kind": "ordinal", "classes": ["0", "1"], "epochs": 1, "batch_size": 1, "learning_rate": {"resnet50": 1}}
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "pretraining": {
            "backbones": ["resnet50"],
            "seeds": [0, 1],
            "variants": {"ce_shuffled": {"method": "ce_dcm", "labels": "shuffled"}},
        },
        "downstream": {
            "seeds": [0, 1, 2, 3],
            "fractions": [1.0, 0.05],
            "tasks": {"quality": {"manifest": "unused.csv", **QUALITY}},
        },
    }
)


def trained(encoder: str, seed: int, seconds: float | None, status: Status = "ran") -> Training:
    return Training("resnet50", encoder, seed, status, "", {}, seconds)


def tuned(arm: str, fraction: float, seed: int) -> Cell:
    return Cell("tiny", "resnet50", arm, "quality", fraction, seed)


def test_seeds_of_an_encoder_and_arms_of_a_task_and_fraction_are_added_up() -> None:
    trainings = [trained("ce", 0, 600.0), trained("ce", 1, 1200.0), trained("ce_shuffled", 0, 360.0)]
    outcomes = {
        tuned("ce", 1.0, 0): Outcome("ran", "", "f", 60.0),
        tuned("baseline", 1.0, 1): Outcome("ran", "", "f", 120.0),
        tuned("imagenet", 1.0, 1): Outcome("unavailable", "no file", "f"),
        tuned("ce", 0.05, 0): Outcome("ran", "", "f", 36.0),
    }
    assert training_time_table(RECIPE, trainings, outcomes).rows == [
        ("ResNet-50", "Pretraining, CE", "2", "15.0", "0.50"),
        ("ResNet-50", "Pretraining, CE+DCM, labels shuffled", "1", "6.0", "0.10"),
        ("ResNet-50", "Fine-tuning, Quality, 100 % of the training images", "2", "1.5", "0.05"),
        ("ResNet-50", "Fine-tuning, Quality, 5 % of the training images", "1", "0.6", "0.01"),
    ]


def test_with_unknown_times_the_mean_counts_the_known_ones_and_there_is_no_sum() -> None:
    known, unknown = trained("ce", 0, 600.0), trained("ce", 1, None)
    assert training_time_table(RECIPE, [known, unknown], {}).rows == [
        ("ResNet-50", "Pretraining, CE", "2", "10.0 (1 of 2)", "–")
    ]
    assert training_time_table(RECIPE, [unknown], {}).rows == [("ResNet-50", "Pretraining, CE", "1", "–", "–")]


def test_an_encoder_that_is_not_trained_costs_nothing() -> None:
    trainings = [trained("baseline", 0, 6.0), trained("imagenet", 0, 6.0), trained("dcm", 0, 60.0)]
    assert training_time_table(RECIPE, trainings, {}).rows == [("ResNet-50", "Pretraining, DCM", "1", "1.0", "0.02")]


def test_trainings_that_diverged_took_their_time_too() -> None:
    trainings = [trained("ce", 0, 600.0), trained("ce", 1, 300.0, "diverged")]
    outcomes = {
        tuned("baseline", 1.0, 0): Outcome("ran", "", "f", 60.0),
        tuned("baseline", 1.0, 1): Outcome("diverged", "nan", "f", 30.0),
    }
    assert training_time_table(RECIPE, trainings, outcomes).rows == [
        ("ResNet-50", "Pretraining, CE", "2 (1 diverged)", "7.5", "0.25"),
        ("ResNet-50", "Fine-tuning, Quality, 100 % of the training images", "2 (1 diverged)", "0.8", "0.03"),
    ]


def test_of_an_encoder_that_diverged_no_model_was_trained() -> None:
    """Seed 3 of fine-tuning takes the encoder of pretraining seed 1; the frozen arm's encoder is CE+DCM."""
    lost = [trained("ce", 1, 300.0, "diverged"), trained("ce_dcm", 0, 300.0, "diverged")]
    passed_on = Outcome("diverged", "nan", "f")
    outcomes = {
        tuned("ce", 1.0, 2): Outcome("ran", "", "f", 60.0),
        tuned("ce", 1.0, 3): passed_on,
        tuned("ce_dcm_frozen", 1.0, 0): passed_on,
    }
    assert training_time_table(RECIPE, lost, outcomes).rows == [
        ("ResNet-50", "Pretraining, CE", "1 (1 diverged)", "5.0", "0.08"),
        ("ResNet-50", "Pretraining, CE+DCM", "1 (1 diverged)", "5.0", "0.08"),
        ("ResNet-50", "Fine-tuning, Quality, 100 % of the training images", "1", "1.0", "0.02"),
    ]
