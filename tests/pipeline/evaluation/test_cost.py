"""What trainings took, added up."""

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.collapse import Training
from pipeline.evaluation.cost import cost_grid
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome

RECIPE = Recipe(name="tiny")


def cell(arm: str, fraction: float, seed: int) -> Cell:
    return Cell("tiny", "resnet50", arm, "quality", fraction, seed)


def test_seeds_of_an_encoder_and_arms_of_a_task_and_fraction_are_added_up() -> None:
    trainings = [
        Training("resnet50", "ce", seed, "ran", "", {}, seconds) for seed, seconds in ((0, 600.0), (1, 1200.0))
    ]
    outcomes = {
        cell("ce", 1.0, 0): Outcome("ran", "", "f", 60.0),
        cell("baseline", 1.0, 1): Outcome("ran", "", "f", 120.0),
        cell("ce", 0.05, 0): Outcome("ran", "", "f", 36.0),
        cell("ce", 0.05, 1): Outcome("diverged", "nan", "f"),
    }
    assert cost_grid(RECIPE, trainings, outcomes).rows == [
        ("ResNet-50", "Pretraining, CE", "2", "15.0", "0.50"),
        ("ResNet-50", "Fine-tuning, Quality, 100 % of the training images", "2", "1.5", "0.05"),
        ("ResNet-50", "Fine-tuning, Quality, 5 % of the training images", "1", "0.6", "0.01"),
    ]


def test_where_the_time_of_one_is_not_known_there_is_no_sum() -> None:
    known, unknown = Training("resnet50", "ce", 0, "ran", "", {}, 600.0), Training("resnet50", "ce", 1, "ran", "", {})
    assert cost_grid(RECIPE, [known, unknown], {}).rows == [("ResNet-50", "Pretraining, CE", "2", "10.0", "–")]
    assert cost_grid(RECIPE, [unknown], {}).rows == [("ResNet-50", "Pretraining, CE", "1", "–", "–")]
    assert cost_grid(RECIPE, [Training("resnet50", "ce", 0, "diverged", "nan", {})], {}).rows == []
