"""The context encoder's steps: inputs and gradients of each network, metrics, and learning.

Belongs here: ce and ce_dcm step by step, checked in NumPy. Not here: files, the loop over epochs.
"""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.images.batches import center_patch, fit_normalization
from pipeline.methods.ce import ContextEncoderSettings
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.encoders import build_encoder
from pipeline.pretraining.context_encoder import (
    TRAIN_METRICS,
    ContextEncoder,
    ContextEncoderTraining,
)
from pipeline.pretraining.dataset import Batch, full_validation_batches, training_batches
from pipeline.pretraining.inpainting import inpainting_report
from pipeline.training.device import to_device
from pipeline.training.loop import Diverged
from pipeline.training.seeds import generator, seeded
from tests.pipeline.pretraining.conftest import LABELS, TinyEncoder, make_pool, without_augmentation


def training(pool, settings, labels=3, encoder=None):
    with seeded(0, "test"):
        encoder = encoder or TinyEncoder()
        network = to_device(ContextEncoder(encoder, Decoder(encoder.channels[-1])), torch.device("cpu"))
        discriminator = Discriminator(labels)
    return ContextEncoderTraining(network, discriminator, pool, fit_normalization(pool.images, pool.train), settings)


@pytest.fixture
def one(pool, settings):
    return training(pool, settings)


@pytest.fixture
def batch(one, pool, settings):
    return next(iter(training_batches(pool, one.normalization, settings, 1)))


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn"])
def test_the_hidden_centre_never_reaches_the_encoder(backbone):
    encoder = build_encoder(backbone)
    network = ContextEncoder(encoder, Decoder(encoder.channels[-1]))
    seen = []
    encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(2, 1, 32, 64)
    other = x.clone()
    center_patch(other).copy_(torch.randn(2, 1, 16, 32) * 100)
    with torch.no_grad():
        assert torch.equal(network(x), network(other))
        assert torch.equal(seen[0], seen[1])
        other[0, 0, 7, 16] += 1  # one pixel outside of the centre
        assert not torch.equal(network(other), network(x))


def test_the_discriminator_receives_real_then_inpainted_patches_with_the_labels_of_their_images(one, batch):
    calls = []
    one.discriminator.register_forward_pre_hook(lambda module, inputs: calls.append(inputs))
    inpainted = []
    one.context_encoder.register_forward_hook(lambda module, inputs, output: inpainted.append(output))
    one.step(batch)
    inpainted = inpainted[1:]
    assert len(inpainted) == 1, "one inpainting serves both steps"
    (real, _), (fake_for_d, _), (fake_for_f, _) = calls[1:]  # the first measures the adversary's share
    assert torch.equal(real, batch.x_N1HW[:, :, 8:24, 8:24])
    assert torch.equal(fake_for_d, inpainted[0])
    assert fake_for_f is inpainted[0]
    assert not fake_for_d.requires_grad
    assert all(torch.equal(labels, batch.labels_NL) for _, labels in calls)


@pytest.mark.parametrize("labels", [0, len(LABELS)], ids=["ce", "ce_dcm"])
def test_the_steps_losses_are_equations_2_and_3_in_float64(pool, settings, labels):
    one = training(pool, settings, labels)
    batch = next(iter(training_batches(pool, one.normalization, settings, 1)))
    one.context_encoder.train()
    one.discriminator.train()
    with torch.no_grad():
        patch, fake = batch.x_N1HW[:, :, 8:24, 8:24], deepcopy(one.context_encoder)(batch.x_N1HW)
        before = deepcopy(one.discriminator)
        real_scores, fake_scores = before(patch, batch.labels_NL), before(fake, batch.labels_NL)
    metrics = dict(zip(TRAIN_METRICS, one.step(batch).tolist(), strict=True))
    with torch.no_grad():  # F's step follows D's: it uses the D that was just updated
        scores_after = deepcopy(one.discriminator)(fake, batch.labels_NL)
    real, inpainted = array(real_scores), array(fake_scores)
    loss_d = -np.mean(np.minimum(0, -1 + real)) - np.mean(np.minimum(0, -1 - inpainted))
    reconstruction = np.mean((array(fake) - array(patch)) ** 2)
    adversarial = -np.mean(array(scores_after))
    expected = {
        "train_discriminator_loss": loss_d,
        "train_score_real": real.mean(),
        "train_score_inpainted": inpainted.mean(),
        "train_reconstruction": reconstruction,
        "train_adversarial": adversarial,
        "train_loss": 0.001 * adversarial + 0.999 * reconstruction,
        "train_saturation": (np.mean(real >= 1) + np.mean(inpainted <= -1)) / 2,
    }
    del metrics["train_adversarial_share"]
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)


