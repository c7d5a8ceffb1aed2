"""The discriminator: D(x, y) = C(d(x)) + d(x)ᵀ W y, by hand in NumPy."""

import numpy as np
import pytest
import torch

from pipeline.networks.discriminator import Discriminator, frozen_network


@pytest.fixture
def patches():
    return torch.randn(4, 1, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])


def pooled(discriminator, patches):
    """d(x) in float64: the mean over positions of the last block's features."""
    with torch.no_grad():
        return discriminator.features(patches).numpy().astype(np.float64).mean(axis=(2, 3))


def array(parameter):
    return parameter.detach().numpy().astype(np.float64)


def test_score_is_classifier_plus_projection_of_the_labels(patches, labels):
    discriminator = Discriminator(3).eval()
    d, y, w = pooled(discriminator, patches), labels.numpy(), array(discriminator.projection.weight)
    c = d @ array(discriminator.classifier.weight)[0] + array(discriminator.classifier.bias)
    by_hand = [c[n] + d[n] @ w @ y[n] for n in range(4)]
    np.testing.assert_allclose(discriminator(patches, labels).detach(), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labels", [1, 2, 10, 40])
def test_the_projection_starts_with_the_classifiers_spectral_norm(labels):
    for seed in range(5):
        torch.manual_seed(seed)
        discriminator = Discriminator(labels)
        largest = [
            np.linalg.svd(array(part.weight), compute_uv=False)[0]
            for part in (discriminator.projection, discriminator.classifier)
        ]
        assert largest[0] == pytest.approx(largest[1], rel=1e-5)
        assert 0.4 < largest[1] < 0.8, "the classifier is as torch makes it: 1 / sqrt(3) expected"


def test_labels_and_patch_contribute_about_equally_to_the_first_gradient():
    """The score's gradient at d(x) is C + W y, here with three of ten labels. Initialized by PyTorch, |W y| is 12 |C|.

    With all labels set, |W y| is at most sqrt(10) times |C|.
    """
    draws = np.random.default_rng(0)
    ratios, cosines = [], []
    for seed in range(20):
        torch.manual_seed(seed)
        discriminator = Discriminator(10)
        pooled = torch.zeros(1, 512, requires_grad=True)
        y = np.zeros(10, np.float32)
        y[draws.choice(10, 3, replace=False)] = 1
        of_labels = discriminator.projection(torch.from_numpy(y)[None])
        score = discriminator.classifier(pooled).squeeze(1) + (pooled * of_labels).sum(dim=1)
        gradient = torch.autograd.grad(score.sum(), pooled)[0].numpy()[0].astype(np.float64)
        c, wy = array(discriminator.classifier.weight)[0], array(discriminator.projection.weight) @ y
        np.testing.assert_allclose(gradient, c + wy, rtol=1e-4, atol=1e-6)
        ratios.append(np.linalg.norm(wy) / np.linalg.norm(c))
        cosines.append(gradient @ wy / np.linalg.norm(gradient) / np.linalg.norm(wy))
    assert 0.7 < np.mean(ratios) < 2
    assert np.max(ratios) <= np.sqrt(10)
    assert np.max(cosines) < 0.95, "the random W alone does not decide"


def test_without_labels_there_is_no_projection_and_labels_change_nothing(patches, labels):
    discriminator = Discriminator(0).eval()
    d = pooled(discriminator, patches)
    c = d @ array(discriminator.classifier.weight)[0] + array(discriminator.classifier.bias)
    np.testing.assert_allclose(discriminator(patches, labels).detach(), c, rtol=1e-4, atol=1e-5)
    assert torch.equal(discriminator(patches, labels), discriminator(patches, 1 - labels))
    assert not any("projection" in name for name in discriminator.state_dict())


def test_an_image_without_known_labels_is_scored_by_the_classifier_alone(patches, labels):
    discriminator = Discriminator(3).eval()
    d = pooled(discriminator, patches)
    c = d @ array(discriminator.classifier.weight)[0] + array(discriminator.classifier.bias)
    np.testing.assert_allclose(discriminator(patches, labels)[1].item(), c[1], rtol=1e-4, atol=1e-5)


def test_four_blocks_of_3x3_stride_2_convolution_batch_norm_and_leaky_relu():
    kinds = [[type(layer).__name__ for layer in block] for block in Discriminator(0).features]
    assert kinds == [["Conv2d", "BatchNorm2d", "LeakyReLU"]] * 4


def test_without_batch_norm_the_convolutions_have_a_bias_and_an_image_is_scored_alone(patches, labels):
    discriminator = Discriminator(3, batch_norm=False).train()
    kinds = [[type(layer).__name__ for layer in block] for block in discriminator.features]
    assert kinds == [["Conv2d", "LeakyReLU"]] * 4
    assert all(block[0].bias is not None for block in discriminator.features)
    by_batch = {
        norm: first_score(norm, patches, labels) - first_score(norm, patches[:2], labels) for norm in (True, False)
    }
    assert abs(by_batch[False]) < 1e-5
    assert abs(by_batch[True]) > 1e-3


def first_score(batch_norm, patches, labels):
    """The first patch's score in training mode, of one discriminator with seed 0."""
    torch.manual_seed(0)
    discriminator = Discriminator(3, batch_norm).train()
    with torch.no_grad():
        return discriminator(patches, labels[: len(patches)])[0].item()


def spectral_norms(discriminator):
    """The largest singular value of every weight that the forward pass uses, a convolution's as (outputs, rest)."""
    layers = [block[0] for block in discriminator.features]
    layers += [discriminator.classifier, *([discriminator.projection] if discriminator.projection else [])]
    with torch.no_grad(), frozen_network(discriminator):
        weights = [array(layer.weight) for layer in layers]
    rows = [w.reshape(len(w), -1) for w in weights]
    return [np.sqrt(np.linalg.svd(w @ w.T, compute_uv=False)[0]) for w in rows]  # of the smaller square: faster


def trained(discriminator, patches, labels, steps, rate):
    optimizer = torch.optim.Adam(discriminator.train().parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (discriminator(patches, labels) - discriminator(patches.flip(0), labels)).square().mean().backward()
        optimizer.step()
    return discriminator


@pytest.mark.parametrize("count", [0, 10])
def test_spectral_normalization_keeps_every_weight_at_a_spectral_norm_of_one(patches, count):
    """The power iteration estimates a norm from below, so that the weight's is 1 or above, and follows a moving weight.

    Control: without it, none of the norms is 1.
    """
    labels = torch.ones(4, count)
    torch.manual_seed(0)
    discriminator = trained(Discriminator(count, spectral=True), patches, labels, steps=12, rate=1e-4)
    moving = spectral_norms(discriminator)
    assert len(moving) == 5 + (count > 0)
    assert all(0.999 < norm < 1.1 for norm in moving), moving
    with torch.no_grad():
        for _ in range(60):
            discriminator._normalize_weights("cpu")
    assert spectral_norms(discriminator) == pytest.approx([1] * len(moving), rel=5e-3)
    plain = spectral_norms(trained(Discriminator(count), patches, labels, steps=12, rate=1e-4))
    assert all(abs(norm - 1) > 0.02 for norm in plain), plain


def test_a_spectral_norm_is_estimated_in_float32_under_autocast(patches, labels):
    torch.manual_seed(0)
    discriminator = Discriminator(3, spectral=True).train()
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            discriminator(patches, labels)
        estimate = discriminator.classifier.parametrizations.weight[0]
        unit = estimate._v.double().norm().item()
    assert spectral_norms(discriminator)[4] == pytest.approx(1, rel=1e-6), "C has one row: its estimate is exact"
    assert unit == pytest.approx(1, rel=1e-6)


def test_with_spectral_normalization_there_is_no_batch_norm_and_an_image_is_scored_alone(patches, labels):
    discriminator = Discriminator(3, spectral=True).eval()
    assert [[type(layer).__name__ for layer in block][1:] for block in discriminator.features] == [["LeakyReLU"]] * 4
    assert all(block[0].bias is not None for block in discriminator.features)
    alone = [discriminator(patches[i : i + 1], labels[i : i + 1]).item() for i in range(4)]
    np.testing.assert_allclose(discriminator(patches, labels).detach(), alone, rtol=1e-5, atol=1e-7)


def test_a_frozen_discriminator_makes_no_power_iteration_and_a_training_one_does(patches, labels):
    discriminator = Discriminator(3, spectral=True).train()
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    patch = patches.clone().requires_grad_()
    with frozen_network(discriminator):
        discriminator(patch, labels).sum().backward()
    assert patch.grad.abs().sum() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in discriminator.state_dict().items())
    discriminator(patches, labels)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in discriminator.state_dict().items())


def test_held_fixed_passes_gradients_to_the_patch_and_keeps_every_parameter_and_statistic(patches, labels):
    discriminator = Discriminator(3).train()
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    free = discriminator(patches, labels)  # moves the statistics
    discriminator.load_state_dict(before)
    patch = patches.clone().requires_grad_()
    with frozen_network(discriminator):
        held = discriminator(patch, labels)
    held.sum().backward()
    assert torch.equal(held, free), "batch norm must normalize by the batch as it does in training"
    assert patch.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in discriminator.state_dict().items())


def test_after_held_fixed_it_learns_again(patches, labels):
    discriminator = Discriminator(3).train()
    with frozen_network(discriminator):
        pass
    discriminator(patches, labels).sum().backward()
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    assert discriminator.features[0][1].num_batches_tracked == 1
