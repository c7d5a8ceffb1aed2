"""A task's champion is decided on validation images, and replaced only after a significant lead."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pipeline.downstream.predictions import ENCODER_KEY, VALIDATION, Cell
from pipeline.evaluation.champion import (
    Contender,
    Decision,
    decide_champion,
    lead_test,
    save_champion,
    significantly_better,
)
from pipeline.evaluation.significance import paired_test
from pipeline.files import read_json, write_json, write_table
from pipeline.recipe import Recipe
from pipeline.recipe.arms import Arm
from pipeline.store import Experiment, Store
from pipeline.training.outcome import Outcome
from tests.pipeline.evaluation.conftest import predicted

Right = Mapping[Arm, Sequence[int]]
"""How many of ten validation images an arm has right, by seed."""


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Store(tmp_path).experiment("tiny")


def fill(recipe: Recipe, experiment: Experiment, right: Right, task: str = "quality", encoder: str = "") -> None:
    """ResNet-50 models of each arm, fine-tuned from an encoder with the digest `encoder`, or named after the arm."""
    for arm, by_seed in right.items():
        for seed, count in enumerate(by_seed):
            folder = experiment.model("resnet50", arm, task, 1.0, seed)
            rows = predicted(recipe, Cell("tiny", "resnet50", arm, task, 1.0, seed), count)
            write_table(folder / VALIDATION, rows.replace_schema_metadata({ENCODER_KEY: encoder or f"{arm} encoder"}))
            Outcome("ran", "", "f").write(folder)


def decide(recipe: Recipe, experiment: Experiment, task: str = "quality") -> Decision:
    decision = decide_champion(recipe, experiment, task)
    save_champion(recipe, experiment, task, decision)
    return decision


def name_of(decision: Decision) -> str:
    assert decision.champion is not None
    return decision.champion.name


def test_the_first_champion_has_the_highest_score(recipe: Recipe, experiment: Experiment) -> None:
    fill(recipe, experiment, {"imagenet": (4,), "ce": (7,), "ce_dcm_frozen": (6,)})
    decision = decide(recipe, experiment)
    assert (name_of(decision), decision.changed, decision.earlier) == ("resnet50_ce", True, ())
    assert [(c.name, c.score) for c in decision.contenders] == [
        ("resnet50_ce", 0.7),
        ("resnet50_ce_dcm_frozen", 0.6),
        ("resnet50_imagenet", 0.4),
    ]


def test_an_insignificant_lead_changes_nothing(recipe: Recipe, experiment: Experiment) -> None:
    fill(recipe, experiment, {"ce": (6,)})
    decide(recipe, experiment)
    fill(recipe, experiment, {"ce_dcm_frozen": (7,)})
    decision = decide(recipe, experiment)
    scores = (np.arange(10)[:, None] < 7).astype(float) - (np.arange(10)[:, None] < 6)
    expected = paired_test(scores, [f"p{image}" for image in range(10)], 20_000, recipe.evaluation.seed)
    assert decision.test == expected
    assert expected.low is not None and expected.low <= 0 < expected.difference
    assert (name_of(decision), decision.changed) == ("resnet50_ce", False)
    assert f"{expected.p:.2g}" in decision.reason


def test_an_equal_score_is_no_lead(recipe: Recipe, experiment: Experiment) -> None:
    fill(recipe, experiment, {"ce_dcm_frozen": (6,)})
    decide(recipe, experiment)
    alone = decide(recipe, experiment)
    fill(recipe, experiment, {"ce": (6,)})
    decision = decide(recipe, experiment)
    assert decision.test is not None and decision.test.difference == 0
    assert (name_of(decision), decision.changed) == ("resnet50_ce_dcm_frozen", False)
    assert decision.reason == alone.reason, "no arm has a higher score"


def test_a_significant_lead_replaces_the_champion(recipe: Recipe, experiment: Experiment) -> None:
    fill(recipe, experiment, {"ce": (0,)})
    decide(recipe, experiment)
    fill(recipe, experiment, {"ce_dcm_frozen": (10,)})
    decision = decide(recipe, experiment)
    assert decision.test is not None and decision.test.low is not None and decision.test.low > 0
    assert (name_of(decision), decision.changed, decision.earlier) == ("resnet50_ce_dcm_frozen", True, ("ce encoder",))
    again = decide(recipe, experiment)
    assert (name_of(again), again.changed, again.earlier) == ("resnet50_ce_dcm_frozen", False, ("ce encoder",))


def test_test_images_decide_nothing(recipe: Recipe, experiment: Experiment) -> None:
    fill(recipe, experiment, {"ce": (6,), "ce_dcm_frozen": (4,)})
    for arm, right in (("ce", 0), ("ce_dcm_frozen", 10)):
        rows = predicted(recipe, Cell("tiny", "resnet50", arm, "quality", 1.0, 0), right)  # type: ignore[arg-type]
        write_table(experiment.model("resnet50", arm, "quality", 1.0, 0) / "predictions.parquet", rows)
    assert name_of(decide(recipe, experiment)) == "resnet50_ce"


def test_a_retrained_champion_must_beat_its_recorded_scores(recipe: Recipe, experiment: Experiment) -> None:
    """The former encoder is compared by its recorded scores."""
    fill(recipe, experiment, {"ce": (6,)})
    decide(recipe, experiment)
    fill(recipe, experiment, {"ce": (7,)}, encoder="trained anew")
    decision = decide(recipe, experiment)
    assert decision.champion is not None
    assert (decision.champion.encoder, decision.champion.score, decision.changed) == ("ce encoder", 0.6, False)
    fill(recipe, experiment, {"ce": (0,)}, encoder="worse")
    later = decide(recipe, experiment)
    assert later.champion is not None
    assert (later.champion.encoder, later.changed) == ("ce encoder", False)
    assert later.test is not None and later.test.difference == pytest.approx(-0.6)


def test_a_champion_is_judged_by_its_present_validation_images(recipe: Recipe, experiment: Experiment) -> None:
    fill(recipe, experiment, {"ce": (9,), "ce_dcm_frozen": (8,)})
    decide(recipe, experiment)
    fill(recipe, experiment, {"ce": (0,), "ce_dcm_frozen": (10,)})  # the same encoders, fine-tuned again
    decision = decide(recipe, experiment)
    assert (name_of(decision), decision.changed) == ("resnet50_ce_dcm_frozen", True)


def test_a_champion_recorded_on_other_images_is_replaced_without_a_comparison(
    recipe: Recipe, experiment: Experiment
) -> None:
    fill(recipe, experiment, {"ce": (9,)})
    decide(recipe, experiment)
    record = read_json(experiment.champion("quality"))
    write_json(experiment.champion("quality"), record | {"images": "others", "encoder": "gone"})
    decision = decide(recipe, experiment)
    assert (name_of(decision), decision.changed, decision.earlier) == ("resnet50_ce", True, ("gone",))
    assert decision.test is None, "scores on other images are not compared"


def test_five_patients_move_nothing(recipe: Recipe, experiment: Experiment) -> None:
    def of_five(arm: Arm, right: int) -> None:
        cell = Cell("tiny", "resnet50", arm, "quality", 1.0, 0)
        rows = predicted(recipe, cell, right).slice(0, 5)
        folder = experiment.model("resnet50", arm, "quality", 1.0, 0)
        write_table(folder / VALIDATION, rows.replace_schema_metadata({ENCODER_KEY: arm}))
        Outcome("ran", "", "f").write(folder)

    of_five("ce", 0)
    decide(recipe, experiment)
    of_five("ce_dcm_frozen", 5)
    decision = decide(recipe, experiment)
    assert (name_of(decision), decision.changed) == ("resnet50_ce", False)
    assert decision.test is not None and (decision.test.difference, decision.test.p) == (1, None)


def test_an_arm_needs_all_its_seeds_of_one_encoder(three_seeds: Recipe, experiment: Experiment) -> None:
    fill(three_seeds, experiment, {"ce": (5, 5, 5), "ce_dcm_frozen": (9, 9)})
    assert [c.name for c in decide(three_seeds, experiment).contenders] == ["resnet50_ce"]
    fill(three_seeds, experiment, {"ce_dcm_frozen": (9, 9, 9)})
    fill(three_seeds, experiment, {"ce_dcm_frozen": (9,)}, encoder="another")
    assert [c.name for c in decide(three_seeds, experiment).contenders] == ["resnet50_ce"]
    Outcome("diverged", "nan", "f").write(experiment.model("resnet50", "ce", "quality", 1.0, 1))
    assert decide_champion(three_seeds, experiment, "quality").champion is None


def test_all_pretraining_seeds_score_an_arm_and_the_first_represents_it(
    three_seeds: Recipe, experiment: Experiment
) -> None:
    settings = three_seeds.model_dump()
    settings["pretraining"]["seeds"] = [5, 6, 7]
    repeated = Recipe.model_validate(settings)
    fill(repeated, experiment, {"ce": (5, 6, 10)})
    assert decide(repeated, experiment).champion is not None
    for seed in range(3):  # an encoder of its own for each
        folder = experiment.model("resnet50", "ce_dcm_frozen", "quality", 1.0, seed)
        rows = predicted(repeated, Cell("tiny", "resnet50", "ce_dcm_frozen", "quality", 1.0, seed), 9)
        write_table(folder / VALIDATION, rows.replace_schema_metadata({ENCODER_KEY: f"of seed {5 + seed}"}))
        Outcome("ran", "", "f").write(folder)
    best = decide(repeated, experiment).contenders[0]
    assert (best.name, best.encoder, best.score) == ("resnet50_ce_dcm_frozen", "of seed 5", 0.9)
    assert decide_champion(three_seeds, experiment, "quality").contenders[0].name == "resnet50_ce", (
        "of one seed they disagree"
    )


def test_the_score_is_the_mean_over_images_and_seeds(three_seeds: Recipe, experiment: Experiment) -> None:
    fill(three_seeds, experiment, {"ce": (5, 6, 10)})
    (contender,) = decide(three_seeds, experiment).contenders
    assert contender.score == pytest.approx(0.7)
    assert contender.scores_NS.shape == (10, 3)


@pytest.mark.parametrize(("metric", "expected"), [("dice", 2 / 3), ("iou", 0.5)])
def test_a_segmentation_is_judged_by_the_recipes_metric(
    metric: str, expected: float, recipe: Recipe, experiment: Experiment
) -> None:
    """Half of each class was found and nothing else: by hand, Dice 2·50/(100+50) and IoU 50/100."""
    settings = recipe.model_dump()
    settings["downstream"]["tasks"]["liver_kidney"]["champion"] = {"metric": metric}
    settings["evaluation"]["comparisons"] = []
    chosen = Recipe.model_validate(settings)
    fill(chosen, experiment, {"ce": (10,)}, task="liver_kidney")
    table = predicted(chosen, Cell("tiny", "resnet50", "ce", "liver_kidney", 1.0, 0), 10)
    half = [row | {"intersection": [50, 25], "predicted_pixels": [50, 25]} for row in table.to_pylist()]
    written = pa.Table.from_pylist(half, schema=table.schema).replace_schema_metadata({ENCODER_KEY: "x"})
    write_table(experiment.model("resnet50", "ce", "liver_kidney", 1.0, 0) / VALIDATION, written)
    (contender,) = decide_champion(chosen, experiment, "liver_kidney").contenders
    assert contender.score == pytest.approx(expected)


def test_without_any_arm_there_is_no_champion_and_nothing_is_written(recipe: Recipe, experiment: Experiment) -> None:
    decision = decide(recipe, experiment)
    assert (decision.champion, decision.contenders, decision.changed) == (None, (), False)
    assert not experiment.champion("quality").exists()


def test_a_killed_step_decides_the_same_again(recipe: Recipe, experiment: Experiment) -> None:
    """A decision writes nothing, so MLflow receives the same champion again."""
    fill(recipe, experiment, {"ce": (0,)})
    decide(recipe, experiment)
    fill(recipe, experiment, {"ce_dcm_frozen": (10,)})
    first, second = decide_champion(recipe, experiment, "quality"), decide_champion(recipe, experiment, "quality")
    assert first.champion is not None and second.champion is not None
    assert replace(first, champion=None, contenders=()) == replace(second, champion=None, contenders=())
    assert first.champion.encoder == second.champion.encoder == "ce_dcm_frozen encoder"


def repeated(recipe: Recipe, pretraining: int, fine_tuning: int) -> Recipe:
    """The recipe with these numbers of seeds, and few resamples to save time."""
    settings = recipe.model_dump()
    settings["pretraining"]["seeds"] = list(range(pretraining))
    settings["downstream"]["seeds"] = list(range(fine_tuning))
    made = Recipe.model_validate(settings)
    return made.model_copy(update={"evaluation": made.evaluation.model_copy(update={"test_resamples": 499})})


def test_fine_tunings_of_one_encoder_are_one_draw(three_seeds: Recipe, experiment: Experiment) -> None:
    """Five encoders, one of them worse, fine-tuned three times each: significant with fifteen draws, not with five.

    By `paired_test`: the mean over the five, and over all fifteen.
    """
    often = repeated(three_seeds, 5, 15)
    fill(often, experiment, {"ce": (3,) * 15})
    decide(often, experiment)
    right = (10, 10, 10, 10, 2)
    fill(often, experiment, {"ce_dcm_frozen": right * 3})
    decision = decide(often, experiment)
    image = np.arange(10)[:, None]
    each = (image < np.array(right)).astype(float) - (image < 3)
    patients = [f"p{number}" for number in range(10)]
    once, thrice = (paired_test(d, patients, 499, often.evaluation.seed) for d in (each, np.tile(each, 3)))
    assert decision.test is not None and (decision.test.p, decision.test.low) == (once.p, pytest.approx(once.low))
    assert once.low is not None and thrice.low is not None and once.low < 0 < thrice.low
    assert (name_of(decision), decision.changed) == ("resnet50_ce", False)


@pytest.mark.parametrize(
    ("pretraining", "fine_tuning", "arms", "patients"),
    [(5, 15, 2, 60), (5, 5, 2, 20), (3, 15, 2, 60), (3, 3, 2, 8), (2, 6, 2, 60), (5, 15, 5, 60), (3, 3, 5, 60)],
)
def test_of_equal_arms_the_champion_moves_in_one_run_of_forty(
    three_seeds: Recipe, pretraining: int, fine_tuning: int, arms: int, patients: int
) -> None:
    """300 simulated archives: encoders, fine-tunings, patients and images vary, and no arm is better.

    A rate of 2.5 % gives more than 17 moves once in a thousand such tests (binomial); drawn one by one, 15 fine-tunings
    of five encoders give over 40.
    """
    runs, most = 300, int(stats.binom.ppf(0.999, 300, 0.025))
    often = repeated(three_seeds, pretraining, fine_tuning)
    random = np.random.default_rng(pretraining + fine_tuning + arms + patients)
    encoder_of = np.arange(fine_tuning) % pretraining
    people = tuple(f"p{number}" for number in range(patients))
    moves = 0
    for _ in range(runs):
        scores_ANS = 0.5 + random.normal(0, 0.05, (arms, 1, pretraining))[:, :, encoder_of]
        for shape in ((arms, 1, fine_tuning), (arms, patients, 1), (arms, patients, fine_tuning)):
            scores_ANS = scores_ANS + random.normal(0, 0.02, shape)
        found = [Contender("resnet50", str(a), str(a), "images", people, s) for a, s in enumerate(scores_ANS)]
        best = max(found[1:], key=lambda contender: contender.score)
        moves += significantly_better(lead_test(often, best, found[0]), arms - 1)
    assert (most, moves <= most) == (17, True), moves


def test_with_three_encoders_a_large_lead_still_moves_the_champion(three_seeds: Recipe, experiment: Experiment) -> None:
    """By Student's t with two degrees of freedom: leads of 7, 8 and 9 images of ten."""
    often = repeated(three_seeds, 3, 3)
    fill(often, experiment, {"ce": (1, 1, 1)})
    decide(often, experiment)
    fill(often, experiment, {"ce_dcm_frozen": (8, 9, 10)})
    decision = decide(often, experiment)
    image = np.arange(10)[:, None]
    lead_NS = (image < np.array([8, 9, 10])).astype(float) - (image < 1)
    square = lead_NS.mean(axis=1).var(ddof=1) / 10 + lead_NS.mean(axis=0).var(ddof=1) / 3
    assert decision.test is not None
    assert decision.test.p == pytest.approx(2 * stats.t.sf(0.8 / square**0.5, 2))
    assert (name_of(decision), decision.changed) == ("resnet50_ce_dcm_frozen", True)


def test_the_best_of_several_arms_has_to_be_further_ahead() -> None:
    """A single arm is found better in one test of forty; the best of five in one of two hundred."""
    found = paired_test(np.full((10, 1), 0.1), [f"p{number}" for number in range(10)], 99, 0)
    assert found.p == 0.01
    assert [significantly_better(found, challengers) for challengers in (1, 5, 6)] == [True, True, False]
    assert not significantly_better(replace(found, difference=-0.1), 1) and not significantly_better(
        replace(found, p=None), 1
    )
