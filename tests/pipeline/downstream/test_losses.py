"""Losses against NumPy in float64."""

import numpy as np
import pytest
import torch

from pipeline.downstream.losses import class_probabilities, positive_weights, soft_dice_loss, weighted_bce

RNG = np.random.default_rng(11)


def dice_loss_by_hand(logits: np.ndarray, masks: np.ndarray) -> float:
    exponentials = np.exp(np.concatenate([np.zeros_like(logits[:, :1]), logits], axis=1))
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    terms = []
    for image in range(len(p)):
        for value in range(1, p.shape[1]):
            t = masks[image] == value
            overlap = (p[image, value] * t).sum()
            terms.append(1 - (2 * overlap + 1) / ((p[image, value] ** 2).sum() + (t**2.0).sum() + 1))
    return float(np.mean(terms))


@pytest.mark.parametrize("foreground", [1, 2, 3])
def test_soft_dice_is_the_mean_over_images_and_foreground_classes(foreground: int) -> None:
    logits = RNG.normal(0, 2, (3, foreground, 8, 12))
    masks = RNG.integers(0, foreground + 1, (3, 8, 12)).astype(np.uint8)
    loss = soft_dice_loss(torch.tensor(logits, dtype=torch.float32), torch.tensor(masks))
    assert loss.item() == pytest.approx(dice_loss_by_hand(logits, masks), abs=1e-6)


def test_two_classes_are_a_sigmoid() -> None:
    logits = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    assert torch.allclose(class_probabilities(logits)[:, 1:], torch.sigmoid(logits))


def test_an_empty_mask_costs_nothing_if_nothing_is_predicted_and_nearly_one_if_much_is() -> None:
    empty = torch.zeros(1, 16, 16, dtype=torch.uint8)
    assert soft_dice_loss(torch.full((1, 1, 16, 16), -30.0), empty).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(torch.full((1, 1, 16, 16), 30.0), empty).item() == pytest.approx(1 - 1 / 257, abs=1e-6)


@pytest.mark.parametrize("level", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("value", [0, 1, 2])
def test_soft_dice_has_finite_gradients_even_if_logits_saturate_or_masks_are_empty(level: float, value: int) -> None:
    logits = torch.full((2, 2, 8, 8), level, requires_grad=True)
    soft_dice_loss(logits, torch.full((2, 8, 8), value, dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_positives_weigh_as_many_negatives_as_there_are_for_each() -> None:
    codes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert positive_weights(codes).tolist() == pytest.approx([1 / 3, 3 / 1])


def test_weights_stay_within_bounds_if_a_class_is_absent_or_rare() -> None:
    codes = torch.zeros(100, 3)
    codes[:, 0] = 1
    codes[:1, 1] = 1
    assert positive_weights(codes).tolist() == pytest.approx([1 / 20, 20, 20])
    assert positive_weights(torch.zeros(4, 1)).tolist() == [4]


def test_weighted_cross_entropy_is_the_mean_over_images_and_thresholds() -> None:
    logits, codes = RNG.normal(0, 3, (6, 4)), RNG.integers(0, 2, (6, 4)).astype(np.float64)
    weights = np.array([0.5, 1, 2, 7])
    p = 1 / (1 + np.exp(-logits))
    expected = -(weights * codes * np.log(p) + (1 - codes) * np.log(1 - p)).mean()
    as_tensors = (torch.tensor(part, dtype=torch.float32) for part in (logits, codes, weights))
    assert weighted_bce(*as_tensors).item() == pytest.approx(expected, rel=1e-5)


def test_weighted_cross_entropy_has_finite_gradients_if_logits_saturate() -> None:
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    weighted_bce(logits, torch.tensor([[0.0, 1.0]]), torch.tensor([20.0, 20.0])).backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [pytest.approx(0.5), pytest.approx(-10)]


def test_soft_dice_of_two_small_images_computed_by_hand() -> None:
    """Per image and class, an empty mask among them: 3/4 and 1 of the first image, 1/2 and 1 of the second."""
    truth = torch.tensor([[[1, 1], [0, 2]], [[0, 0], [0, 0]]], dtype=torch.uint8)
    predicted = torch.tensor([[[1, 0], [0, 2]], [[0, 0], [0, 1]]])
    logits = torch.stack([torch.where(predicted == value, 50.0, -50.0) for value in (1, 2)], dim=1)
    assert soft_dice_loss(logits, truth).item() == pytest.approx(1 - (3 / 4 + 1 + 1 / 2 + 1) / 4, abs=1e-6)


def test_soft_dice_of_one_class_computed_by_hand() -> None:
    """Even odds at two of four pixels, one of them true: overlap 1/2, squares 1/4 + 1/4."""
    logits = torch.tensor([[[[0.0, 0.0], [-50.0, -50.0]]]])
    truth = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    assert soft_dice_loss(logits, truth).item() == pytest.approx(1 - (2 * 0.5 + 1) / (0.5 + 1 + 1), abs=1e-6)
