"""Weights to start from, and encoders made elsewhere: used, refused, unavailable, part of a fingerprint."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import UserError
from pipeline.methods import METHODS, TrainingSettings
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.pretraining.plan import planned_encoders
from pipeline.pretraining.preflight import unfinished_encoders
from pipeline.pretraining.pretrain import fingerprint_of, pretrain
from pipeline.pretraining.start import refuse_exposed_starts
from pipeline.privacy.training_exposure import models_exposed_to, record_training_set
from pipeline.progress import silent
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.training.outcome import Outcome
from pipeline.training_sets import training_set_digests
from tests.pipeline.pretraining.conftest import TinyEncoder

pytestmark = pytest.mark.usefixtures("tiny_backbone", "without_onnx")


@pytest.fixture
def without_onnx(monkeypatch):
    """Exporting takes longer than all the rest."""
    monkeypatch.setattr("pipeline.pretraining.pretrain.export_onnx", lambda folder, log: None)


def run(method, pool, folder, backbone="resnet50", **settings):
    if METHODS[method].trains:
        settings = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-9} | settings
    return pretrain(backbone, method, pool, METHODS[method].settings(**settings), folder, silent, lambda *_: None)


def fingerprint(pool, method="dcm", backbone="resnet50", **settings):
    return fingerprint_of(backbone, method, pool, METHODS[method].settings(**settings))


def weights(folder: Path) -> torch.Tensor:
    return load_file(folder / "encoder.safetensors")["0.0.weight"]


def weights_file(path: Path, seed: int = 1) -> torch.Tensor:
    """A file of random weights; returns those of its first convolution."""
    torch.manual_seed(seed)
    encoder = TinyEncoder()
    save_file(encoder.backbone.state_dict(), path)
    return encoder.backbone[0][0].weight.detach()


@pytest.mark.parametrize("method", ["dcm", "ce"])
def test_a_training_starts_from_another_encoder(tmp_path, pool, method):
    assert run("baseline", pool, tmp_path / "first", seed=7).status == "ran"
    assert run(method, pool, tmp_path / "next", start_from=str(tmp_path / "first")).status == "ran"
    assert run(method, pool, tmp_path / "random").status == "ran"
    # with a learning rate of 1e-9 the weights stay those of the start
    torch.testing.assert_close(weights(tmp_path / "next"), weights(tmp_path / "first"), atol=1e-7, rtol=0)
    assert (weights(tmp_path / "random") - weights(tmp_path / "first")).abs().max() > 1e-2
    card = (tmp_path / "next" / "model_card.md").read_text()
    assert "- start_from: encoder\n" in card
    assert str(tmp_path) not in card


def test_a_training_starts_from_imagenets_weights(tmp_path, pool):
    theirs = weights_file(tmp_path / "imagenet.safetensors")
    named = {"resnet50": str(tmp_path / "imagenet.safetensors")}
    assert run("dcm", pool, tmp_path / "next", start_from="imagenet", imagenet_weights=named).status == "ran"
    torch.testing.assert_close(weights(tmp_path / "next"), theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("start", ["imagenet", "folder"])
def test_without_the_weights_the_outcome_is_unavailable_and_names_no_folder(tmp_path, pool, start):
    start_from = start if start == "imagenet" else str(tmp_path / "smith" / "encoder_7")
    outcome = run("dcm", pool, tmp_path / "next", start_from=start_from)
    assert outcome.status == "unavailable"
    assert "smith" not in outcome.reason
    assert ("imagenet_weights.resnet50" if start == "imagenet" else "encoder_7") in outcome.reason


def test_an_encoder_of_another_backbone_is_refused(tmp_path, pool):
    run("baseline", pool, tmp_path / "first", backbone="vgg16_bn")
    with pytest.raises(UserError, match=r"start_from .*first holds an encoder of vgg16_bn, not of resnet50"):
        run("dcm", pool, tmp_path / "next", start_from=str(tmp_path / "first"))


def test_a_fingerprint_includes_the_weights_and_not_their_place(tmp_path, pool):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("baseline", pool, tmp_path / name, seed=seed)
    a, b, c = (fingerprint(pool, start_from=str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert len({a, fingerprint(pool), fingerprint(pool, start_from=str(tmp_path / "missing"))}) == 3


def test_the_default_is_not_recorded(pool):
    settings = TrainingSettings(imagenet_weights={"resnet50": "x"})
    assert settings.model_dump().keys().isdisjoint({"start_from", "imagenet_weights", "external"})
    assert fingerprint(pool) == fingerprint(pool, start_from="random", imagenet_weights={"resnet50": "x"})
    recorded = Recipe(name="a").model_dump(mode="json")["pretraining"]
    assert recorded.keys().isdisjoint({"start_from", "external"})
    assert recorded["imagenet_weights"] == {}


def recipe(**pretraining):
    return Recipe.model_validate({"name": "a", "pretraining": {"backbones": ["resnet50"], **pretraining}})


def test_a_recipe_resolves_and_shares_the_names_of_starts_and_external_encoders():
    external = {"resnet50": {"weights": "usfm.safetensors", "mean": 100, "sd": 50}}
    written = recipe(
        start_from="imagenet",
        variants={
            "on": {"method": "ce", "start_from": "old/dcm"},
            "usfm": {"method": "external", "external": external},
        },
    )
    moved = written.with_files(lambda path: f"/far/smith/{path}").pretraining
    assert moved.start_from == "imagenet"
    assert moved.settings_of("on", 0).start_from == "/far/smith/old/dcm"
    assert moved.settings_of("usfm", 0).external["resnet50"].weights == "/far/smith/usfm.safetensors"
    assert moved.settings_of("ce", 0).start_from == "imagenet"
    shared = str(written.with_files(lambda path: f"/far/smith/{path}").shared)
    assert "usfm.safetensors" in shared
    assert "smith" not in shared


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        ({"weights": "a.safetensors"}, "needs mean and sd"),
        ({"weights": "a.safetensors", "mean": 100, "sd": 0}, "sd"),
        ({"weights": "a.safetensors", "mean": 100, "sd": 200}, "sd"),  # no grey levels spread so
        ({"weights": "folder", "mean": 100, "sd": 50}, "a folder takes no mean"),
        ({"weights": "a.pth", "mean": 100, "sd": 50}, "neither a .safetensors file"),
    ],
)
def test_an_external_encoder_states_its_preprocessing_unless_its_folder_does(one, problem):
    with pytest.raises(ValueError, match=problem):
        recipe(external={"resnet50": one})


def external(path: Path, **changes):
    return {"external": {"resnet50": {"weights": str(path), "mean": 99, "sd": 33} | changes}}


def test_an_external_encoder_keeps_its_weights_and_its_z_score(tmp_path, pool):
    theirs = weights_file(tmp_path / "usfm.safetensors")
    assert (
        run("external", pool, tmp_path / "usfm", **external(tmp_path / "usfm.safetensors", size=[7, 9])).status == "ran"
    )
    assert torch.equal(weights(tmp_path / "usfm"), theirs)
    how = Preprocessing.read(tmp_path / "usfm")
    assert (how.mean, how.sd, how.height, how.width) == (99, 33, *pool.size)
    card = (tmp_path / "usfm" / "model_card.md").read_text()
    assert "not trained here" in card
    assert str(tmp_path) not in card


def test_an_encoders_folder_is_an_arm_as_it_is(tmp_path, pool):
    run("baseline", pool, tmp_path / "first", seed=7)
    folder = {"external": {"resnet50": {"weights": str(tmp_path / "first")}}}
    assert run("external", pool, tmp_path / "alone", **folder).status == "ran"
    for name in ("encoder.safetensors", "preprocessing.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_an_external_encoder_without_a_file_is_unavailable(tmp_path, pool):
    assert run("external", pool, tmp_path / "a").status == "unavailable"
    missing = run("external", pool, tmp_path / "b", **external(tmp_path / "smith" / "usfm.safetensors"))
    assert missing.status == "unavailable"
    assert "usfm.safetensors does not exist" in missing.reason
    assert "smith" not in missing.reason


def test_a_file_that_does_not_fit_is_refused_by_its_tensor(tmp_path, pool):
    tensors = TinyEncoder().backbone.state_dict()
    save_file(tensors | {"1.0.weight": torch.zeros(2, 4, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors.*1\.0\.weight"):
        run("external", pool, tmp_path / "a", **external(tmp_path / "other.safetensors"))
    torch.save(tensors, tmp_path / "pickle.safetensors")
    with pytest.raises(UserError, match=r"pickle\.safetensors is not a safetensors file"):
        run("external", pool, tmp_path / "b", **external(tmp_path / "pickle.safetensors"))


def test_an_onnx_file_makes_no_encoder_and_the_outcome_says_what_uses_it(tmp_path, pool):
    (tmp_path / "usfm.onnx").write_bytes(b"is not opened here")
    outcome = run("external", pool, tmp_path / "usfm", **external(tmp_path / "usfm.onnx"))
    assert outcome.status == "unavailable" and "job `evaluate`" in outcome.reason
    assert str(tmp_path) not in outcome.reason and not (tmp_path / "usfm" / "encoder.safetensors").exists()
    missing = run("external", pool, tmp_path / "b", **external(tmp_path / "other.onnx"))
    assert "does not exist" in missing.reason


@pytest.mark.parametrize("arm", ["usfm", "usfm_frozen"])
def test_an_arm_that_is_an_onnx_file_is_refused_when_the_recipe_is_loaded(arm):
    external = {"resnet50": {"weights": "usfm.onnx", "mean": 100, "sd": 50}}
    settings = {"methods": ["baseline"], "variants": {"usfm": {"method": "external", "external": external}}}
    named = {"name": "a", "pretraining": settings, "downstream": {"arms": ["baseline"]}}
    Recipe.model_validate(named)
    with pytest.raises(ValueError, match=rf"downstream\.arms names {arm}, an ONNX file"):
        Recipe.model_validate(named | {"downstream": {"arms": ["baseline", arm]}})


def test_the_fingerprint_of_an_external_encoder_includes_its_file_and_preprocessing(tmp_path, pool):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        weights_file(tmp_path / f"{name}.safetensors", seed)
    a, b, c = (fingerprint(pool, "external", **external(tmp_path / f"{name}.safetensors")) for name in "abc")
    assert a == b != c
    assert a != fingerprint(pool, "external", **external(tmp_path / "a.safetensors", mean=98))


def test_who_was_seen_by_the_start_was_seen_by_what_started_from_it(tmp_path, pool):
    store = Store(tmp_path / "store").open()
    demo = store.experiment("demo")
    first, following = demo.encoder("resnet50", "baseline", 0), demo.encoder("resnet50", "dcm", 0)
    older, newer = ("a" * 64, "b" * 64)
    record_training_set(store.private, older, ["anna", "ben"], {"anna": "train", "ben": "val"})
    record_training_set(store.private, newer, ["cleo"], {"cleo": "train"})
    run("baseline", replace(pool, image_digest=older), first)
    run("dcm", replace(pool, image_digest=newer), following, start_from=str(first))
    assert training_set_digests(following) == (newer, older)
    assert models_exposed_to(store, "anna") == [str(one.relative_to(store.root)) for one in (first, following)]
    assert models_exposed_to(store, "cleo") == [str(following.relative_to(store.root))]
    assert models_exposed_to(store, "dora") == []

    third = TrainingSettings(start_from=str(following))
    for patient, refused in (("anna", True), ("ben", False), ("cleo", True), ("dora", False)):
        rows = pa.table({"patient": [patient, "eve"], "split": ["val", "train"]})
        if refused:
            with pytest.raises(UserError, match=r"patients who are now on the validation side \(1\)"):
                refuse_exposed_starts([(third, "resnet50")], rows, store.private)
        else:
            refuse_exposed_starts([(third, "resnet50")], rows, store.private)


def test_preflight_skips_what_has_no_start(tmp_path, pool):
    for start, left in (("imagenet", 0), ("random", 1)):
        planned = planned_encoders(
            recipe(start_from=start, batch_size=4), Store(tmp_path).experiment("a"), encoder="dcm"
        )
        assert len(list(unfinished_encoders(planned, pool, list))) == left


def test_an_unfinished_start_is_unavailable(tmp_path, pool):
    folder = tmp_path / "first"
    folder.mkdir()
    Outcome("diverged", "", "f").write(folder)
    assert run("ce", pool, tmp_path / "next", start_from=str(folder)).status == "unavailable"
