"""Encoders: shapes, torchvision's names, weights on disk."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from pipeline.errors import UserError
from pipeline.networks.encoders import (
    WeightsUnavailable,
    build_encoder,
    imagenet_encoder,
    load_encoder,
    save_encoder,
)
from pipeline.settings import Backbone

HEADS: list[tuple[Backbone, str]] = [("resnet50", "fc."), ("resnet18", "fc."), ("vgg16_bn", "classifier.")]


@pytest.fixture(scope="module", params=HEADS, ids=["resnet50", "resnet18", "vgg16_bn"])
def backbone(request):
    return request.param[0]


@pytest.fixture(scope="module")
def encoder(backbone):
    return build_encoder(backbone).eval()


def test_features_at_paper_size_are_8_by_12_and_the_pyramid_halves_five_times(backbone, encoder):
    with torch.no_grad():
        pyramid = encoder.pyramid(torch.zeros(1, 1, 256, 384))
    sizes = [(256, 384)] * (backbone == "vgg16_bn") + [(128, 192), (64, 96), (32, 48), (16, 24), (8, 12)]
    assert [tuple(level.shape[2:]) for level in pyramid] == sizes
    assert tuple(level.shape[1] for level in pyramid) == encoder.channels


def test_features_are_those_of_torchvision_on_grey_repeated_three_times(backbone, encoder):
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    peer = torchvision.models.get_model(backbone).eval()
    peer.load_state_dict(encoder.backbone.state_dict(), strict=False)
    caught = []
    last = peer.features if backbone == "vgg16_bn" else peer.layer4
    last.register_forward_hook(lambda module, inputs, output: caught.append(output))
    with torch.no_grad():
        peer(x.repeat(1, 3, 1, 1))
        torch.testing.assert_close(encoder(x), caught[0])


@pytest.mark.parametrize(("name", "head"), HEADS, ids=["resnet50", "resnet18", "vgg16_bn"])
@pytest.mark.integration
def test_plain_torchvision_loads_the_file_and_misses_only_its_head(tmp_path: Path, name, head):
    save_encoder(build_encoder(name), tmp_path / "encoder.safetensors")
    peer = torchvision.models.get_model(name)
    outcome = peer.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=False)
    assert not outcome.unexpected_keys
    assert outcome.missing_keys
    assert all(key.startswith(head) for key in outcome.missing_keys)


def test_what_was_saved_is_what_is_loaded(tmp_path: Path, backbone, encoder):
    laid_out = build_encoder(backbone).to(memory_format=torch.channels_last)
    laid_out.load_state_dict(encoder.state_dict())
    save_encoder(laid_out, tmp_path / "encoder.safetensors")
    loaded = load_encoder(backbone, tmp_path / "encoder.safetensors").state_dict()
    assert loaded.keys() == encoder.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in encoder.state_dict().items())


def test_imagenet_weights_come_from_a_local_file_with_its_head_left_out(tmp_path: Path):
    theirs = torchvision.models.resnet50()
    save_file(theirs.state_dict(), tmp_path / "imagenet.safetensors")
    ours = imagenet_encoder("resnet50", tmp_path / "imagenet.safetensors").backbone.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items() if "fc." not in name)


@pytest.mark.parametrize("named", [False, True])
def test_without_a_file_imagenet_explains_how_to_supply_one(tmp_path: Path, named):
    missing = tmp_path / "nowhere.safetensors" if named else None
    with pytest.raises(WeightsUnavailable, match=r"pretraining\.imagenet_weights\.vgg16_bn.*save_file") as raised:
        imagenet_encoder("vgg16_bn", missing)
    assert str(tmp_path) not in str(raised.value), "reports print it"
    assert ("nowhere.safetensors does not exist" in str(raised.value)) == named


def test_for_a_backbone_of_timm_imagenet_explains_timms_weights():
    with pytest.raises(WeightsUnavailable, match=r"imagenet_weights\.resnet34.*create_model\('resnet34', pretrained"):
        imagenet_encoder("resnet34", None)


def test_a_pickle_is_refused_unopened(tmp_path: Path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth"):
        imagenet_encoder("resnet50", tmp_path / "weights.pth")


def test_weights_of_another_backbone_are_refused_by_name(tmp_path: Path):
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors.*resnet50"):
        load_encoder("resnet50", tmp_path / "other.safetensors")
