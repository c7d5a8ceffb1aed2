"""The declared differences: which arms, which images, which family."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from pipeline.downstream.predictions import PREDICTIONS, Cell
from pipeline.evaluation.differences import Difference, about_of, differences
from pipeline.evaluation.figures import differences_figure
from pipeline.evaluation.results import results_rows
from pipeline.evaluation.significance import paired_test
from pipeline.recipe import Recipe
from pipeline.training.outcome import Outcome
from tests.pipeline.evaluation.conftest import everything, of_seeds, predicted, renamed


def patients_of(predictions: pa.Table, count: int) -> pa.Table:
    """The predictions with their images distributed over `count` patients."""
    return renamed(predictions, [f"p{number}" for number in range(count)])


def of(rows: list[Difference], backbone: str, task: str, fraction: float = 1.0) -> Difference:
    (row,) = [r for r in rows if (r.backbone, r.task, r.fraction) == (backbone, task, fraction)]
    return row


def test_every_backbone_and_task_of_a_regime_is_one_family(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (4, 4, 4), "ce_dcm_frozen": (8, 8, 8)})
    rows = differences(three_seeds, results, predictions)
    assert [(r.fraction, r.backbone, r.task) for r in rows] == [
        (fraction, backbone, task)
        for fraction in (1.0, 0.05)
        for backbone in ("vgg16_bn", "resnet50")
        for task in ("quality", "liver_kidney")
    ]
    assert {(r.arm, r.against, r.family, r.seeds, r.n_test, r.n_test_patients) for r in rows} == {
        ("ce_dcm_frozen", "ce", 4, 3, 10, 10)
    }
    for row in rows:
        assert row.p is not None
        assert row.p_holm == pytest.approx(min(1, 4 * row.p)), "all four are equal, so the largest factor decides"


def test_a_comparison_of_one_backbone_is_no_test_of_the_other(three_seeds: Recipe) -> None:
    """As in the paper, each backbone has its own pair of arms. Two tasks make four tests, two of each pair."""
    settings = three_seeds.model_dump()
    settings["evaluation"]["comparisons"] = [
        {"arm": "ce_dcm_frozen", "against": "ce", "backbones": ["resnet50"]},
        {"arm": "imagenet", "against": "ce", "backbones": ["vgg16_bn"]},
    ]
    paper = Recipe.model_validate(settings)
    rows = differences(paper, *of_seeds(paper, {"ce": (4, 4, 4), "ce_dcm_frozen": (8, 8, 8), "imagenet": (5, 5, 5)}))
    assert {(r.backbone, r.arm, r.against, r.family) for r in rows} == {
        ("resnet50", "ce_dcm_frozen", "ce", 4),
        ("vgg16_bn", "imagenet", "ce", 4),
    }
    assert len(rows) == 2 * 4, "two shares of the training images"
    (figure_rows,) = {len(axes.get_yticks()) for axes in differences_figure(paper, rows).axes}
    assert figure_rows == 2 * 2


def test_the_difference_is_arm_minus_against_tested_by_patient(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (2, 4, 5), "ce_dcm_frozen": (7, 6, 5)})
    predictions = patients_of(predictions, 8)
    row = of(differences(three_seeds, results, predictions), "resnet50", "liver_kidney")
    image = np.arange(10)[:, None]
    signs = (image < np.array([7, 6, 5])).astype(float) - (image < np.array([2, 4, 5]))
    expected = paired_test(signs, [f"p{i % 8}" for i in range(10)], 20_000, three_seeds.evaluation.seed)
    assert row.difference == pytest.approx((5 + 2 + 0) / 30)
    assert (row.low, row.high, row.p) == (expected.low, expected.high, expected.p)
    assert row.seed_sd == pytest.approx(np.std([0.5, 0.2, 0.0], ddof=1))
    assert row.n_test_patients == 8


def test_a_p_value_applies_to_the_encoders_if_seeds_are_drawn_too(three_seeds: Recipe) -> None:
    settings = three_seeds.model_dump()
    settings["downstream"] |= {"seeds": [0, 1, 2, 3, 4], "fractions": [1.0]}
    five_seeds = Recipe.model_validate(settings)
    few = differences(three_seeds, *of_seeds(three_seeds, {"ce": (2, 4, 5), "ce_dcm_frozen": (7, 6, 5)}))
    many = differences(five_seeds, *of_seeds(five_seeds, {"ce": (2, 4, 5, 4, 4), "ce_dcm_frozen": (7, 6, 5, 5, 4)}))
    assert {row.about for row in few} == {"models"}
    assert {row.about for row in many} == {"encoders"}


def repeated(recipe: Recipe, pretraining: int, fine_tuning: int) -> Recipe:
    settings = recipe.model_dump()
    settings["pretraining"]["seeds"] = list(range(pretraining))
    settings["downstream"] |= {"seeds": list(range(fine_tuning)), "fractions": [1.0]}
    return Recipe.model_validate(settings)


@pytest.mark.parametrize(
    ("pretraining", "fine_tuning", "about"),
    [
        *((1, 1, "models"), (1, 4, "models"), (1, 5, "encoders"), (3, 3, "models"), (2, 6, "models")),
        *((4, 4, "models"), (5, 5, "methods"), (5, 10, "methods")),
    ],
)
def test_what_a_p_value_is_about_follows_from_what_was_repeated(
    three_seeds: Recipe, pretraining: int, fine_tuning: int, about: str
) -> None:
    assert about_of(repeated(three_seeds, pretraining, fine_tuning)) == about


def test_models_of_one_encoder_count_as_one_draw(three_seeds: Recipe) -> None:
    """Six fine-tunings of two encoders are two draws, too few; ten of five are five, each a mean of two."""
    few = repeated(three_seeds, 2, 6)
    right = {"ce": (2, 4, 2, 4, 2, 4), "ce_dcm_frozen": (7, 6, 6, 6, 6, 5)}
    row = of(differences(few, *of_seeds(few, right)), "resnet50", "quality")
    image = np.arange(10)[:, None]
    patients = [f"p{i}" for i in range(10)]

    def signs(better: tuple[int, ...], worse: tuple[int, ...]) -> NDArray[np.float64]:
        return (image < np.array(better)).astype(float) - (image < np.array(worse))

    averaged = signs(right["ce_dcm_frozen"], right["ce"]).mean(axis=1, keepdims=True)
    alone = paired_test(averaged, patients, 20_000, few.evaluation.seed)
    assert (row.difference, row.p) == (pytest.approx(alone.difference), pytest.approx(alone.p))
    many = repeated(three_seeds, 5, 10)
    right = {"ce": (2, 4, 5, 4, 3) * 2, "ce_dcm_frozen": (7, 6, 5, 5, 4, 6, 6, 6, 6, 6)}
    row = of(differences(many, *of_seeds(many, right)), "resnet50", "quality")
    every = signs(right["ce_dcm_frozen"], right["ce"])
    pairs = np.stack([(every[:, k] + every[:, k + 5]) / 2 for k in range(5)], axis=1)
    drawn = paired_test(pairs, patients, 20_000, many.evaluation.seed)
    assert (row.p, row.low, row.high) == (pytest.approx(drawn.p), pytest.approx(drawn.low), pytest.approx(drawn.high))
    assert row.seeds == 10


def test_images_are_paired_not_averaged_apart(recipe: Recipe) -> None:
    """Both arms err on the same images: their difference has no spread, though each arm's score has."""
    one = Recipe.model_validate(
        recipe.model_dump() | {"evaluation": {"comparisons": [{"arm": "ce_dcm_frozen", "against": "ce"}]}}
    )
    results, predictions = of_seeds(one, {"ce": (5,), "ce_dcm_frozen": (5,)})
    row = of(differences(one, results, predictions), "resnet50", "quality")
    assert (row.difference, row.low, row.high, row.p, row.p_holm, row.seed_sd) == (0, 0, 0, 1, 1, None)


