"""Pretraining into a folder: its files, early exit, resuming, outcomes.

Belongs here: `pretrain` and `inpaint` as callers see them. Not here: single steps.
"""

import csv
import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from pipeline.errors import UserError
from pipeline.images.batches import center_patch, fit_normalization
from pipeline.pretraining import pretrain as pretrain_module
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.pretraining.inpainting import inpaint
from pipeline.pretraining.metadata_classifier import metadata_logits
from pipeline.pretraining.pretrain import fingerprint_of, pretrain
from pipeline.progress import Progress, silent
from pipeline.training import loop
from pipeline.training.loop import fit
from pipeline.training.outcome import Outcome
from tests.pipeline.pretraining.conftest import LABELS, contents, make_pool, relabelled, settings_of

COMMON = {"encoder.safetensors", "encoder.onnx", "preprocessing.json", "model_card.md", "outcome.json"}


def run(method, pool, settings, folder, log=silent, on_epoch=lambda epoch, metrics: None):
    return pretrain("resnet50", method, pool, settings_of(method, settings), folder, log, on_epoch)


def names(folder):
    return {path.name for path in folder.iterdir()}


def same_weights(one: Path, other: Path, file="encoder.safetensors"):
    first, second = load_file(one / file), load_file(other / file)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stopping(after):
    """`Progress.advance` that stops the run once `after` images are counted, before that step's checkpoint."""
    counted = []

    def advance(self, count=1, note=""):
        counted.append(count)
        if sum(counted) >= after:
            raise KeyboardInterrupt

    return advance


