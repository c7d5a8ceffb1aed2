"""Training by contrast: what each method counts as alike, learning, validation, controls, odd pools.

Belongs here: simclr, supcon and metadata_pairs step by step, and what determines their encoders. Not here: the loss of
given embeddings (test_contrastive_loss.py), the batches (test_two_views.py).
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.images.batches import Normalization, fit_normalization
from pipeline.images.loader import ResidentLoader
from pipeline.methods import METHODS
from pipeline.pretraining.contrastive import ContrastiveTraining, ProjectionHead
from pipeline.pretraining.controls import with_label_variant
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.pretraining.pretrain import fingerprint_of, pretrain
from pipeline.progress import silent
from pipeline.training.seeds import seeded
from tests.pipeline.pretraining.conftest import TinyEncoder, make_pool, relabelled, settings_of

CONTRASTIVE = ("simclr", "supcon", "metadata_pairs")


def training(method, pool, settings, normalization=None):
    with seeded(0, "test"):
        encoder, head = TinyEncoder(), ProjectionHead(8, 16)
    normalization = normalization or fit_normalization(pool.images, pool.train)
    return ContrastiveTraining(METHODS[method], encoder, head, pool, normalization, settings_of(method, settings))


def losses_of(method, pool, settings):
    """The losses of the first epoch's steps."""
    one = training(method, pool, settings)
    return tuple(one.step(batch).item() for batch in one.batches(1, 0))


def similarities(one, batch):
    """Cosine similarities of the embeddings of a batch over the temperature, in float64."""
    with torch.no_grad():
        embeddings = one.network(batch.x_M1HW).double().numpy()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit @ unit.T / one.settings.temperature


