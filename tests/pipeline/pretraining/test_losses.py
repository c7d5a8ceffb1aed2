"""Losses against NumPy in float64, and their gradients against the signs of equations 2 and 3.

Belongs here: losses as functions. Not here: the networks that make their inputs.
"""

import numpy as np
import pytest
import torch

from pipeline.pretraining.losses import adversarial_loss, discriminator_loss, label_loss, reconstruction_loss

REAL = [2.0, 0.5, -1.0, 1.0, 0.0]
INPAINTED = [-2.0, -0.5, 1.0, -1.0, 0.25]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_discriminator_loss_is_equation_2():
    real, fake = np.array(REAL), np.array(INPAINTED)
    by_hand = -np.mean(np.minimum(0, -1 + real)) - np.mean(np.minimum(0, -1 - fake))
    assert discriminator_loss(tensor(REAL), tensor(INPAINTED)).item() == pytest.approx(by_hand, rel=1e-12)


def test_discriminator_is_pushed_up_on_real_and_down_on_inpainted_within_the_margin_only():
    real, fake = tensor([2.0, 0.5, -1.0, 3.0]), tensor([-2.0, -0.5, 1.0, 3.0])
    discriminator_loss(real, fake).backward()
    assert real.grad.tolist() == [0, -0.25, -0.25, 0]
    assert fake.grad.tolist() == [0, 0.25, 0.25, 0.25]


def test_context_encoder_loss_falls_as_the_scores_of_its_patches_rise():
    fake = tensor(INPAINTED)
    loss = adversarial_loss(fake)
    loss.backward()
    assert loss.item() == pytest.approx(-np.mean(INPAINTED), rel=1e-12)
    assert fake.grad.tolist() == pytest.approx([-0.2] * 5)


def test_reconstruction_is_the_mean_over_pixels_and_images():
    draws = np.random.default_rng(0)
    inpainted, patch = draws.normal(size=(3, 1, 4, 6)), draws.normal(size=(3, 1, 4, 6))
    loss = reconstruction_loss(torch.from_numpy(inpainted), torch.from_numpy(patch))
    assert loss.item() == pytest.approx(((inpainted - patch) ** 2).mean(), rel=1e-12)


def by_hand_label_loss(logits, labels, known):
    share = 1 / (1 + np.exp(-logits))
    each = -(labels * np.log(share) + (1 - labels) * np.log(1 - share))
    return each[known].mean()


def test_label_loss_is_the_cross_entropy_of_the_known_labels():
    draws = np.random.default_rng(1)
    logits, labels = draws.normal(size=(5, 3)), draws.integers(0, 2, size=(5, 3)).astype(float)
    known = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 0]], bool)
    loss = label_loss(*(torch.from_numpy(values) for values in (logits, labels, known)))
    assert loss.item() == pytest.approx(by_hand_label_loss(logits, labels, known), rel=1e-10)


def test_an_unknown_label_has_no_gradient():
    logits = tensor([[1.0, -2.0], [0.5, 0.5]])
    known = torch.tensor([[True, False], [False, False]])
    label_loss(logits, torch.zeros(2, 2, dtype=torch.float64), known).backward()
    assert (logits.grad != 0).tolist() == known.tolist()


def test_a_batch_without_a_known_label_has_loss_zero():
    logits = tensor([[1.0, -2.0]])
    loss = label_loss(logits, torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0]]