@pytest.mark.usefixtures("tiny_backbone")
@pytest.mark.integration
class TestTrained:
    """With the tiny backbone."""

    @pytest.mark.parametrize(
        ("method", "files"),
        [
            ("baseline", set()),
            ("dcm", {"curves.csv", "head.safetensors", "metadata.json"}),
            ("ce", {"curves.csv", "decoder.safetensors", "inpainting.json"}),
            ("ce_dcm", {"curves.csv", "decoder.safetensors", "inpainting.json"}),
            ("metadata_pairs", {"curves.csv"}),
            ("spark", {"curves.csv"}),
            ("spark_aux", {"curves.csv", "head.safetensors", "metadata.json"}),
            (
                "ce_aux",
                {"curves.csv", "decoder.safetensors", "head.safetensors", "inpainting.json", "metadata.json"},
            ),
        ],
    )
    def test_a_folder_holds_its_methods_files_and_no_more(self, tmp_path, pool, settings, method, files):
        outcome = run(method, pool, settings, tmp_path / "encoder")
        assert outcome.status == "ran"
        assert names(tmp_path / "encoder") == COMMON | files
        assert Outcome.read(tmp_path / "encoder") == outcome

    def test_every_epoch_is_reported_and_written_and_the_lowest_reconstruction_error_kept(
        self, tmp_path, pool, settings
    ):
        heard = []
        run("ce_dcm", pool, settings, tmp_path, on_epoch=lambda epoch, metrics: heard.append((epoch, metrics)))
        rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
        assert [(int(row.pop("epoch")), {k: float(v) for k, v in row.items() if v}) for row in rows] == heard
        assert heard[0][1].keys() == {
            "train_loss",
            "train_reconstruction",
            "train_adversarial",
            "train_discriminator_loss",
            "train_score_real",
            "train_score_inpainted",
            "train_saturation",
            "train_adversarial_share",
            "val_loss",
            "val_mse",
            "val_score_real",
            "val_score_inpainted",
            "val_diversity",
        }
        best = min(heard, key=lambda told: told[1]["val_mse"])
        report = json.loads((tmp_path / "inpainting.json").read_text())
        assert report["validation_mse"] == best[1]["val_mse"]
        assert f"epoch kept: {best[0]}, the lowest val_mse of 3" in (tmp_path / "model_card.md").read_text()

    def test_the_discriminators_score_does_not_select_the_epoch(self, tmp_path, pool, settings):
        """At λadv 100 L_F is D's score of that epoch's D alone: epochs of different Ds cannot be ranked by it."""
        heard = []
        loud = settings.model_copy(update={"lambda_adv": 100.0, "epochs": 6})
        run("ce_dcm", pool, loud, tmp_path, on_epoch=lambda epoch, metrics: heard.append(metrics))
        by = {name: min(range(6), key=lambda epoch: heard[epoch][name]) + 1 for name in ("val_loss", "val_mse")}
        assert by["val_loss"] != by["val_mse"]
        assert f"epoch kept: {by['val_mse']}, the lowest val_mse of 6" in (tmp_path / "model_card.md").read_text()

    def test_method_dcm_selects_the_epoch_by_its_loss(self, tmp_path, pool, settings):
        run("dcm", pool, settings, tmp_path)
        assert re.search(r"epoch kept: \d, the lowest val_loss of 3", (tmp_path / "model_card.md").read_text())

    @pytest.mark.parametrize(("status", "stays"), [("ran", True), ("diverged", False)])
    def test_an_encoder_that_an_earlier_version_has_finished_stays(self, tmp_path, pool, settings, status, stays):
        """It is reported as an earlier version's; what that version could not train is tried again."""
        said, folder = [], tmp_path / "resnet50_ce_seed-0"
        Outcome(status, "", fingerprint_of("resnet50", "ce", pool, settings_of("ce", settings), "2"), 5.0).write(folder)
        (folder / "encoder.safetensors").write_bytes(b"theirs")
        outcome = run("ce", pool, settings, folder, said.append)
        assert (outcome.seconds == 5.0) == stays
        assert ((folder / "encoder.safetensors").read_bytes() == b"theirs") == stays
        assert any("by an earlier version" in line and "resnet50_ce_seed-0" in line for line in said) == stays

    def test_an_encoder_of_an_unknown_version_is_trained_again(self, tmp_path, pool, settings):
        Outcome("ran", "", fingerprint_of("resnet50", "ce", pool, settings_of("ce", settings), "1"), 5.0).write(
            tmp_path
        )
        assert run("ce", pool, settings, tmp_path).seconds != 5.0

    def test_the_encoder_on_disk_is_the_best_epochs(self, tmp_path, pool, settings):
        """Its validation error, measured anew from the files, is the one the best epoch reported."""
        run("ce", pool, settings, tmp_path)
        how = Preprocessing.read(tmp_path)
        images = pool.images.images_NHW[pool.val]
        painted, real = center_patch(inpaint(tmp_path, images)).float(), center_patch(images).float()
        measured = ((painted - real) / how.sd).square().mean().item()
        report = json.loads((tmp_path / "inpainting.json").read_text())
        assert measured == pytest.approx(report["validation_mse"], rel=0.02)  # painted in whole grey levels, clamped

    def test_the_head_on_disk_predicts_labels_as_well_as_the_report_states(self, tmp_path, pool, settings):
        run("dcm", pool, settings, tmp_path)
        logits = metadata_logits(tmp_path, pool)
        report = json.loads((tmp_path / "metadata.json").read_text())
        labels = pool.labels_NL[pool.val]
        right = ((logits > 0) == (labels > 0.5)).double().mean(dim=0)
        assert [row["accuracy"] for row in report] == pytest.approx(right.tolist())
        card = (tmp_path / "model_card.md").read_text()
        assert f"validation, liver: accuracy {report[0]['accuracy']:.3f}, balanced accuracy" in card

    def test_only_the_method_dcm_predicts_labels(self, tmp_path, pool, settings):
        run("ce", pool, settings, tmp_path)
        with pytest.raises(UserError, match=r"head\.safetensors"):
            metadata_logits(tmp_path, pool)

    def test_labels_are_predicted_at_the_size_and_in_the_label_space_of_training(self, tmp_path, pool, settings):
        run("dcm", pool, settings, tmp_path)
        with pytest.raises(ValueError, match="images of"):
            metadata_logits(tmp_path, make_pool(height=64))
        two = replace(pool, labels_NL=pool.labels_NL[:, :2], known_NL=pool.known_NL[:, :2], label_names=("a", "b"))
        with pytest.raises(ValueError, match="2 labels, not 3"):
            metadata_logits(tmp_path, two)

    def test_preprocessing_describes_how_to_make_an_input(self, tmp_path, pool, settings):
        run("baseline", pool, settings, tmp_path)
        how, fitted = json.loads((tmp_path / "preprocessing.json").read_text()), None
        fitted = fit_normalization(pool.images, pool.train)
        assert (how["height"], how["width"], how["mean"], how["sd"]) == (32, 32, fitted.mean, fitted.sd)
        assert {"channels", "crop", "backbone"} <= how.keys()

    def test_the_card_names_the_image_digest_and_the_labels_that_the_method_used(self, tmp_path, pool, settings):
        for method in ("ce", "dcm"):
            run(method, pool, settings, tmp_path / method)
        ce, dcm = ((tmp_path / method / "model_card.md").read_text() for method in ("ce", "dcm"))
        assert "digest of images and split: images" in ce
        assert "label space: none" in ce
        assert f"label space: {', '.join(LABELS)}" in dcm

    @pytest.mark.parametrize("method", ["baseline", "dcm", "ce", "ce_dcm", "ce_aux", "spark"])
    def test_the_same_seed_gives_the_same_weights_and_another_seed_others(self, tmp_path, pool, settings, method):
        run(method, pool, settings, tmp_path / "a")
        torch.rand(7)  # earlier use of the generator must not matter
        run(method, pool, settings, tmp_path / "b")
        run(method, pool, settings.model_copy(update={"seed": 1}), tmp_path / "c")
        assert same_weights(tmp_path / "a", tmp_path / "b")
        assert not same_weights(tmp_path / "a", tmp_path / "c")

    @pytest.mark.parametrize("method", ["dcm", "ce_dcm", "metadata_pairs", "ce_aux", "spark_aux"])
    @pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 8])
    def test_a_run_stopped_after_any_step_ends_with_the_same_bits(
        self, tmp_path, pool, settings, method, stop_after, monkeypatch
    ):
        """Three epochs of three steps; a checkpoint after each step."""
        run(method, pool, settings, tmp_path / "whole")
        monkeypatch.setattr(loop, "fit", partial(fit, checkpoint_seconds=0))
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patched:
            patched.setattr(Progress, "advance", stopping(stop_after * settings.batch_size))
            run(method, pool, settings, tmp_path / "stopped")
        assert Outcome.read(tmp_path / "stopped") is None
        heard, said = [], []
        run(method, pool, settings, tmp_path / "stopped", said.append, lambda epoch, metrics: heard.append(epoch))
        assert any(f"resnet50 {method}: resumes after epoch" in line for line in said) == (stop_after > 1)
        assert heard == [1, 2, 3]
        whole, stopped = contents(tmp_path / "whole"), contents(tmp_path / "stopped")
        assert whole.keys() == stopped.keys()
        assert [file for file in whole if whole[file] != stopped[file]] == []

    @pytest.mark.parametrize("stop_after", [1, 4])
    def test_adjusted_weights_and_estimates_of_spectral_norms_are_resumed(
        self, tmp_path, pool, settings, stop_after, monkeypatch
    ):
        """Of a step within an epoch, and of one at its start, which adjusts the weight."""
        changed = settings.model_copy(update={"adversarial_share": 0.3, "discriminator_spectral_norm": True})
        self.test_a_run_stopped_after_any_step_ends_with_the_same_bits(
            tmp_path, pool, changed, "ce_dcm", stop_after, monkeypatch
        )

    def test_an_unchanged_training_is_not_repeated(self, tmp_path, pool, settings):
        trained, heard = [], []
        first = run("ce", pool, settings, tmp_path, on_epoch=lambda *epoch: trained.append(epoch))
        (tmp_path / "encoder.safetensors").write_bytes(b"untouched")
        assert run("ce", pool, settings, tmp_path, on_epoch=lambda *epoch: heard.append(epoch)) == first
        assert (tmp_path / "encoder.safetensors").read_bytes() == b"untouched"
        assert [epoch for epoch, _ in trained] == [1, 2, 3]
        assert heard == trained  # a tracker of the second run has the curves as well

    def test_a_checkpoint_left_beside_an_outcome_is_removed(self, tmp_path, pool, settings):
        run("ce", pool, settings, tmp_path)
        whole = names(tmp_path)
        for name in ("checkpoint.safetensors", "checkpoint-previous.safetensors"):
            (tmp_path / name).write_bytes(b"of the killed run")
        run("ce", pool, settings, tmp_path)
        assert names(tmp_path) == whole

    def test_new_labels_retrain_ce_dcm_but_not_ce(self, tmp_path, pool, settings):
        for method in ("ce", "ce_dcm"):
            run(method, pool, settings, tmp_path / method)
        said = []
        for method in ("ce", "ce_dcm"):
            (tmp_path / method / "encoder.safetensors").write_bytes(b"untouched")
            run(method, relabelled(pool), settings, tmp_path / method, said.append)
        assert "resnet50 ce: nothing has changed, ran before" in said
        assert not any(line.startswith("resnet50 ce_dcm: nothing") for line in said)
        touched = {
            method: (tmp_path / method / "encoder.safetensors").read_bytes() != b"untouched"
            for method in ("ce", "ce_dcm")
        }
        assert touched == {"ce": False, "ce_dcm": True}

    @pytest.mark.parametrize(("method", "same"), [("ce", True), ("ce_dcm", False), ("dcm", False)])
    def test_labels_affect_only_the_methods_that_use_them(self, tmp_path, pool, settings, method, same):
        run(method, pool, settings, tmp_path / "a")
        run(method, relabelled(pool), settings, tmp_path / "b")
        assert same_weights(tmp_path / "a", tmp_path / "b") == same

    def test_a_diverged_training_leaves_no_encoder(self, tmp_path, pool, settings):
        run("ce", pool, settings, tmp_path)
        wild = settings.model_copy(update={"learning_rate": math.inf})
        outcome = run("ce", pool, wild, tmp_path)
        assert outcome.status == "diverged"
        assert re.search(r"was nan in epoch \d", outcome.reason)
        assert names(tmp_path) == {"outcome.json"}

    @pytest.mark.parametrize(("rate", "status"), [(1e-3, "ran"), (1e30, "diverged")])
    def test_seconds_include_those_of_interrupted_runs_for_every_outcome(
        self, tmp_path, pool, settings, rate, status, monkeypatch
    ):
        monkeypatch.setattr(pretrain_module, "seconds_done", lambda checkpoint, fingerprint: 1e6)
        run("dcm", pool, settings.model_copy(update={"learning_rate": rate}), tmp_path)
        outcome = Outcome.read(tmp_path)
        assert outcome.status == status
        assert 1e6 < outcome.seconds < 1e6 + 300

    def test_an_exploding_learning_rate_is_divergence(self, tmp_path, pool, settings):
        for method in ("dcm", "ce_dcm"):
            wild = settings.model_copy(update={"learning_rate": 1e30})
            assert run(method, pool, wild, tmp_path / method).status == "diverged"

    def test_a_set_smaller_than_one_batch_is_refused_before_anything_is_written(self, tmp_path, pool, settings):
        large = settings.model_copy(update={"batch_size": 13})
        with pytest.raises(UserError, match=r"pretraining\.batch_size is 13, but the pool has 12 training images"):
            run("ce", pool, large, tmp_path / "encoder")
        assert not (tmp_path / "encoder").exists()

    def test_inpainting_replaces_only_the_centre_and_does_not_depend_on_it(self, tmp_path, pool, settings):
        run("ce", pool, settings, tmp_path)
        images = pool.images.images_NHW[:3]
        spoilt = images.clone()
        center_patch(spoilt).fill_(255)
        painted = inpaint(tmp_path, images)
        outside = center_patch(torch.ones(32, 32)).new_ones(32, 32, dtype=torch.bool)
        center_patch(outside).fill_(False)
        assert painted.dtype == torch.uint8
        assert torch.equal(painted[:, outside], images[:, outside])
        assert torch.equal(painted, inpaint(tmp_path, spoilt))
        assert not torch.equal(painted, images)

    def test_only_context_encoders_inpaint(self, tmp_path, pool, settings):
        run("dcm", pool, settings, tmp_path)
        with pytest.raises(UserError, match=r"decoder\.safetensors"):
            inpaint(tmp_path, pool.images.images_NHW)


