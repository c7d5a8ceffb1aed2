"""An encoder's folder contains everything needed to use the encoder.

Belongs here: its texts, and its weights in other libraries. Not here: training, the ONNX file (test_onnx.py).
"""

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from pipeline.errors import DamagedError
from pipeline.images.batches import fit_normalization
from pipeline.methods import EncoderSettings
from pipeline.pretraining.encoder_folder import (
    LabelCount,
    ModelCard,
    Preprocessing,
    count_labels,
    read_curves,
    replay_metrics,
    write_curves,
)
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import silent
from pipeline.training.loop import History
from tests.conftest import ROOT
from tests.pipeline.pretraining.conftest import LABELS, make_pool


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By backbone, what `pretrain` writes, without the hours."""

    @cache
    def folder_of(backbone):
        folder = tmp_path_factory.mktemp(backbone)
        settings = EncoderSettings(seed=3)
        pretrain(backbone, "baseline", make_pool(4, 2, 32, 64), settings, folder, silent, lambda *_: None)
        return folder

    return folder_of


@pytest.fixture(scope="module", params=["resnet50", "vgg16_bn"])
def folder(request, made):
    return made(request.param)


@pytest.fixture
def card(tmp_path):
    """The text of a card as `pretrain` fills it for ce_dcm, in a folder of its own."""

    def text(onnx=True, **changes):
        if onnx:
            (tmp_path / "encoder.onnx").touch()
        history = History([{"val_loss": 0.5}, {"val_loss": 0.25}, {"val_loss": 1.0}], best_epoch=2)
        labels = (LabelCount("liver", 3, 7), LabelCount("linear", 4, 9))
        preprocessing = Preprocessing("resnet50", 32, 64, 40.0, 20.0)
        one = ModelCard(
            method="ce_dcm",
            preprocessing=preprocessing,
            settings={"seed": 3},
            image_digest="ab" * 32,
            train_images=9,
            val_images=2,
            labels=labels,
            label_digest="cd" * 32,
            shown="own",
            history=history,
            results=[("error", 0.1)],
        )
        replace(one, **changes).write(tmp_path)
        return (tmp_path / "model_card.md").read_text(encoding="utf-8")

    return text


@pytest.mark.integration
def test_plain_torchvision_loads_the_weights_and_misses_only_the_head(folder):
    backbone = Preprocessing.read(folder).backbone
    network = torchvision.models.get_model(backbone)
    missing, unexpected = network.load_state_dict(load_file(folder / "encoder.safetensors"), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"fc" if backbone == "resnet50" else "classifier"}


@pytest.mark.integration
def test_timm_loads_the_resnet_and_misses_only_the_head(made):
    state = load_file(made("resnet50") / "encoder.safetensors")
    network, peer = timm.create_model("resnet50"), torchvision.models.resnet50()
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert not unexpected
    peer.load_state_dict(state, strict=False)
    peer.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        pooled = network.eval().forward_features(x).mean(dim=(2, 3))
        torch.testing.assert_close(pooled, peer.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_the_cards_own_example_runs_in_its_folder(folder, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```$", (folder / "model_card.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 2
    picture = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "image.png")
    monkeypatch.chdir(folder)
    names = {}
    for block in blocks:
        exec(block, names)
    resnet = names["how"]["backbone"] == "resnet50"
    assert names["features"].shape == (1, 2048 if resnet else 512 * 7 * 7)
    assert names["maps"].shape == (1, 2048 if resnet else 512, 1, 2)
    assert names["grey"].mean() == pytest.approx(picture.mean(), rel=0.02), "grey levels go into the ONNX graph"
    if resnet:
        pooled = names["maps"].mean(axis=(2, 3))
        np.testing.assert_allclose(names["features"].detach(), pooled, rtol=1e-4, atol=1e-4 * pooled.max())


def test_preprocessing_describes_all_steps_applied_to_an_image(folder):
    how, fitted = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8")), make_pool(4, 2, 32, 64)
    normalization = fit_normalization(fitted.images, fitted.train)
    assert (how["height"], how["width"]) == (32, 64)
    assert (how["mean"], how["sd"]) == (normalization.mean, normalization.sd)
    assert "0018,6011" in how["crop"]
    assert "BILINEAR" in how["resize"]
    assert how["values"].startswith("0 (black) to 255 (white)")
    assert how["masking"].startswith("none")
    assert "makes the z-score itself" in how["onnx"]


def test_nothing_in_the_folder_names_the_path_at_which_it_was_made(folder):
    for path in folder.glob("*"):
        content = path.read_bytes()
        for place in (str(folder.parent), str(ROOT), str(Path(torch.__file__).parent)):
            assert place.encode() not in content, (path.name, place)


def test_a_card_states_the_origin_of_the_encoder(card):
    text = card()
    for line in (
        "# resnet50, pretrained by ce_dcm",
        "- training images: 9",
        f"- digest of images and split: {'ab' * 32}",
        "- label space: liver, linear",
        f"- digest of labels: {'cd' * 32}",
        "| liver | 3 | 7 |",
        "- outcome: ran",
        "- backbone: resnet50",
        "- seed: 3",
        "- epoch kept: 2, the lowest val_loss of 3",
        "- error: 0.1",
        "| 3 | 1 |",
    ):
        assert line in text.splitlines()
    assert f"torch {torch.__version__}, torchvision {torchvision.__version__}" in text
    assert "Licence:" in text
    assert "Not\nintended: diagnostic use" in text


def test_the_card_of_an_untrained_encoder_without_labels_states_both(card):
    text = card(method="baseline", labels=(), history=History(), settings={"seed": 5})
    assert "- label space: none" in text
    assert "- seed: 5" in text
    assert "not trained" in text
    assert "## Labels" not in text
    assert "digest of labels" not in text
    assert "## Curves" not in text


@pytest.mark.parametrize(("shown", "says"), [("shuffled", "shuffled across patients"), ("source", "which folder")])
def test_the_card_of_a_control_names_the_labels_it_was_shown(card, shown, says):
    control = card(shown=shown)
    assert "A control: " in control and says in control
    assert "A control" not in card()
    assert "A control" not in card(shown=shown, method="ce", labels=()), "it was shown none"


def test_a_card_states_the_source_that_was_left_out(card):
    assert "- source left out: 2" in card(without_source=2).splitlines()
    assert "source left out" not in card()


def test_a_card_shows_the_onnx_file_or_the_reason_for_its_absence(card):
    without, beside = card(onnx=False), card()
    assert "onnxscript was not installed" in without
    assert "onnxruntime" not in without
    assert 'onnxruntime.InferenceSession("encoder.onnx")' in beside
    assert "onnxscript" not in beside


def test_labels_are_counted_over_training_images_with_known_labels():
    pool = make_pool(count=6, train=4)
    labels = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]).float()
    known = torch.ones(6, 3, dtype=torch.bool)
    known[1] = known[0, 2] = False
    counted = count_labels(replace(pool, labels_NL=labels, known_NL=known))
    assert counted == (LabelCount(LABELS[0], 2, 3), LabelCount(LABELS[1], 1, 3), LabelCount(LABELS[2], 0, 2))


def test_an_epoch_without_a_metric_has_an_empty_cell_and_no_value(tmp_path):
    curves = [{"a": 0.5}, {"a": 0.25, "b": 2.0}, {"a": 0.125}]
    write_curves(tmp_path, curves)
    assert (tmp_path / "curves.csv").read_text() == "epoch,a,b\n1,0.5,\n2,0.25,2.0\n3,0.125,\n"
    read, told = read_curves(tmp_path), []
    assert read["a"] == [0.5, 0.25, 0.125]
    assert read["b"][1] == 2 and [math.isnan(value) for value in read["b"]] == [True, False, True]
    replay_metrics(tmp_path, lambda epoch, metrics: told.append(metrics))
    assert told == curves


def test_the_card_states_the_score_that_selected_the_epoch_and_leaves_unscored_epochs_open(card):
    curves = [{"val_loss": 0.5}, {"val_loss": 0.75, "val_linear_auc": 0.625}, {"val_loss": 1.0, "val_linear_auc": 0.5}]
    text = card(history=History(curves, best_epoch=2, selected_by="val_linear_auc", highest=True))
    assert "epoch kept: 2, the highest val_linear_auc of 2" in text
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    assert rows[-3:] == [["1", "0.5", "–"], ["2", "0.75", "0.625"], ["3", "1", "0.5"]]


@pytest.mark.parametrize("left", [b"epoch,a,b\n1,0.5\n", b"epoch,a,b\n1,0.5,x\n", b"\xff\xfe", b"epoch,a\n1,2,3\n"])
def test_damaged_curves_raise_an_error_that_names_the_file(tmp_path, left):
    write_curves(tmp_path, [{"a": 0.5, "b": 0.25}])
    assert read_curves(tmp_path) == {"a": [0.5], "b": [0.25]}
    (tmp_path / "curves.csv").write_bytes(left)
    with pytest.raises(DamagedError):
        read_curves(tmp_path)
