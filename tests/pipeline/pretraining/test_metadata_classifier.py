"""The encoder that predicts weak labels: learning, and scores by label.

Belongs here: dcm step by step. Not here: files.
"""

import numpy as np
import pytest
import torch

from pipeline.images.batches import fit_normalization
from pipeline.pretraining.metadata_classifier import MetadataHead, MetadataTraining
from pipeline.training.seeds import seeded
from tests.pipeline.pretraining.conftest import LABELS, TinyEncoder


@pytest.fixture
def one(pool, settings):
    with seeded(0, "test"):
        encoder, head = TinyEncoder(), MetadataHead(8, len(LABELS))
    return MetadataTraining(encoder, head, pool, fit_normalization(pool.images, pool.train), settings)


def test_logits_are_a_linear_function_of_the_mean_feature():
    head = MetadataHead(8, 3)
    features = torch.randn(2, 8, 3, 5)
    weight, bias = (parameter.detach().double().numpy() for parameter in head.parameters())
    by_hand = features.double().numpy().mean(axis=(2, 3)) @ weight.T + bias
    np.testing.assert_allclose(head(features).detach(), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_training_fits_the_labels_of_the_training_images(one):
    one.optimizer.param_groups[0]["lr"] = 0.01
    losses = [torch.cat([one.step(batch) for batch in one.batches(epoch, 0)]).mean().item() for epoch in range(1, 41)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_validation_and_report_count_known_labels_only(one, pool):
    pool.known_NL[13, 0] = False
    pool.known_NL[12:, 2] = False
    with torch.no_grad():
        logits = one.network.eval()(one.normalization.apply(pool.images.images_NHW[pool.val])).double().numpy()
    labels, known = pool.labels_NL[pool.val].numpy(), pool.known_NL[pool.val].numpy()
    right = ((logits > 0) == (labels > 0.5)) & known
    each = np.logaddexp(0, logits) - logits * labels * known
    metrics, report = one.validate(), one.report(pool)
    assert metrics["val_loss"] == pytest.approx(each[known].mean(), rel=1e-5)
    assert metrics["val_accuracy"] == pytest.approx(right.sum() / known.sum())
    assert [row["label"] for row in report] == list(LABELS)
    assert [row["images"] for row in report] == [3, 4, 0]
    assert report[1]["base_rate"] == pytest.approx(labels[:, 1].mean())
    assert report[1]["accuracy"] == pytest.approx(right[:, 1].mean())
    assert report[2]["base_rate"] is None
    assert report[2]["accuracy"] is None