class TestFingerprint:
    """What retrains an encoder, and what does not."""

    def of(self, method, pool, settings):
        return fingerprint_of("resnet50", method, pool, settings_of(method, settings))

    @pytest.mark.parametrize(
        ("method", "changes"), [("baseline", 0), ("dcm", 1), ("ce", 0), ("ce_dcm", 1), ("ce_aux", 1)]
    )
    def test_labels_change_the_fingerprints_of_labelled_methods_only(self, pool, settings, method, changes):
        assert (self.of(method, pool, settings) != self.of(method, relabelled(pool), settings)) == changes

    @pytest.mark.parametrize("method", ["baseline", "imagenet", "dcm", "ce", "ce_dcm"])
    def test_images_and_split_change_every_fingerprint(self, pool, settings, method):
        grown = replace(pool, image_digest="other")
        resplit = replace(pool, train=pool.train[:-1])
        assert len({self.of(method, each, settings) for each in (pool, grown, resplit)}) == 3

    @pytest.mark.parametrize(
        ("field", "value", "methods"),
        [
            ("epochs", 4, {"dcm", "ce", "ce_dcm", "ce_aux"}),
            ("lambda_adv", 0.5, {"ce", "ce_dcm"}),
            ("discriminator_batch_norm", False, {"ce", "ce_dcm"}),
            ("discriminator_spectral_norm", True, {"ce", "ce_dcm"}),
            ("adversarial_share", 0.3, {"ce", "ce_dcm"}),
            ("label_share", 0.3, {"ce_aux"}),
            ("discriminator_learning_rate", 0.5, {"ce", "ce_dcm"}),
            ("learning_rate", 0.5, {"dcm", "ce", "ce_dcm", "ce_aux"}),
            ("seed", 4, {"baseline", "dcm", "ce", "ce_dcm", "ce_aux"}),
            ("imagenet_weights", {"vgg16_bn": "other"}, set()),
        ],
    )
    def test_a_setting_changes_the_fingerprints_of_the_methods_that_use_it(self, pool, settings, field, value, methods):
        changed = settings.model_copy(update={field: value})
        every = ["baseline", "imagenet", "dcm", "ce", "ce_dcm", "ce_aux"]
        assert {m for m in every if self.of(m, pool, settings) != self.of(m, pool, changed)} == methods

    @pytest.mark.parametrize(
        ("first", "without_effect"),
        [
            ({"discriminator_spectral_norm": True}, {"discriminator_batch_norm": False}),
            ({"lambda_adv": 0.0}, {"adversarial_share": 0.3}),
            ({"adversarial_share": 0.3}, {"lambda_adv": 0.5}),
        ],
    )
    def test_a_setting_that_another_one_replaces_has_no_effect(self, pool, settings, first, without_effect):
        one, other = settings.model_copy(update=first), settings.model_copy(update=first | without_effect)
        assert self.of("ce_dcm", pool, one) == self.of("ce_dcm", pool, other) != self.of("ce_dcm", pool, settings)


