"""Minimum detectable effects against simulations with the same test and textbook formulae."""

import numpy as np
import pytest
from scipy import stats

from pipeline.downstream.predictions import PREDICTIONS
from pipeline.evaluation.minimum_effect import (
    POWER,
    expected_error,
    minimum_effect_in_errors,
    minimum_effects,
)
from pipeline.evaluation.significance import paired_test
from pipeline.recipe import Recipe
from tests.pipeline.evaluation.conftest import of_seeds
from tests.pipeline.evaluation.test_differences import patients_of
from tests.pipeline.evaluation.test_significance import Simulation


def found_share(validation: Simulation, test: Simulation, share: float = 1.0, runs: int = 400) -> float:
    """How often the test finds `share` times the minimum detectable effect estimated from validation images."""
    random = np.random.default_rng(21)
    images = np.unique(test.patients, return_counts=True)[1]
    hits = 0
    for run in range(runs):
        error, freedom = expected_error(validation(random), validation.patients, images)
        true = share * error * minimum_effect_in_errors(freedom)
        result = paired_test(test(random) + true, test.patients, 399, run)
        hits += result.p is not None and result.p <= 0.05
    return hits / runs


@pytest.mark.integration
def test_the_test_finds_a_difference_of_that_size_four_times_in_five() -> None:
    """Patients with one to six images, as different from each other as their images are."""
    validation = Simulation([1, 2, 3, 6] * 10, patient=0.05)
    test = Simulation([1, 1, 4, 6] * 8, patient=0.05)
    assert found_share(validation, test) == pytest.approx(POWER, abs=0.08)
    assert found_share(validation, test, share=0.5) < 0.4


@pytest.mark.integration
def test_it_does_so_if_seeds_are_drawn_too() -> None:
    validation = Simulation([2] * 40, seeds=6, patient=0.03, seed=0.02)
    test = Simulation([3] * 40, seeds=6, patient=0.03, seed=0.02)
    assert found_share(validation, test) == pytest.approx(POWER, abs=0.09)


def test_with_one_image_a_patient_it_is_the_sample_size_formula() -> None:
    """(z₀.₉₇₅ + z₀.₈) s / √n for many patients; a quarter of the patients doubles it."""
    differences = np.random.default_rng(3).normal(0.1, 0.2, 500)
    names = [f"p{i}" for i in range(500)]
    error, freedom = expected_error(differences[:, None], names, [1] * 400)
    assert error == pytest.approx(differences.std(ddof=1) / 20)
    assert freedom == pytest.approx(399)
    assert minimum_effect_in_errors(freedom) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), rel=0.005)
    quarter, _ = expected_error(differences[:, None], names, [1] * 100)
    assert quarter == pytest.approx(2 * error)


def test_the_power_of_few_patients_is_that_of_students_test_by_simulation() -> None:
    random = np.random.default_rng(4)
    samples = random.normal(minimum_effect_in_errors(7) / np.sqrt(8), 1, (20_000, 8))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05).mean() == pytest.approx(POWER, abs=0.01)


def test_a_patient_with_most_of_the_images_leaves_few_degrees_of_freedom() -> None:
    """If only patients differ, their variances grow with the squares of their images: 9 and 19 times 1."""
    values = np.repeat(np.random.default_rng(6).normal(0, 1, 40), 2)[:, None]
    names = [f"p{i // 2}" for i in range(80)]
    assert expected_error(values, names, [3] * 20)[1] == pytest.approx(19)
    assert expected_error(values, names, [3] + [1] * 19)[1] == pytest.approx((9 + 19) ** 2 / (81 + 19) - 1)
    _, freedom = expected_error(values, names, [30] + [1] * 19)
    assert freedom == 3, "never less"
    assert 4 < minimum_effect_in_errors(freedom) < 6