def shares_by_hand(one, batch):
    """Ratio of the two terms' gradient norms at the encoder's weights: two backwards of bare networks in float64."""
    network, discriminator = (
        deepcopy(one.context_encoder).double().train(),
        deepcopy(one.discriminator).double().train(),
    )
    norms = []
    for which in (0, 1):
        network.zero_grad()
        x, labels = batch.x_N1HW.double(), batch.labels_NL.double()
        fake = network(x)
        terms = (-0.001 * discriminator(fake, labels).mean(), 0.999 * (fake - x[:, :, 8:24, 8:24]).square().mean())
        terms[which].backward()
        gradients = [parameter.grad.numpy().ravel() for parameter in network.encoder.parameters()]
        norms.append(np.linalg.norm(np.concatenate(gradients)))
    return norms[0] / norms[1]


@pytest.mark.parametrize("labels", [0, len(LABELS)], ids=["ce", "ce_dcm"])
def test_the_adversarial_share_is_the_ratio_of_gradient_norms_at_the_encoders_weights(pool, settings, labels):
    one = training(pool, settings, labels)
    batch = next(one.batches(1, 0))
    expected = shares_by_hand(one, batch)
    share = one.step(batch)[TRAIN_METRICS.index("train_adversarial_share")]
    assert 0 < share.item() == pytest.approx(3 * expected, rel=1e-2), "the first of an epoch's three steps is measured"


def test_an_epochs_mean_share_is_the_mean_of_the_steps_that_are_measured(pool, settings, monkeypatch):
    monkeypatch.setattr("pipeline.pretraining.gradient_share.SHARE_EVERY", 2)
    one = training(pool, settings)
    expected, rows = [], []
    for batch in one.batches(1, 0):
        expected.append(shares_by_hand(one, batch))
        rows.append(one.step(batch)[TRAIN_METRICS.index("train_adversarial_share")].item())
    assert len(rows) == 3 and rows[1] == 0
    assert np.mean(rows) == pytest.approx((expected[0] + expected[2]) / 2, rel=1e-2)
    again = [one.step(batch)[TRAIN_METRICS.index("train_adversarial_share")].item() for batch in one.batches(2, 1)]
    assert again[0] == 0 and again[1] > 0, "an epoch that is gone on with measures the same steps"


def test_measuring_the_share_does_not_change_the_step(pool, settings, monkeypatch):
    measured, other = training(pool, settings), training(pool, settings)
    batch = next(measured.batches(1, 0))
    next(other.batches(1, 0))
    other.share.begin_epoch(1)
    rows = [one.step(batch) for one in (measured, other)]
    column = TRAIN_METRICS.index("train_adversarial_share")
    assert rows[0][column] > 0 and rows[1][column] == 0
    assert torch.equal(rows[0][:column], rows[1][:column])
    assert unchanged(measured.context_encoder, state(other.context_encoder))
    assert unchanged(measured.discriminator, state(other.discriminator))


def test_no_metric_overflows_if_the_reconstruction_has_no_weight(pool, settings, batch):
    one = training(pool, settings.model_copy(update={"lambda_adv": 1.0, "lambda_rec": 0.0}))
    assert one.step(batch).abs().max() < 1e9


def test_an_adversarial_term_without_weight_has_share_zero(pool, settings, batch):
    one = training(pool, settings.model_copy(update={"lambda_adv": 0.0}))
    assert one.step(batch)[TRAIN_METRICS.index("train_adversarial_share")] == 0


