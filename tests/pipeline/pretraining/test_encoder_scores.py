"""Scores of an encoder while it is trained: their values, their labels, and what they leave unchanged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.errors import UserError
from pipeline.images.batches import Normalization, fit_normalization
from pipeline.methods import METHODS
from pipeline.pretraining import encoder_scores
from pipeline.pretraining import pretrain as pretrain_module
from pipeline.pretraining.controls import with_shuffled_labels, with_sources_as_labels
from pipeline.pretraining.curves import ALIGNMENT, EFFECTIVE_RANK, LINEAR_AUC, NEIGHBOUR_AUC, SCORE_TITLES, UNIFORMITY
from pipeline.pretraining.encoder_folder import read_curves
from pipeline.pretraining.encoder_scores import EncoderScores, scored_images
from pipeline.pretraining.pretrain import fingerprint_of, pretrain
from pipeline.progress import silent
from pipeline.representation.neighbours import neighbour_votes
from pipeline.representation.ridge import ridge_scores
from pipeline.settings import Augmentation
from pipeline.training.outcome import Outcome
from pipeline.training.tensors import read_tensors
from tests.pipeline.pretraining.conftest import TinyEncoder, make_pool, relabelled, settings_of, without_augmentation

TRAINED = [name for name, method in METHODS.items() if method.trains]
POOL = make_pool(count=80, train=48)
AUGMENTATION = Augmentation()


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    return TinyEncoder()


def scores_of(encoder, pool=POOL, augmentation=AUGMENTATION):
    return EncoderScores(encoder, pool, fit_normalization(pool.images, pool.train), augmentation)()


def features_of(encoder, pool=POOL):
    normalization = fit_normalization(pool.images, pool.train)
    with torch.no_grad():
        return encoder.eval()(normalization.apply(pool.images.images_NHW)).mean((2, 3)).numpy()


def test_scores_are_those_of_the_features_of_each_side(encoder):
    found, features = scores_of(encoder), features_of(encoder)
    train, val = features[POOL.train], features[POOL.val]
    targets = np.where(POOL.known_NL, POOL.labels_NL, -1).astype(np.int8)
    for name, answer in ((NEIGHBOUR_AUC, neighbour_votes), (LINEAR_AUC, ridge_scores)):
        patients = (POOL.patients_N[POOL.train].numpy(),) * (answer is ridge_scores)
        answers = answer(train, targets[POOL.train], *patients, val)
        expected = [roc_auc_score(truth, column) for truth, column in zip(targets[POOL.val].T, answers.T, strict=True)]
        assert found[name] == pytest.approx(np.mean(expected), abs=1e-6), name
    singular = np.linalg.svd(val, compute_uv=False)
    share = singular[singular > 0] / singular.sum()
    assert found[EFFECTIVE_RANK] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
    assert found[UNIFORMITY] < 0


def test_alignment_compares_two_views_by_the_augmentation_of_the_recipe(encoder):
    none = Augmentation(horizontal_flip=False, shift=0)
    assert scores_of(encoder, augmentation=none)[ALIGNMENT] == pytest.approx(0, abs=1e-12)
    small, large = (scores_of(encoder, augmentation=Augmentation(shift=shift))[ALIGNMENT] for shift in (0.05, 0.4))
    assert 0 < small < large <= 4


def test_the_same_encoder_has_the_same_scores_and_no_random_number_is_drawn(encoder):
    scores = EncoderScores(encoder, POOL, Normalization(100.0, 50.0), Augmentation())
    before = torch.get_rng_state()
    assert scores() == scores()
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_of_a_control_are_not_those_that_are_scored(encoder):
    sources = [b"a", b"b"] * (POOL.images.count // 2)
    for control in (with_shuffled_labels(POOL, 1), with_sources_as_labels(POOL, sources)):
        assert scores_of(encoder, control) == scores_of(encoder)


def test_without_a_label_on_both_sides_there_are_no_areas_and_no_selection_by_them(encoder, tmp_path, settings):
    unlabelled = replace(POOL, labels_NL=torch.zeros_like(POOL.labels_NL))
    assert scores_of(encoder, unlabelled).keys() == {EFFECTIVE_RANK, ALIGNMENT, UNIFORMITY}
    by_score = settings_of("dcm", settings).model_copy(update={"select_by": "linear_auc"})
    with pytest.raises(UserError, match="select_by is linear_auc"):
        encoder_scores.scoring_of(by_score, encoder, unlabelled, Normalization(100.0, 50.0))


def test_a_feature_that_is_not_finite_makes_every_score_nan(encoder):
    with torch.no_grad():
        encoder.backbone[4][1].bias[0] = torch.inf
    assert np.isnan(list(scores_of(encoder).values())).all()


def test_of_a_large_pool_a_fixed_number_of_images_is_scored(monkeypatch, encoder):
    for name, at_most in (("MAX_TRAIN", 20), ("MAX_VAL", 10), ("MAX_VIEWED", 4)):
        monkeypatch.setattr(encoder_scores, name, at_most)
    seen = []
    encoder.register_forward_hook(lambda module, images, features: seen.append(len(features)))
    scores_of(encoder)
    assert sum(seen) == scored_images(POOL) == 20 + 10 + 2 * 4


@pytest.mark.parametrize("collapses", [True, False])
def test_the_effective_rank_shows_a_collapse_after_the_second_epoch(encoder, collapses):
    """A loss that pulls all features to one vector, and one that keeps them apart, for two epochs of 40 steps."""
    optimizer = torch.optim.Adam(encoder.parameters(), 0.05)
    normalization = fit_normalization(POOL.images, POOL.train)
    x = normalization.apply(POOL.images.images_NHW[POOL.train])
    for _ in range(2 * 40):
        features = encoder.train()(x).mean((2, 3))
        spread = features - features.mean(0)
        loss = (features - 1).square().mean() if collapses else -torch.logdet(spread.T @ spread / 48 + torch.eye(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = scores_of(encoder)
    if collapses:
        assert found[EFFECTIVE_RANK] < 1.5 and found[UNIFORMITY] > -0.1
    else:
        assert found[EFFECTIVE_RANK] > 3 and found[UNIFORMITY] < -0.3


def trained(method, settings, folder, pool=POOL):
    outcome = pretrain("resnet50", method, pool, settings_of(method, settings), folder, silent, lambda *_: None)
    assert outcome.status == "ran"
    return outcome


@pytest.mark.usefixtures("tiny_backbone")
@pytest.mark.parametrize("method", ["dcm", pytest.param("ce_dcm", marks=pytest.mark.integration)])
def test_weights_and_other_metrics_are_the_same_bits_with_and_without_scores(method, settings, tmp_path, monkeypatch):
    often = settings.model_copy(update={"score_every": 1})
    trained(method, often, tmp_path / "with")
    monkeypatch.setattr(pretrain_module, "scoring_of", lambda *_: None)
    trained(method, often, tmp_path / "without")
    names = [path.name for path in (tmp_path / "without").glob("*.safetensors")]
    for name in names:
        first, second = (read_tensors(tmp_path / folder / name) for folder in ("with", "without"))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first), name
    curves, plain = read_curves(tmp_path / "with"), read_curves(tmp_path / "without")
    assert curves.keys() - plain.keys() == SCORE_TITLES.keys()
    assert {name: curves[name] for name in plain} == plain


@pytest.mark.usefixtures("tiny_backbone")
def test_a_score_can_select_the_epoch_that_is_kept(settings, tmp_path):
    by_score = without_augmentation(settings).model_copy(update={"epochs": 6, "score_every": 2})
    by_score = by_score.model_copy(update={"select_by": "linear_auc", "learning_rate": 0.02})
    outcome, curves = trained("dcm", by_score, tmp_path), read_curves(tmp_path)
    scores = np.array(curves[LINEAR_AUC])
    assert np.isnan(scores).tolist() == [True, False] * 3
    assert outcome.kept_epoch == Outcome.read(tmp_path).kept_epoch == int(np.nanargmax(scores)) + 1
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert f"epoch kept: {outcome.kept_epoch}, the highest val_linear_auc of 3" in card


@pytest.mark.parametrize("method", TRAINED)
def test_scores_determine_an_encoder_only_if_they_select_it(method, settings):
    def fingerprint(pool=POOL, **changes):
        changed = settings.model_copy(update=changes)
        return fingerprint_of("resnet50", method, pool, settings_of(method, changed))

    assert fingerprint(score_every=2) == fingerprint()
    selected = fingerprint(select_by="linear_auc")
    assert len({fingerprint(), selected, fingerprint(select_by="linear_auc", score_every=2)}) == 3
    assert fingerprint(relabelled(POOL), select_by="linear_auc") != selected
    assert (fingerprint(relabelled(POOL)) != fingerprint()) == METHODS[method].labelled