def test_more_images_of_a_patient_help_only_if_images_differ() -> None:
    random = np.random.default_rng(5)
    names = [f"p{i // 5}" for i in range(200)]
    by_patient = np.repeat(random.normal(0, 1, 40), 5)[:, None]
    by_image = random.normal(0, 1, 200)[:, None]
    once, thrice = [1] * 30, [3] * 30
    assert expected_error(by_patient, names, thrice)[0] == pytest.approx(expected_error(by_patient, names, once)[0])
    ratio = expected_error(by_image, names, once)[0] / expected_error(by_image, names, thrice)[0]
    assert ratio == pytest.approx(np.sqrt(3), rel=0.05)


def test_variances_are_those_of_a_hand_made_analysis_of_variance() -> None:
    """Patients a: 1, 3; b: 6, 8; c: 2. Within (2 + 2) / 2 = 2; n₀ = (5 − 9 / 5) / 2 = 1.6."""
    values = np.array([[1.0], [3.0], [6.0], [8.0], [2.0]])
    error, _ = expected_error(values, ["a", "a", "b", "b", "c"], [2, 1])
    across = 2 * (2 - 4) ** 2 + 2 * (7 - 4) ** 2 + (2 - 4) ** 2
    between = (across / 2 - 2) / 1.6
    assert error**2 == pytest.approx(between * (4 + 1) / 9 + 2 / 3)


def test_every_declared_difference_has_its_row_from_validation_images_alone(three_seeds: Recipe) -> None:
    _, validation = of_seeds(three_seeds, {"ce": (2, 4, 5), "ce_dcm_frozen": (7, 6, 5)})
    rows = minimum_effects(three_seeds, validation, {"quality": [1] * 40, "liver_kidney": [2] * 20})
    assert len(rows) == 2 * 2 * 2
    assert {(r.arm, r.against, r.seeds, r.n_val, r.n_val_patients, r.n_test) for r in rows} == {
        ("ce_dcm_frozen", "ce", 3, 10, 10, 40)
    }
    assert {(r.task, r.n_test_patients) for r in rows} == {("quality", 40), ("liver_kidney", 20)}
    image = np.arange(10)[:, None]
    scores = ((image < np.array([7, 6, 5])).astype(float) - (image < np.array([2, 4, 5]))).mean(axis=1)
    quality = next(r for r in rows if r.task == "quality")
    assert quality.error == pytest.approx(scores.std(ddof=1) / np.sqrt(40))
    assert quality.smallest == pytest.approx(quality.error * minimum_effect_in_errors(39))


def test_a_difference_without_an_estimate_has_a_reason(three_seeds: Recipe) -> None:
    _, validation = of_seeds(three_seeds, {"ce": (2, 4, 5), "ce_dcm_frozen": (7, 6, 5)})
    _, alike = of_seeds(three_seeds, {"ce": (4, 4, 4), "ce_dcm_frozen": (4, 4, 4)})
    enough = {"quality": [1] * 40, "liver_kidney": [1] * 40}
    cases = [
        (validation, {}, "images are not prepared"),
        (validation, {name: [3, 3, 3, 3, 3] for name in enough}, "fewer than 6"),
        (patients_of(validation, 5), enough, "fewer than 6"),
        (alike, enough, "no spread"),
        (PREDICTIONS.empty_table(), enough, "CE+DCM+F, seed 0"),
    ]
    for predictions, images, reason in cases:
        rows = minimum_effects(three_seeds, predictions, images)
        assert len(rows) == 8 and {(r.error, r.smallest) for r in rows} == {(None, None)}
        assert all(reason in r.reason for r in rows), reason


def test_six_patients_are_enough(three_seeds: Recipe) -> None:
    _, validation = of_seeds(three_seeds, {"ce": (2, 4, 5), "ce_dcm_frozen": (7, 6, 5)})
    rows = minimum_effects(three_seeds, patients_of(validation, 6), {"quality": [1] * 6, "liver_kidney": [1] * 6})
    assert all(r.smallest is not None and r.smallest > 0 for r in rows)