class TestImageNet:
    """With torchvision's own ResNet-50."""

    def test_without_weights_it_is_unavailable_and_explains_how_to_supply_them(self, tmp_path, pool, settings):
        outcome = run("imagenet", pool, settings, tmp_path)
        assert outcome.status == "unavailable"
        assert "pretraining.imagenet_weights.resnet50" in outcome.reason
        assert names(tmp_path) == {"outcome.json"}

    @pytest.mark.integration
    def test_a_weights_file_supplied_later_is_used(self, tmp_path, pool, settings):
        file = tmp_path / "resnet50.safetensors"
        named = settings.model_copy(update={"imagenet_weights": {"resnet50": str(file)}})
        assert run("imagenet", pool, named, tmp_path / "encoder").status == "unavailable"
        theirs = torchvision.models.resnet50().state_dict()
        save_file(theirs, file)
        assert run("imagenet", pool, named, tmp_path / "encoder").status == "ran"
        ours = load_file(tmp_path / "encoder" / "encoder.safetensors")
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        assert Preprocessing.read(tmp_path / "encoder").mean == fit_normalization(pool.images, pool.train).mean


@pytest.mark.integration
def test_a_real_backbone_is_pretrained_at_small_size(tmp_path, settings):
    """ResNet-50, one epoch, a 64 x 96 image: what the demo recipe does."""
    pool = make_pool(count=6, train=4, height=64, width=96)
    outcome = run("ce_dcm", pool, settings.model_copy(update={"epochs": 1}), tmp_path)
    assert outcome.status == "ran"
    peer = torchvision.models.resnet50()
    loaded = peer.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=False)
    assert set(loaded.missing_keys) == {"fc.weight", "fc.bias"}
    assert inpaint(tmp_path, pool.images.images_NHW).shape == (6, 64, 96)


def test_a_set_whose_labels_do_not_fit_its_images_is_refused(pool):
    with pytest.raises(ValueError, match="labels of 16 images"):
        replace(pool, labels_NL=pool.labels_NL[:3])
    with pytest.raises(ValueError, match="no validation image"):
        PretrainingSet(**{**vars(pool), "val": pool.val[:0]})
