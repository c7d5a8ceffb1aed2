"""The paired test against SciPy and by simulation; Holm's p-values against closed testing."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline.evaluation.significance import LEVEL, WRONG_ABOUT_METHODS, holm, paired_test

Matrix = NDArray[np.float64]


def one_each(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def rejected(simulate: "Simulation", patients: list[str], runs: int, resamples: int = 399) -> float:
    """The share of `runs` simulated experiments without any difference in which p is at most 0.05."""
    random = np.random.default_rng(8)
    tests = [paired_test(simulate(random), patients, resamples, run) for run in range(runs)]
    return float(np.mean([test.p is not None and test.p <= 0.05 for test in tests]))


class Simulation:
    """Draws differences with expectation 0 that vary between patients, seeds and images by the given amounts."""

    def __init__(self, images_of: list[int], seeds: int = 1, patient: float = 0.0, seed: float = 0.0) -> None:
        self.images_of, self.seeds, self.patient, self.seed = images_of, seeds, patient, seed
        self.patients = [f"p{i}" for i, count in enumerate(images_of) for _ in range(count)]

    def __call__(self, random: np.random.Generator) -> Matrix:
        images, seeds = len(self.patients), self.seeds
        of_patients = np.repeat(random.normal(0, self.patient, len(self.images_of)), self.images_of)
        of_seeds = random.normal(0, self.seed, seeds)
        return of_patients[:, None] + of_seeds + random.normal(0, 0.05, (images, seeds))


def test_the_statistic_is_students_if_every_patient_has_one_image() -> None:
    """For normal differences of many patients, p-value and interval are Student's."""
    differences = np.random.default_rng(1).normal(0.01, 0.05, 80)
    found = paired_test(differences[:, None], one_each(80), 20_000, 0)
    student = stats.ttest_1samp(differences, 0)
    interval = student.confidence_interval(0.95)
    assert found.difference == pytest.approx(differences.mean(), abs=1e-15)
    assert found.p == pytest.approx(student.pvalue, abs=0.01)
    assert (found.low, found.high) == (pytest.approx(interval.low, abs=5e-4), pytest.approx(interval.high, abs=5e-4))


def test_images_of_a_patient_are_drawn_together() -> None:
    """Repeating each image three times leaves p unchanged; a test on single images would give a smaller p."""
    once = np.random.default_rng(2).normal(0.02, 0.05, 30)
    thrice = np.repeat(once, 3)[:, None]
    single = paired_test(once[:, None], one_each(30), 2_000, 0)
    clustered = paired_test(thrice, [f"p{i // 3}" for i in range(90)], 2_000, 0)
    naive = paired_test(thrice, one_each(90), 2_000, 0)
    assert clustered.difference == pytest.approx(single.difference)
    assert abs((clustered.p or 0) - (single.p or 0)) < 0.01  # names sort differently: other draws
    assert (naive.p or 1) < (clustered.p or 0) / 3


def test_patients_with_more_images_weigh_more_as_in_the_printed_mean() -> None:
    differences = np.array([0.1] * 9 + [-0.1, 0.0, 0.05, -0.05, 0.02])
    found = paired_test(differences[:, None], ["a"] * 9 + ["b", "c", "d", "e", "f"], 999, 0)
    assert found.difference == pytest.approx(differences.mean())


def test_p_counts_the_observation_itself_and_is_never_zero() -> None:
    certain = 0.2 + np.random.default_rng(3).normal(0, 1e-3, (50, 1))
    assert paired_test(certain, one_each(50), 999, 0).p == 1 / 1000


@pytest.mark.parametrize("resamples", [999, 2_999])
def test_no_difference_at_all_has_p_one_and_an_interval_around_zero(resamples: int) -> None:
    found = paired_test(np.zeros((20, 1)), one_each(20), resamples, 0)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_same_difference_in_every_image_has_no_spread() -> None:
    found = paired_test(np.full((20, 2), 0.1), one_each(20), 999, 0)
    assert found.p == 1 / 1000
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_swapping_the_arms_changes_the_sign_alone() -> None:
    differences = np.random.default_rng(4).normal(0.01, 0.05, (40, 3))
    one, other = (paired_test(sign * differences, one_each(40), 999, 0) for sign in (1, -1))
    assert other.p == one.p
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))


@pytest.mark.parametrize("shift", np.linspace(-0.03, 0.03, 13))
def test_zero_is_outside_the_interval_if_and_only_if_p_is_at_most_one_in_twenty(shift: float) -> None:
    found = paired_test(np.random.default_rng(5).normal(shift, 0.05, (25, 1)), one_each(25), 999, 0)
    assert found.p is not None and found.low is not None and found.high is not None
    assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)


def test_an_interval_left_open_by_few_patients_ends_at_the_largest_possible_difference() -> None:
    """One patient of six differs, so many resamples have no spread."""
    found = paired_test(np.array([[1.0], [0], [0], [0], [0], [0]]), one_each(6), 999, 0)
    assert found.p is not None and found.p > 0.05
    assert found.low is not None and found.low < 0
    assert found.high == 1


