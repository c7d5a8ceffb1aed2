"""The weight of a loss term that keeps its share of the gradient: against NumPy, and on terms of known gradients.

Not here: the share in whole trainings (test_context_encoder.py, test_auxiliary_labels.py).
"""

import numpy as np
import pytest
import torch

from pipeline.pretraining.gradient_share import GradientShare

TARGET = 0.3


def terms(weights, slope, reference_slope=2.0):
    """Two linear terms: their gradients' norms are `slope` times root 3, and `reference_slope`."""
    return lambda: (slope * weights.sum(), reference_slope * weights[0])


@pytest.fixture
def weights():
    return torch.zeros(3, requires_grad=True)


@pytest.mark.parametrize("start", [1e-4, 0.001, 5.0])
def test_the_logarithm_of_the_weight_is_a_mean_over_the_measurements_that_becomes_exponential(
    weights, start, monkeypatch
):
    monkeypatch.setattr("pipeline.pretraining.gradient_share.CONTROL_EVERY", 4)
    slopes = np.exp(np.random.default_rng(0).normal(2, 0.5, size=30))
    share = GradientShare(start, TARGET, steps=10)
    measured, used = [], []
    for epoch in range(3):
        share.begin_epoch(0)
        for slope in slopes[10 * epoch : 10 * epoch + 10]:
            row = share.measure(terms(weights, slope), [weights])
            measured.append(row[0].item())
            used.append(row[1].item())
    log_weight, count, expected_shares, expected_weights = np.log(start), 0, [], []
    for step, slope in enumerate(slopes):
        expected_shares.append(0.0)
        if step % 10 in (0, 4, 8):
            ratio = slope * np.sqrt(3) / 2
            expected_shares[-1] = np.exp(log_weight) * ratio * 10 / 3
            count += 1
            part = max(0.2, 1 / count)
            log_weight = (1 - part) * log_weight + part * np.log(TARGET / ratio)
        expected_weights.append(np.exp(log_weight))
    np.testing.assert_allclose(measured, expected_shares, rtol=1e-4)
    np.testing.assert_allclose(used, expected_weights, rtol=1e-4)


def test_a_constant_ratio_is_met_whatever_the_first_weight(weights, monkeypatch):
    monkeypatch.setattr("pipeline.pretraining.gradient_share.CONTROL_EVERY", 1)
    for start in (1e-5, 1e2):
        share = GradientShare(start, TARGET, steps=1)
        share.measure(terms(weights, 7.0), [weights])
        assert share.measure(terms(weights, 7.0), [weights])[0].item() == pytest.approx(TARGET, rel=1e-4)


def test_a_share_of_zero_changes_nothing(weights):
    share = GradientShare(0.5, TARGET, steps=1)
    measured, weight = share.measure(terms(weights, 0.0), [weights])
    assert (measured.item(), weight.item()) == (0, 0.5)
    share.begin_epoch(0)
    ratio = 3.0 * np.sqrt(3) / 2
    assert share.measure(terms(weights, 3.0), [weights])[1].item() == pytest.approx(TARGET / ratio), "the first counts"


@pytest.mark.parametrize(("slope", "bound"), [(1e-20, 1e6), (1e20, 1e-6)])
def test_the_weight_is_bounded(weights, slope, bound):
    share = GradientShare(1.0, TARGET, steps=1)
    assert share.measure(terms(weights, slope), [weights])[1].item() == pytest.approx(bound)


def test_a_weight_of_zero_stays_zero(weights):
    share = GradientShare(0.0, TARGET, steps=1)
    assert [value.item() for value in share.measure(terms(weights, 3.0), [weights])] == [0]
    assert share.weight == 0


def test_a_fixed_weight_has_no_state_and_an_adjusted_one_is_all_of_it(weights):
    fixed, adjusted = GradientShare(0.5, None, steps=1), GradientShare(0.5, TARGET, steps=1)
    assert (fixed.state_dict(), fixed.weight) == ({}, 0.5)
    adjusted.measure(terms(weights, 3.0), [weights])
    again = GradientShare(0.5, TARGET, steps=1)
    again.load_state_dict(adjusted.state_dict())
    assert again.weight == adjusted.weight != 0.5


def test_processes_adjust_by_the_mean_of_their_shares(weights, monkeypatch):
    monkeypatch.setattr("pipeline.pretraining.gradient_share.mean_over_processes", lambda share: (share + 0.9) / 2)
    measured, weight = GradientShare(0.1, TARGET, steps=1).measure(terms(weights, 2 / np.sqrt(3)), [weights])
    assert measured.item() == pytest.approx((0.1 + 0.9) / 2)
    assert weight.item() == pytest.approx(0.1 * TARGET / 0.5)