def nt_xent(similarity, ignored):
    """The mean over views, with `ignored` pairs of views left out of the denominator."""
    count = len(similarity)
    rows = []
    for i in range(count):
        against = [math.exp(similarity[i, a]) for a in range(count) if a != i and not ignored[i, a]]
        rows.append(math.log(sum(against)) - similarity[i, (i + count // 2) % count])
    return np.mean(rows)


def test_an_embedding_is_an_mlp_of_the_mean_feature_with_batch_norm():
    head, features = ProjectionHead(8, 3), torch.randn(6, 8, 2, 5)
    hidden, norm, _, out = head.layers
    x = features.double().numpy().mean(axis=(2, 3)) @ hidden.weight.detach().double().numpy().T
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + norm.eps)
    expected = np.maximum(x, 0) @ out.weight.detach().double().numpy().T + out.bias.detach().double().numpy()
    np.testing.assert_allclose(head(features).detach(), expected, rtol=1e-3, atol=1e-4)


def test_the_loss_of_simclr_compares_all_other_images(pool, settings):
    one = training("simclr", pool, settings)
    batch = next(one.batches(1, 0))
    expected = nt_xent(similarities(one, batch), np.zeros((8, 8), dtype=bool))
    assert one.step(batch).item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_metadata_pairs_leaves_out_images_of_the_patient(pool, settings):
    pool = replace(pool, patients_N=torch.arange(16) // 4)
    one = training("metadata_pairs", pool, settings)
    batch = next(one.batches(1, 0))
    patients = batch.patients_N.repeat(2).numpy()
    ignored = patients[:, None] == patients
    for view in range(8):
        ignored[view, (view + 4) % 8] = False
    assert ignored.sum() > 8, "the batch has several images of a patient"
    expected = nt_xent(similarities(one, batch), ignored)
    assert one.step(batch).item() == pytest.approx(expected, rel=1e-4)


def test_pairs_can_be_frames_of_one_file(pool, settings):
    files = replace(pool, patients_N=torch.zeros(16, dtype=torch.int64), files_N=torch.arange(16) // 2)
    groups = [
        training("metadata_pairs", files, settings.model_copy(update={"pairs": pairs}))._views.group_I
        for pairs in ("patient", "file")
    ]
    assert torch.equal(groups[0], files.patients_N) and torch.equal(groups[1], files.files_N)


def test_labels_count_for_supcon_alone_and_unknown_ones_for_none(pool, settings):
    for method, changes in (("simclr", False), ("supcon", True), ("metadata_pairs", False)):
        losses = {losses_of(method, each, settings) for each in (pool, relabelled(pool))}
        assert (len(losses) == 2) == changes, method
    unknown = replace(pool, known_NL=torch.zeros_like(pool.known_NL))
    assert losses_of("supcon", unknown, settings) == losses_of("simclr", pool, settings)


@pytest.mark.parametrize("method", CONTRASTIVE)
@pytest.mark.integration
def test_training_lowers_the_loss(pool, settings, method):
    one = training(method, pool, settings.model_copy(update={"learning_rate": 0.01}))
    losses = [torch.cat([one.step(batch) for batch in one.batches(epoch, 0)]).mean().item() for epoch in range(1, 41)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_validation_is_the_mean_loss_of_fixed_batches_in_evaluation_mode(settings):
    pool = make_pool(count=24, train=12)
    one = training("simclr", pool, settings)
    metrics = one.validate()
    one.network.eval()
    none = np.zeros((8, 8), dtype=bool)
    losses = [nt_xent(similarities(one, batch), none) for batch in one._views.validation()]
    assert len(losses) == 3
    assert metrics == {"val_loss": pytest.approx(np.mean(losses), rel=1e-5)}
    assert one.validate() == metrics, "and leaves no trace"


@pytest.mark.parametrize("method", CONTRASTIVE)
def test_a_pool_of_one_patient_or_of_black_images_has_a_finite_loss(pool, settings, method):
    black = replace(pool, images=ResidentLoader(torch.zeros(16, 32, 32, dtype=torch.uint8)))
    for odd in (replace(pool, patients_N=torch.zeros(16, dtype=torch.int64)), black):
        one = training(method, odd, settings, Normalization(50.0, 40.0))
        losses = [one.step(batch).item() for batch in one.batches(1, 0)]
        assert np.isfinite([*losses, one.validate()["val_loss"]]).all()
        assert all(parameter.isfinite().all() for parameter in one.network.parameters())


class TestControls:
    """What shuffled labels and sources do to supcon."""

    @pytest.mark.parametrize("shown", ["shuffled", "source"])
    def test_supcon_is_shown_the_labels_of_the_control(self, pool, settings, shown):
        assert shown in METHODS["supcon"].controls
        control = with_label_variant(shown, pool, 2, lambda: [b"a", b"b"] * 8)
        assert losses_of("supcon", control, settings) != losses_of("supcon", pool, settings)
        assert losses_of("simclr", control, settings) == losses_of("simclr", pool, settings)

    def test_methods_without_labels_have_no_such_control(self):
        assert METHODS["simclr"].controls == METHODS["metadata_pairs"].controls == ()


class TestFingerprint:
    """What retrains a contrastive encoder, and what does not."""

    def of(self, method, pool, settings):
        return fingerprint_of("resnet50", method, pool, settings_of(method, settings))

    @pytest.mark.parametrize("field", ["patients_N", "files_N"])
    def test_which_images_belong_together_counts_for_pairs_alone(self, pool, settings, field):
        regrouped = replace(pool, **{field: torch.arange(16) // 8})
        for method in METHODS:
            changed = self.of(method, pool, settings) != self.of(method, regrouped, settings)
            assert changed == (method == "metadata_pairs"), method

    @pytest.mark.parametrize(
        ("field", "value", "methods"),
        [
            ("temperature", 0.5, set(CONTRASTIVE)),
            ("projection", 64, set(CONTRASTIVE)),
            ("view_speckle", 0.0, set(CONTRASTIVE)),
            ("pairs", "file", {"metadata_pairs"}),
            ("augmentation", None, {"dcm", "ce", "ce_dcm"}),
        ],
    )
    def test_a_setting_counts_for_the_methods_that_use_it(self, pool, settings, field, value, methods):
        value = value if value is not None else settings.augmentation.model_copy(update={"shift": 0.2})
        changed = settings.model_copy(update={field: value})
        every = ("baseline", "imagenet", "dcm", "ce", "ce_dcm", *CONTRASTIVE)
        assert {m for m in every if self.of(m, pool, settings) != self.of(m, pool, changed)} == methods


@pytest.mark.usefixtures("tiny_backbone")
@pytest.mark.integration
def test_a_contrastive_encoder_fills_a_folder_as_every_other(tmp_path: Path, pool, settings):
    own = settings_of("supcon", settings).model_copy(update={"epochs": 1})
    assert pretrain("resnet50", "supcon", pool, own, tmp_path, silent, lambda *_: None).status == "ran"
    assert set(METHODS["supcon"].curve_titles) <= set(read_curves(tmp_path))
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert METHODS["supcon"].card in card and "- temperature: 0.1" in card and "augmentation" not in card