@pytest.mark.parametrize(("patients", "tested"), [(5, False), (6, True)])
def test_fewer_than_six_patients_have_a_difference_and_no_p_value(patients: int, tested: bool) -> None:
    differences = np.random.default_rng(6).normal(0.01, 0.05, (4 * patients, 1))
    found = paired_test(differences, [f"p{i % patients}" for i in range(4 * patients)], 999, 0)
    assert found.difference == pytest.approx(differences.mean())
    assert [value is not None for value in (found.low, found.high, found.p)] == [tested] * 3


@pytest.mark.parametrize(
    "simulate",
    [
        Simulation([5] * 30, patient=0.05),
        Simulation([1, 2, 3, 9] * 6, patient=0.05),
        Simulation([1] * 40),
    ],
    ids=["patients of five images", "patients of one to nine images", "patients of one image"],
)
def test_without_a_difference_one_test_in_twenty_finds_one(simulate: Simulation) -> None:
    """Bounds: the 0.1 % and 99.9 % points of the count in 600 experiments at a rate of 0.05."""
    low, high = stats.binom.ppf([0.001, 0.999], 600, 0.05) / 600
    assert low <= rejected(simulate, simulate.patients, 600) <= high


def test_a_test_that_takes_images_one_by_one_finds_far_more_than_it_claims() -> None:
    simulate = Simulation([5] * 30, patient=0.05)
    assert rejected(simulate, one_each(150), 300) > 0.2


def test_few_patients_do_not_find_more_than_is_claimed() -> None:
    simulate = Simulation([4] * 6, patient=0.05)
    assert rejected(simulate, simulate.patients, 600) <= stats.binom.ppf(0.999, 600, 0.05) / 600


@pytest.mark.parametrize("seed", [0.02, 0.05, 0.2])
def test_seeds_that_differ_are_not_taken_for_a_difference_of_arms(seed: float) -> None:
    """Seeds vary less than, as much as, or more than patients."""
    simulate = Simulation([2] * 40, seeds=5, patient=0.05, seed=seed)
    assert rejected(simulate, simulate.patients, 400) <= stats.binom.ppf(0.999, 400, 0.05) / 400


def test_fewer_than_five_seeds_are_averaged_and_the_test_is_about_their_models() -> None:
    differences = np.random.default_rng(10).normal(0.01, 0.05, (30, 4))
    averaged = differences.mean(axis=1, keepdims=True)
    assert paired_test(differences, one_each(30), 999, 0) == paired_test(averaged, one_each(30), 999, 0)


def test_a_test_about_models_finds_seeds_that_differ() -> None:
    """Such a test must not be read as one about encoders."""
    simulate = Simulation([2] * 40, seeds=2, patient=0.05, seed=0.05)
    assert rejected(simulate, simulate.patients, 200) > 0.3


def test_a_difference_that_every_seed_and_most_patients_show_is_found() -> None:
    random = np.random.default_rng(7)
    differences = 0.05 + random.normal(0, 0.05, (60, 1)) + random.normal(0, 0.01, 5) + random.normal(0, 0.03, (60, 5))
    assert (paired_test(differences, one_each(60), 1_999, 0).p or 1) < 0.01


def test_holm_is_closed_testing_with_bonferroni() -> None:
    p_values = [0.011, 0.04, 0.002, 0.3, 0.013]
    sets = [members for size in range(1, 6) for members in combinations(range(5), size)]
    expected = [
        max(min(1.0, len(members) * min(p_values[m] for m in members)) for members in sets if place in members)
        for place in range(5)
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_a_test_that_could_not_be_made_counts_in_the_family() -> None:
    assert holm([0.01, None, 0.02]) == pytest.approx([0.03, None, 0.04])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, None]) == [1.0, None]
    assert holm([]) == []


@pytest.mark.integration
@pytest.mark.parametrize(("seeds", "least", "most"), [(3, 0.355, 0.5075), (5, 0.0, 0.0875)])
def test_three_seeds_read_as_a_claim_about_methods_are_wrong_in_43_percent(
    seeds: int, least: float, most: float
) -> None:
    """400 experiments without a difference of methods; a seed varies 16 times as much as the mean over 60 patients.

    The bounds hold in 999 of 1,000 such tests (binomial, of rates 0.43 and 0.05).
    """
    random = np.random.default_rng(43)
    patients = [f"p{number}" for number in range(60)]
    wrong = 0
    for run in range(400):
        of_seeds = random.normal(0, 0.1 * (16 / 60) ** 0.5, seeds)
        scores_NS = of_seeds + random.normal(0, 0.1, (60, 1)) + random.normal(0, 0.02, (60, seeds))
        p = paired_test(scores_NS, patients, 499, run).p
        wrong += p is not None and p <= LEVEL
    assert least <= wrong / 400 <= most
    assert WRONG_ABOUT_METHODS == 0.43