@pytest.mark.parametrize("labels", [0, len(LABELS)], ids=["ce", "ce_dcm"])
def test_the_share_reaches_its_target_with_and_without_labels(pool, settings, labels, monkeypatch):
    """From a λadv with which it is far away, and with one batch of all images; with a fixed λadv it stays there."""
    monkeypatch.setattr("pipeline.pretraining.gradient_share.CONTROL_EVERY", 1)
    monkeypatch.setattr("pipeline.pretraining.gradient_share.SHARE_EVERY", 1)
    steady = without_augmentation(settings).model_copy(
        update={"batch_size": 12, "learning_rate": 1e-4, "discriminator_learning_rate": 1e-5, "lambda_adv": 1e-4}
    )
    shares = {}
    for target, epochs in ((0.3, 12), (None, 3)):
        one = training(pool, steady.model_copy(update={"adversarial_share": target}), labels)
        column = one.metrics.index("train_adversarial_share")
        shares[target] = [one.step(batch)[column].item() for epoch in range(epochs) for batch in one.batches(epoch, 0)]
    assert shares[0.3][0] == shares[None][0] < 0.1, "the first is measured with the first λadv"
    assert np.exp(np.mean(np.log(shares[0.3][-6:]))) == pytest.approx(0.3, rel=0.2)
    assert max(shares[None]) < 0.1


def test_a_step_with_a_target_weights_the_adversarial_term_by_the_adjusted_weight(pool, settings, batch):
    one = training(pool, settings.model_copy(update={"adversarial_share": 0.3}))
    expected = 0.001 * 0.3 / shares_by_hand(one, batch)
    metrics = dict(zip(one.metrics, one.step(batch).tolist(), strict=True))
    assert metrics["train_adversarial_weight"] == pytest.approx(expected, rel=1e-2)
    loss = metrics["train_adversarial_weight"] * metrics["train_adversarial"] + 0.999 * metrics["train_reconstruction"]
    assert metrics["train_loss"] == pytest.approx(loss, rel=1e-5)
    validated = one.validate()
    loss = -metrics["train_adversarial_weight"] * validated["val_score_inpainted"] + 0.999 * validated["val_mse"]
    assert validated["val_loss"] == pytest.approx(loss, rel=1e-5)


