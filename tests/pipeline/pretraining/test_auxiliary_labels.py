"""Inpainting with a label loss beside it: inputs, gradient and metrics of a step, against NumPy and hand-made sums.

Not here: files and resuming (test_pretrain.py), the weight's arithmetic (test_gradient_share.py).
"""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.images.batches import center_patch, fit_normalization
from pipeline.networks.decoder import Decoder
from pipeline.pretraining.auxiliary_labels import AuxiliaryLabelTraining, LabelledContextEncoder
from pipeline.pretraining.context_encoder import ContextEncoder
from pipeline.pretraining.labelled_step import TRAIN_METRICS
from pipeline.pretraining.metadata_classifier import MetadataHead
from pipeline.training.seeds import seeded
from tests.pipeline.pretraining.conftest import LABELS, TinyEncoder, settings_of, without_augmentation

SHARE, WEIGHT = (TRAIN_METRICS.index(f"train_label_{name}") for name in ("share", "weight"))


@pytest.fixture
def one(pool, settings):
    return training(pool, settings)


def training(pool, settings):
    with seeded(0, "test"):
        encoder = TinyEncoder()
        network = LabelledContextEncoder(
            ContextEncoder(encoder, Decoder(encoder.channels[-1])), MetadataHead(8, len(LABELS))
        )
    own = settings_of("ce_aux", settings)
    return AuxiliaryLabelTraining(network, pool, fit_normalization(pool.images, pool.train), own)


def losses_by_hand(network, batch):
    """The label loss and the reconstruction loss of a copy of `network` in float64, as tensors with gradients."""
    network = deepcopy(network).double().train()
    x = batch.x_N1HW.double()
    hidden = x.clone()
    hidden[:, :, 8:24, 8:24] = 0
    features = network.encoder(hidden)
    logits = features.mean(dim=(2, 3)) @ network.head.classifier.weight.T + network.head.classifier.bias
    labels, known = batch.labels_NL.double(), batch.known_NL.double()
    each = -(labels * torch.log(torch.sigmoid(logits)) + (1 - labels) * torch.log(torch.sigmoid(-logits)))
    of_labels = (each * known).sum() / max(known.sum().item(), 1)
    return network, of_labels, (network.decoder(features) - x[:, :, 8:24, 8:24]).square().mean()


def gradients(network, loss):
    found = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
    pairs = zip(network.named_parameters(), found, strict=True)
    return {name: (0 * p if g is None else g).detach().numpy() for (name, p), g in pairs}


def norm_at_the_encoder(of):
    return np.sqrt(sum((gradient**2).sum() for name, gradient in of.items() if name.startswith("encoder.")))


def test_a_steps_gradient_is_the_reconstructions_plus_the_weighted_labels(one):
    batch = next(one.batches(1, 0))
    network, of_labels, reconstruction = losses_by_hand(one.network, batch)
    labels, inpainting = gradients(network, of_labels), gradients(network, reconstruction)
    ratio = norm_at_the_encoder(labels) / norm_at_the_encoder(inpainting)
    weight = 1 / ratio
    metrics = dict(zip(TRAIN_METRICS, one.step(batch).tolist(), strict=True))
    assert metrics == pytest.approx(
        {
            "train_loss": reconstruction.item() + weight * of_labels.item(),
            "train_reconstruction": reconstruction.item(),
            "train_label_loss": of_labels.item(),
            "train_label_share": 3 * ratio,  # one of an epoch's three steps is measured
            "train_label_weight": weight,
        },
        rel=1e-3,
    )
    for name, parameter in one.network.named_parameters():
        expected = inpainting[name] + weight * labels[name]
        np.testing.assert_allclose(
            parameter.grad.numpy(), expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max() + 1e-6
        )


def test_an_unknown_label_adds_nothing(one):
    batch = next(one.batches(1, 0))
    unknown = replace(batch, known_NL=torch.zeros_like(batch.known_NL))
    network, _, reconstruction = losses_by_hand(one.network, unknown)
    expected = gradients(network, reconstruction)
    row = one.step(unknown)
    assert (row[SHARE].item(), row[WEIGHT].item()) == (0, 1), "without a label the weight stays"
    assert row[0] == row[1]
    assert all(parameter.grad.abs().max() == 0 for parameter in one.network.head.parameters())
    for name, parameter in one.network.encoder.named_parameters():
        gradient = expected[f"encoder.{name}"]
        np.testing.assert_allclose(
            parameter.grad.numpy(), gradient, rtol=1e-2, atol=1e-3 * np.abs(gradient).max() + 1e-6
        )


def test_the_share_reaches_its_target(pool, settings, monkeypatch):
    monkeypatch.setattr("pipeline.pretraining.gradient_share.CONTROL_EVERY", 1)
    steady = without_augmentation(settings).model_copy(update={"batch_size": 12, "learning_rate": 1e-4})
    one = training(pool, steady.model_copy(update={"label_share": 0.3}))
    shares = [one.step(batch)[SHARE].item() for epoch in range(1, 13) for batch in one.batches(epoch, 0)]
    assert shares[0] > 0.6, "with the first weight"
    assert np.exp(np.mean(np.log(shares[-6:]))) == pytest.approx(0.3, rel=0.2)


def test_a_step_through_a_compiled_network_trains_the_network(pool, settings):
    class Compiled(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x_N1HW):
            return self.network(x_N1HW)

    plain, other = training(pool, settings), training(pool, settings)
    compiled = Compiled(other.network)
    wrapped = AuxiliaryLabelTraining(other.network, pool, other.normalization, other.settings, compiled)
    batch = next(plain.batches(1, 0))
    assert torch.equal(wrapped.step(batch), plain.step(batch))
    weights = other.network.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.network.state_dict().items())


def test_measuring_the_share_changes_no_running_statistics(one):
    batch = next(one.batches(1, 0))
    before = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    one.labelled.measured(lambda network: one._losses(network, batch))
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.network.state_dict().items())


def test_validation_and_report_are_of_masked_images_and_known_labels(one, pool):
    pool.known_NL[13, 0] = False
    x = one.normalization.apply(pool.images.images_NHW[pool.val])
    hidden = x.clone()
    center_patch(hidden).zero_()
    with torch.no_grad():
        features = one.network.eval().encoder(hidden)
        logits, inpainted = one.network.head(features).double().numpy(), one.network.decoder(features)
    labels, known = pool.labels_NL[pool.val].numpy(), pool.known_NL[pool.val].numpy()
    each, right = np.logaddexp(0, logits) - logits * labels * known, (logits > 0) == (labels > 0.5)
    mse = (inpainted - center_patch(x)).square().mean().item()
    metrics, report = one.validate(), one.report(pool)
    expected = {
        "val_loss": mse + each[known].mean(),  # the first weight is 1
        "val_mse": mse,
        "val_label_loss": each[known].mean(),
        "val_accuracy": right[known].mean(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert metrics["val_diversity"] > 0
    assert [row["images"] for row in report] == [3, 4, 4]
    assert [row["accuracy"] for row in report] == pytest.approx(
        [right[:, i][known[:, i]].mean() for i in range(len(LABELS))]
    )
