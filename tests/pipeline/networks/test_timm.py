"""Backbones of timm: features, names in the file, training by each kind of method, a U-Net, ONNX, and refusals."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pipeline.downstream.finetune import finetune
from pipeline.downstream.predictions import Cell
from pipeline.downstream.predictor import Predictor
from pipeline.errors import UserError
from pipeline.images.batches import Normalization
from pipeline.methods import METHODS
from pipeline.networks import encoders
from pipeline.networks.encoders import build_encoder, load_encoder, save_encoder, synchronized
from pipeline.networks.unet import UNet
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.onnx_export import export_onnx
from pipeline.pretraining.pretrain import pretrain
from pipeline.progress import silent
from pipeline.representation.features import encoder_features
from pipeline.training.seeds import seeded
from tests.pipeline.downstream.conftest import data, task
from tests.pipeline.pretraining.conftest import make_pool

STRIDES = {"resnet34": [2, 4, 8, 16, 32], "convnext_tiny": [4, 8, 16, 32], "efficientnet_b0": [2, 4, 8, 16, 32]}
TIMM = pytest.mark.parametrize("backbone", STRIDES)


@TIMM
@pytest.mark.integration
def test_the_pyramid_has_timms_strides_and_ends_with_what_timm_pools(backbone):
    encoder, x = build_encoder(backbone).eval(), torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        levels, peer = encoder.pyramid(x), encoder.backbone.forward_features(x.repeat(1, 3, 1, 1))
    assert [tuple(level.shape[2:]) for level in levels] == [(64 // s, 96 // s) for s in STRIDES[backbone]]
    assert tuple(level.shape[1] for level in levels) == encoder.channels
    torch.testing.assert_close(levels[-1], peer)


@TIMM
@pytest.mark.integration
def test_timm_loads_the_file_without_a_missing_or_unknown_name(tmp_path: Path, backbone):
    encoder = build_encoder(backbone)
    save_encoder(encoder, tmp_path / ENCODER)
    peer = timm.create_model(backbone, num_classes=0)
    peer.load_state_dict(load_file(tmp_path / ENCODER))
    loaded = load_encoder(backbone, tmp_path / ENCODER).backbone.state_dict()
    assert loaded.keys() == peer.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in peer.state_dict().items())


@TIMM
@pytest.mark.integration
def test_timms_own_file_with_its_classifier_is_loaded_without_it(tmp_path: Path, backbone):
    peer = timm.create_model(backbone, num_classes=7).eval()
    save_file(peer.state_dict(), tmp_path / "timm.safetensors")
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        found = load_encoder(backbone, tmp_path / "timm.safetensors").eval()(x)
        torch.testing.assert_close(found, peer.forward_features(x.expand(-1, 3, -1, -1)))


def first_convolution(network):
    return next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))


@TIMM
@pytest.mark.integration
def test_grey_repeated_equals_one_channel_with_the_weights_summed(backbone):
    encoder, x = build_encoder(backbone), torch.randn(1, 1, 32, 32)
    convolution = first_convolution(encoder)
    seen = []
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output))
    encoder.eval()(x)
    summed = torch.nn.functional.conv2d(
        x, convolution.weight.sum(1, keepdim=True), convolution.bias, convolution.stride, convolution.padding
    )
    torch.testing.assert_close(seen[0], summed, rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_a_seed_gives_the_same_weights_whether_the_network_was_looked_at_before_or_not():
    encoders._unused_parameters.cache_clear()
    built = []
    for _ in range(2):
        with seeded(3, "encoder", "resnet34"):
            built.append(first_convolution(build_encoder("resnet34")).weight)
    assert torch.equal(*built)


@pytest.mark.integration
def test_only_the_norm_after_convnexts_features_is_not_trained():
    encoder, peer = build_encoder("convnext_tiny"), timm.create_model("convnext_tiny", num_classes=0)
    trained = {name for name, _ in encoder.backbone.named_parameters()}
    assert {name for name, _ in peer.named_parameters()} - trained == {"head.norm.weight", "head.norm.bias"}


@pytest.mark.integration
def test_batch_norm_over_processes_keeps_its_activation():
    network = synchronized(build_encoder("efficientnet_b0"))
    norm = network.backbone.bn1
    assert isinstance(norm, torch.nn.SyncBatchNorm)
    assert isinstance(norm.act, torch.nn.SiLU)


def pretrained(backbone, method, folder: Path):
    settings = METHODS[method].settings(epochs=1, batch_size=4)
    pool = make_pool(8, 4, 32, 64)
    return pretrain(backbone, method, pool, settings, folder, silent, lambda *_: None).status


@TIMM
@pytest.mark.parametrize("method", ["ce", "dcm"])
@pytest.mark.integration
def test_it_is_pretrained_and_fine_tuned_as_a_unet(tmp_path: Path, monkeypatch, backbone, method):
    monkeypatch.setattr("pipeline.pretraining.pretrain.export_onnx", lambda folder, log: None)
    encoder, model = tmp_path / "encoder", tmp_path / "model"
    assert pretrained(backbone, method, encoder) == "ran"
    assert f'timm.create_model("{backbone}", num_classes=0)' in (encoder / "model_card.md").read_text()
    maps = encoder_features(
        load_encoder(backbone, encoder / ENCODER), Normalization(80.0, 40.0), np.zeros((2, 32, 64), np.uint8), maps=True
    ).maps_NCHW
    assert maps.shape[2:] == (8, 16)
    how = task("segmentation").model_copy(update={"learning_rate": {backbone: 1e-3}})
    cell = Cell("tiny", backbone, method, "segmentation", 1.0, 0)
    assert finetune(cell, how, data("segmentation"), encoder, model, silent, lambda *_: None).status == "ran"
    assert Predictor(model).probabilities([np.zeros((32, 64), np.uint8)]).shape == (1, 3, 32, 64)


@TIMM
@pytest.mark.integration
def test_its_graph_maps_grey_levels_to_the_same_features(tmp_path: Path, backbone):
    encoder = build_encoder(backbone).eval()
    save_encoder(encoder, tmp_path / ENCODER)
    Preprocessing(backbone, 32, 64, mean=80.0, sd=40.0).write(tmp_path)
    export_onnx(tmp_path, silent)
    grey = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 64)).astype(np.float32)
    with torch.no_grad():
        expected = encoder(torch.from_numpy((grey - 80) / 40)).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["features"], {"grey": grey})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.integration
def test_a_unet_on_convnext_joins_three_levels():
    network = UNet(build_encoder("convnext_tiny"), 2)
    joined = [block.mix[0].in_channels - block.up.out_channels for block in network.up_blocks]
    assert joined == [384, 192, 96, 0, 0]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnetblur50"])
@pytest.mark.integration
def test_what_is_no_convolutional_network_or_computes_its_buffers_is_refused(name):
    with pytest.raises(UserError, match=f"{name} cannot be a backbone"):
        build_encoder(name)


@pytest.mark.integration
def test_an_unknown_name_is_answered_with_close_ones():
    with pytest.raises(UserError, match=r"no backbone resnet35.*resnet34"):
        build_encoder("resnet35")


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"resnet34.*pip install timm.*sonotag\[timm\]"):
        encoders._timm_network("resnet34")


@pytest.mark.parametrize(("backbone", "channels"), [("resnet50", 2048), ("resnet18", 512), ("vgg16_bn", 512)])
def test_torchvisions_backbones_need_no_timm(monkeypatch, backbone, channels):
    monkeypatch.setitem(sys.modules, "timm", None)
    with torch.device("meta"):
        assert build_encoder(backbone).channels[-1] == channels


@pytest.mark.integration
@pytest.mark.parametrize("backbone", ["resnet50", "resnet18"])
def test_timm_loads_the_file_of_a_resnet_of_torchvision(tmp_path: Path, backbone):
    encoder = build_encoder(backbone).eval()
    save_encoder(encoder, tmp_path / ENCODER)
    peer = timm.create_model(backbone, num_classes=0).eval()
    peer.load_state_dict(load_file(tmp_path / ENCODER))
    x = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), peer.forward_features(x.repeat(1, 3, 1, 1)))