class _Wrapped(torch.nn.Module):
    """As a compiled network: it delegates to the wrapped one, also for its length."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def __len__(self):
        return len(self.network)

    def forward(self, x_N1HW):
        return self.network(x_N1HW)


def test_a_step_through_a_wrapped_network_is_the_step_through_the_network(pool, settings, batch):
    plain = training(pool, settings)
    other = training(pool, settings)
    wrapped = ContextEncoderTraining(
        other.context_encoder,
        other.discriminator,
        pool,
        other.normalization,
        settings,
        _Wrapped(other.context_encoder),
    )
    assert torch.equal(wrapped.step(batch), plain.step(batch))
    weights = other.context_encoder.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.context_encoder.state_dict().items())


def test_the_discriminators_step_leaves_the_context_encoder_untouched(one, batch):
    one.context_encoder.train()
    inpainted = one.context_encoder(batch.x_N1HW)
    before, before_d = state(one.context_encoder), state(one.discriminator)
    one._discriminator_step(center_patch(batch.x_N1HW), inpainted.detach(), batch.labels_NL)
    assert unchanged(one.context_encoder, before)
    assert all(parameter.grad is None for parameter in one.context_encoder.parameters())
    assert not unchanged(one.discriminator, before_d)


def test_the_context_encoders_step_leaves_the_discriminator_and_its_statistics_untouched(one, batch):
    inpainted = one.context_encoder(batch.x_N1HW)
    before, before_f = state(one.discriminator), state(one.context_encoder)
    one._context_encoder_step(center_patch(batch.x_N1HW), inpainted, batch.labels_NL)
    assert unchanged(one.discriminator, before)
    assert all(parameter.grad is None for parameter in one.discriminator.parameters())
    assert not unchanged(one.context_encoder, before_f)


def test_the_context_encoder_learns_through_the_discriminator_alone_if_the_reconstruction_has_no_weight(pool, settings):
    adversarial_only = settings.model_copy(update={"lambda_adv": 1.0, "lambda_rec": 0.0, "learning_rate": 1e-4})
    one = training(pool, adversarial_only)
    batch = next(iter(training_batches(pool, one.normalization, settings, 1)))
    scores = [
        -one._context_encoder_step(center_patch(batch.x_N1HW), one.context_encoder(batch.x_N1HW), batch.labels_NL)[2]
        for _ in range(6)
    ]
    assert scores[-1] > scores[0], "the inpainted patches' scores must rise"


def test_batch_norm_sees_real_and_inpainted_patches_separately(one, batch):
    patch = center_patch(batch.x_N1HW)
    norm = one.discriminator.features[0][1]
    one.discriminator.train()
    convolved = one.discriminator.features[0][0]
    with torch.no_grad():
        means = [array(convolved(x)).mean(axis=(0, 2, 3)) for x in (patch, patch + 3)]
    one._discriminator_step(patch, patch + 3, batch.labels_NL)
    one_after_the_other = 0.9 * (0.9 * 0 + 0.1 * means[0]) + 0.1 * means[1]
    np.testing.assert_allclose(array(norm.running_mean), one_after_the_other, rtol=1e-4, atol=1e-6)


def test_the_real_patches_scores_do_not_depend_on_the_inpainted_ones(one, batch):
    patch = center_patch(batch.x_N1HW)
    scores = []
    for fake in (patch, patch * 50):
        copy = deepcopy(one)
        scores.append(copy._discriminator_step(patch, fake, batch.labels_NL)[1])
    assert torch.equal(*scores)


def test_unknown_labels_add_nothing_to_a_score(one, batch, pool):
    unknown = torch.tensor([1])
    assert not pool.known_NL[1].any()
    spoilt = deepcopy(pool)
    spoilt.labels_NL[1] = 7.0  # any value in place of an unknown label
    settings = ContextEncoderSettings(batch_size=1)
    only = [deepcopy(p) for p in (pool, spoilt)]
    batches = [next(iter(training_batches(_trained_on(p, unknown), one.normalization, settings, 1))) for p in only]
    assert torch.equal(batches[0].labels_NL, torch.zeros(1, 3))
    assert torch.equal(batches[1].labels_NL, torch.zeros(1, 3))


def _trained_on(pool, indices):
    object.__setattr__(pool, "train", indices)
    return pool


def test_every_method_sees_the_same_batches_in_an_epoch_and_others_in_the_next(one, pool, settings):
    first, again, later = (
        torch.cat([batch.x_N1HW for batch in training_batches(pool, one.normalization, settings, epoch)])
        for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert len(first) == 12


def scores_in_numpy(discriminator, patches, labels):
    """D's scores, every block's features normalized by the mean and variance of these `patches` alone, in float64."""
    x = patches.double()
    for convolution, norm, _ in discriminator.features:
        x = torch.nn.functional.conv2d(x, convolution.weight.double(), stride=2, padding=1)
        features = array(x)
        mean, variance = features.mean(axis=(0, 2, 3), keepdims=True), features.var(axis=(0, 2, 3), keepdims=True)
        weight, bias = (array(tensor)[None, :, None, None] for tensor in (norm.weight, norm.bias))
        features = (features - mean) / np.sqrt(variance + 1e-5) * weight + bias
        x = torch.from_numpy(np.where(features > 0, features, 0.2 * features))
    d = array(x).mean(axis=(2, 3))
    labelled = np.einsum("nd,dl,nl->n", d, array(discriminator.projection.weight), array(labels))
    return d @ array(discriminator.classifier.weight)[0] + array(discriminator.classifier.bias)[0] + labelled


def test_validation_is_l_f_over_all_images_with_d_normalized_by_each_kind_of_patch(one, pool, settings):
    """Four validation images are one batch: F by its running statistics, D by these images', real and false apart."""
    for batch in one.batches(1, 0):
        one.step(batch)
    metrics = one.validate()
    network = deepcopy(one.context_encoder).eval()
    x = (pool.images.images_NHW[pool.val].float() - one.normalization.mean) / one.normalization.sd
    x, labels = x[:, None], pool.labels_NL[pool.val]
    with torch.no_grad():
        fake, real = network(x), x[:, :, 8:24, 8:24]
        scores = [scores_in_numpy(one.discriminator, patches, labels).mean() for patches in (real, fake)]
    mse = np.mean((array(fake) - array(real)) ** 2)
    assert metrics["val_mse"] == pytest.approx(mse, rel=1e-5)
    assert metrics["val_score_real"] == pytest.approx(scores[0], rel=1e-3)
    assert metrics["val_score_inpainted"] == pytest.approx(scores[1], rel=1e-3)
    assert metrics["val_loss"] == pytest.approx(0.999 * mse - 0.001 * scores[1], rel=1e-5)