def test_fewer_than_six_test_patients_give_a_reason_instead_of_a_p_value(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (4, 4, 4), "ce_dcm_frozen": (8, 8, 8)})
    row = of(differences(three_seeds, results, patients_of(predictions, 5)), "resnet50", "quality")
    assert row.difference == pytest.approx(0.4)
    assert (row.low, row.high, row.p, row.p_holm) == (None,) * 4
    assert row.n_test_patients == 5 and "5 test patients" in row.reason


def test_an_arm_that_did_not_run_with_every_seed_is_not_compared_but_stays_in_the_family(three_seeds: Recipe) -> None:
    outcomes, predictions = everything(three_seeds, {"ce": 4, "ce_dcm_frozen": 8})
    lost = Cell("tiny", "resnet50", "ce", "quality", 1.0, 2)
    outcomes |= {lost: Outcome("diverged", "train_loss was nan", "f")}
    rows = differences(three_seeds, results_rows(three_seeds, outcomes, predictions), predictions)
    row, other = of(rows, "resnet50", "quality"), of(rows, "vgg16_bn", "quality")
    assert (row.difference, row.p, row.p_holm, row.n_test) == (None,) * 4
    assert row.reason == "CE, seed 2: diverged: train_loss was nan"
    assert other.p is not None
    assert other.p_holm == pytest.approx(4 * other.p)
    assert of(rows, "resnet50", "quality", 0.05).p is not None, "the other regime has both"


def test_predictions_of_different_test_images_are_not_paired(three_seeds: Recipe) -> None:
    results, predictions = of_seeds(three_seeds, {"ce": (4, 4, 4), "ce_dcm_frozen": (8, 8, 8)})
    cell = Cell("tiny", "vgg16_bn", "ce", "quality", 1.0, 0)
    is_cell = pc.field("seed") == 0
    for name in ("backbone", "arm", "task", "fraction"):
        is_cell &= pc.field(name) == getattr(cell, name)
    others = predicted(three_seeds, cell, 4)
    moved = others.set_column(
        PREDICTIONS.get_field_index("image_id"), "image_id", pc.add(others["image_id"], pa.scalar(1, pa.int64()))
    ).cast(PREDICTIONS)
    mixed = pa.concat_tables([predictions.filter(~is_cell), moved])
    row = of(differences(three_seeds, results, mixed), "vgg16_bn", "quality")
    assert (row.difference, row.p) == (None, None)
    assert "different test images" in row.reason and "`finetune`" in row.reason


def test_a_recipe_that_does_not_train_the_default_arms_compares_nothing(recipe: Recipe) -> None:
    outcomes, predictions = everything(recipe, {"ce": 4})
    assert differences(recipe, results_rows(recipe, outcomes, predictions), predictions) == []


def test_without_any_run_every_difference_has_a_reason(three_seeds: Recipe) -> None:
    rows = differences(three_seeds, results_rows(three_seeds, {}, PREDICTIONS.empty_table()), PREDICTIONS.empty_table())
    assert len(rows) == 2 * 2 * 2
    assert all(r.reason.startswith("CE+DCM+F, seed 0: not run: ") for r in rows)
    assert {value for r in rows for value in dataclasses.astuple(r)[10:18]} == {None}
