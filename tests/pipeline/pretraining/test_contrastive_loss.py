"""The contrastive loss against NumPy loops over pairs, and by hand for three images.

Belongs here: embeddings, labels and patients to a loss. Not here: training by it (test_contrastive.py).
"""

import math

import numpy as np
import pytest
import torch

from pipeline.pretraining.contrastive_loss import (
    contrastive_loss,
    ignored_views,
    label_overlap,
    label_weights,
    pair_weights,
)
from pipeline.training.seeds import generator

CPU = torch.device("cpu")


def embeddings(count=5, length=4):
    return torch.randn(2 * count, length, generator=generator(0, "embeddings"))


def by_loops(views, weight, compared, temperature):
    """The docstring's formula, view by view, in float64; `weight` and `compared` are functions of two views."""
    unit = views.numpy().astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    count, losses = len(unit), []
    for i in range(count):
        against = sum(math.exp(unit[i] @ unit[a] / temperature) for a in range(count) if compared(i, a))
        weighted = [
            (weight(i, p), math.log(math.exp(unit[i] @ unit[p] / temperature) / against))
            for p in range(count)
            if weight(i, p) > 0
        ]
        losses.append(-sum(w * log for w, log in weighted) / sum(w for w, _ in weighted))
    return np.mean(losses)


def jaccard(labels, known, i, j):
    """Of two images: labels that both have over labels that one has, among those known for both."""
    one, other = ({n for n in range(len(labels[i])) if labels[k][n] and known[i][n] and known[j][n]} for k in (i, j))
    return len(one & other) / len(one | other) if one | other else 0.0


def loss_of(views, weights, ignored, temperature=0.5):
    return contrastive_loss(views, weights, ignored, temperature).item()


def test_two_views_against_all_others_is_nt_xent():
    views, weights = embeddings(), pair_weights(5, CPU)
    expected = by_loops(views, lambda i, p: float(abs(i - p) == 5), lambda i, a: i != a, 0.5)
    assert loss_of(views, weights, ignored_views(weights)) == pytest.approx(expected, rel=1e-5)


def test_three_images_by_hand():
    """The first two images have views on one axis each, the third on the opposite of the first."""
    views = torch.tensor([[1.0, 0], [0, 2.0], [-3.0, 0]]).repeat(2, 1)
    weights = pair_weights(3, CPU)
    first = -1 + math.log(math.e + 2 * 1 + 2 * math.exp(-1))  # itself again, two at 90°, two at 180°
    second = -1 + math.log(math.e + 4 * 1)
    expected = (2 * first + second) / 3
    assert loss_of(views, weights, ignored_views(weights), 1.0) == pytest.approx(expected, rel=1e-6)


LABELS = [[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 1]]
KNOWN = [[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]]


def test_overlap_counts_labels_known_for_both_images():
    labels, known = torch.tensor(LABELS).float(), torch.tensor(KNOWN).bool()
    overlap = label_overlap(labels, known)
    expected = [[jaccard(LABELS, KNOWN, i, j) for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(overlap, expected)
    assert overlap[0, 1] == 0.5, "the third label is unknown of the second image"
    assert overlap[1, 4] == 1, "and so these two differ in nothing that is known"
    assert overlap[0, 2] == pytest.approx(1 / 3)
    assert not overlap[3].any()


def test_images_with_common_labels_are_positives_by_their_overlap():
    labels, known = torch.tensor(LABELS).float(), torch.tensor(KNOWN).bool()
    views, weights = embeddings(), label_weights(labels, known)

    def weight(i, p):
        if i == p:
            return 0.0
        return 1.0 if abs(i - p) == 5 else jaccard(LABELS, KNOWN, i % 5, p % 5)

    expected = by_loops(views, weight, lambda i, a: i != a, 0.5)
    assert loss_of(views, weights, ignored_views(weights)) == pytest.approx(expected, rel=1e-5)
    assert loss_of(views, weights, ignored_views(weights)) != pytest.approx(
        loss_of(views, pair_weights(5, CPU), ignored_views(weights)), rel=1e-3
    )


@pytest.mark.parametrize("labels", [torch.zeros(5, 3), torch.ones(5, 3)])
def test_without_any_known_label_it_is_nt_xent(labels):
    known = torch.zeros(5, 3, dtype=torch.bool)
    assert torch.equal(label_weights(labels * known, known), pair_weights(5, CPU))


def test_images_of_one_patient_are_compared_only_if_they_are_a_pair():
    patients = torch.tensor([0, 1, 0, 2, 1])
    views, weights = embeddings(), pair_weights(5, CPU)
    ignored = ignored_views(weights, patients)

    def compared(i, a):
        return i != a and (abs(i - a) == 5 or patients[i % 5] != patients[a % 5])

    expected = by_loops(views, lambda i, p: float(abs(i - p) == 5), compared, 0.5)
    assert loss_of(views, weights, ignored) == pytest.approx(expected, rel=1e-5)


def test_another_image_of_the_patient_does_not_push():
    """The gradient of the first image's loss reaches images of other patients alone, beside its own pair."""
    patients, views = torch.tensor([0, 1, 0]), embeddings(3).requires_grad_()
    weights = pair_weights(3, CPU)
    first = torch.zeros(6, dtype=torch.bool)
    first[0] = True
    unit = torch.nn.functional.normalize(views, dim=1)
    similarity = (unit @ unit.T).masked_fill(ignored_views(weights, patients), -torch.inf)
    (similarity[0].logsumexp(0) - similarity[0, 3]).backward()
    assert views.grad[[0, 1, 3, 4]].abs().sum(dim=1).min() > 1e-3
    assert not views.grad[[2, 5]].any()


def test_a_batch_of_one_patient_has_no_loss_and_no_gradient():
    views = embeddings().requires_grad_()
    weights = pair_weights(5, CPU)
    loss = contrastive_loss(views, weights, ignored_views(weights, torch.zeros(5)), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert views.grad.abs().max() < 1e-6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_embeddings_have_the_loss_of_chance(value):
    views = torch.full((10, 4), value, requires_grad=True)
    weights = pair_weights(5, CPU)
    loss = contrastive_loss(views, weights, ignored_views(weights), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(9), rel=1e-5)
    assert views.grad.isfinite().all()


def test_embeddings_in_bfloat16_are_compared_in_float32():
    views, weights = embeddings().bfloat16(), pair_weights(5, CPU)
    loss = contrastive_loss(views, weights, ignored_views(weights), 0.05)
    assert loss.dtype == torch.float32
    expected = by_loops(views.float(), lambda i, p: float(abs(i - p) == 5), lambda i, a: i != a, 0.05)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