@pytest.mark.integration
def test_the_same_patches_are_scored_in_validation_as_in_training(pool, settings):
    """The validation images are the training batch, and F's statistics are that batch's: nothing can differ.

    With the running statistics of real and inpainted patches mixed, D's score of the inpainted was another one.
    """
    same = replace(pool, train=pool.val[:4], val=pool.val[:4])
    one = training(same, without_augmentation(settings))
    for norm in (module for module in one.context_encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    x = one.normalization.apply(pool.images.images_NHW[same.val])
    batch = Batch(x, pool.labels_NL[same.val], pool.known_NL[same.val])
    for _ in range(20):
        one.context_encoder.train()
        one.step(batch)
    with torch.no_grad():
        one.context_encoder.train()
        fake = one.context_encoder(x)
        real_score, fake_score = (
            deepcopy(one.discriminator).train()(patches, batch.labels_NL).mean().item()
            for patches in (center_patch(x), fake)
        )
    metrics = one.validate()
    assert metrics["val_score_real"] == pytest.approx(real_score, abs=2e-3)
    assert metrics["val_score_inpainted"] == pytest.approx(fake_score, abs=0.05 * abs(real_score - fake_score))


def test_the_last_validation_batch_is_full_mixed_and_counts_its_own_images(settings):
    """Eleven images in batches of four: the twelfth place is taken by one of the first batch, which counts once."""
    pool = make_pool(count=24, train=13)
    normalization = fit_normalization(pool.images, pool.train)
    found = list(full_validation_batches(pool, normalization, settings))
    assert [len(batch.x_N1HW) for batch, _ in found] == [4, 4, 4]
    assert [own for _, own in found] == [4, 4, 3]
    counted = torch.cat([batch.x_N1HW[:own] for batch, own in found])
    expected = normalization.apply(pool.images.images_NHW[pool.val])
    assert sorted(counted.flatten(1).tolist()) == sorted(expected.flatten(1).tolist()), "every image once"
    assert not torch.equal(counted, expected), "patients are mixed"
    assert any(torch.equal(found[2][0].x_N1HW[3], image) for image in found[0][0].x_N1HW)
    again = list(full_validation_batches(pool, normalization, settings))
    assert all(torch.equal(one.x_N1HW, other.x_N1HW) for (one, _), (other, _) in zip(found, again, strict=True))


@pytest.mark.parametrize("val", [1, 2, 3, 5])
def test_few_validation_images_are_scored_too(settings, val):
    """A single image of 32 x 32 pixels has one value per channel at D's last block: its score is finite, too."""
    pool = make_pool(count=12 + val, train=12)
    metrics = training(pool, settings).validate()
    assert all(np.isfinite(value) for value in metrics.values())


def test_without_batch_norm_every_validation_image_is_scored_by_itself(pool, settings):
    bare = settings.model_copy(update={"discriminator_batch_norm": False})
    scores = []
    for size in (3, 4):
        one = training(pool, bare.model_copy(update={"batch_size": size}))
        with seeded(1, "bare"):
            one.discriminator = Discriminator(len(LABELS), batch_norm=False)
        scores.append([one.validate()[name] for name in ("val_score_real", "val_score_inpainted", "val_loss")])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_diversity_is_that_of_the_inpainted_patches_over_that_of_the_real_ones(pool, settings):
    one = training(pool, settings.model_copy(update={"batch_size": 3}))
    x = (pool.images.batches([pool.val]).__next__().float() - one.normalization.mean) / one.normalization.sd
    with torch.no_grad():
        fake = array(one.context_encoder.eval()(x[:, None]))
    real = array(x[:, None, 8:24, 8:24])
    deviations = [np.sqrt(patches.var(axis=0).mean()) for patches in (fake, real)]
    assert one.validate()["val_diversity"] == pytest.approx(deviations[0] / deviations[1], rel=1e-5)


def test_one_patch_for_all_images_has_no_diversity(one):
    for parameter in one.context_encoder.decoder.to_grey.parameters():
        torch.nn.init.zeros_(parameter)
    assert one.validate()["val_diversity"] == 0


@pytest.mark.parametrize(
    ("saturation", "lambda_adv", "stuck"),
    [
        ([1.0, 1.0, 1.0], 0.001, True),
        ([0.2, 1.0, 1.0, 1.0], 0.001, True),
        ([1.0, 1.0], 0.001, False),
        ([1.0, 1.0, 0.999], 0.001, False),
        ([1.0, 1.0, 1.0], 0.0, False),
    ],
)
def test_three_epochs_without_a_gradient_of_the_discriminator_are_divergence(
    pool, settings, saturation, lambda_adv, stuck
):
    one = training(pool, settings.model_copy(update={"lambda_adv": lambda_adv}))
    curves = [{"train_saturation": share} for share in saturation]
    with pytest.raises(Diverged, match=r"loss was 0 in every step of epochs \d to \d") if stuck else nullcontext():
        one.check_divergence(curves)


def test_validation_counts_every_image_once_for_any_batch_size(pool, settings):
    """D's scores are by the batch; what F paints is not."""
    uneven = [training(pool, settings.model_copy(update={"batch_size": size})).validate() for size in (3, 4, 12)]
    for name in ("val_mse", "val_diversity"):
        assert uneven[0][name] == pytest.approx(uneven[1][name], rel=1e-5)
        assert uneven[0][name] == pytest.approx(uneven[2][name], rel=1e-5)
    assert uneven[1] == pytest.approx(uneven[2], rel=1e-4), (
        "four images are one batch of four, or of the twelve at most"
    )


def test_validation_changes_nothing(one):
    before = [state(one.context_encoder), state(one.discriminator)]
    one.validate()
    assert unchanged(one.context_encoder, before[0])
    assert unchanged(one.discriminator, before[1])


@pytest.mark.parametrize(("backbone", "rate"), [("resnet50", 1e-3), ("vgg16_bn", 1e-4)])
@pytest.mark.integration
def test_trained_on_one_batch_it_reproduces_the_hidden_centre(backbone, rate):
    pool = make_pool(count=5, train=4)
    settings = without_augmentation(ContextEncoderSettings(batch_size=4, learning_rate=rate))
    one = training(pool, settings, encoder=build_encoder(backbone))
    one.context_encoder.train()
    x = one.normalization.apply(pool.images.images_NHW[:4])
    batch = Batch(x, pool.labels_NL[:4], pool.known_NL[:4])
    errors = [one.step(batch)[1].item() for _ in range(45)]
    assert errors[-1] < 0.05 * errors[0]
    assert errors[-1] < 0.1 * center_patch(x).var().item()


def test_the_discriminator_learns_which_labels_belong_to_a_patch(one):
    """Real and false patches are the same ones, so only the labels differ."""
    bright = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1])
    patch = bright[:, None, None, None] + 0.1 * torch.randn(8, 1, 16, 16, generator=generator(0, "texture"))
    labels = torch.stack([bright > 0, bright < 0, bright > 2], dim=1).float()
    one.discriminator.train()
    for _ in range(40):
        one._discriminator_step(patch, patch.flip(0), labels)
    with torch.no_grad():
        right, shuffled = one.discriminator(patch, labels), one.discriminator(patch, labels.flip(0))
    assert (right > shuffled).all()


def test_the_report_compares_with_the_training_images_mean_patch(pool):
    normalization = fit_normalization(pool.images, pool.train)
    report = inpainting_report(0.5, pool, normalization)
    patches = pool.images.images_NHW.numpy().astype(np.float64)[:, 8:24, 8:24]
    errors = ((patches[12:] - patches[:12].mean(axis=0)) / normalization.sd) ** 2
    assert report["validation_mse"] == 0.5
    assert report["mean_patch_mse"] == pytest.approx(errors.mean(), rel=1e-5)
