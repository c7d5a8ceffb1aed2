"""The encoder as ONNX: the same features in another runtime, from grey levels, for any batch size.

Belongs here: `encoder.onnx`. Not here: the other files of an encoder's folder.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.networks.encoders import build_encoder, save_encoder
from pipeline.pretraining import onnx_export
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.pretraining.onnx_export import export_onnx
from pipeline.progress import silent
from pipeline.training.seeds import seeded
from tests.pipeline.pretraining.conftest import TinyEncoder

HEIGHT, WIDTH = 32, 64


def lived_in(encoder, seed=0):
    """With batch norm as it is after training: statistics and scales of their own."""
    with seeded(seed, "lived in"):
        for norm in encoder.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(norm.running_mean, std=0.2)
                torch.nn.init.uniform_(norm.running_var, 0.5, 2)
                torch.nn.init.uniform_(norm.weight, 0.8, 1.5)
                torch.nn.init.normal_(norm.bias, std=0.2)
    return encoder


def write_folder(folder: Path, encoder, backbone="resnet50"):
    save_encoder(encoder, folder / "encoder.safetensors")
    Preprocessing(backbone, HEIGHT, WIDTH, mean=41.5, sd=37.25).write(folder)


def run(folder: Path, grey):
    session = onnxruntime.InferenceSession(folder / "encoder.onnx", providers=["CPUExecutionProvider"])
    return session.run(["features"], {"grey": grey})[0]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a tiny encoder."""
    monkeypatch.setattr("pipeline.networks.encoders._ResNet50", TinyEncoder)
    write_folder(tmp_path, lived_in(TinyEncoder()))
    return tmp_path


@pytest.mark.parametrize(("backbone", "channels"), [("resnet50", 2048), ("vgg16_bn", 512)])
@pytest.mark.integration
def test_the_graph_maps_grey_levels_to_the_encoders_features(tmp_path, backbone, channels):
    encoder = lived_in(build_encoder(backbone)).eval()
    write_folder(tmp_path, encoder, backbone)
    export_onnx(tmp_path, silent)
    onnx.checker.check_model(tmp_path / "encoder.onnx", full_check=True)
    for images in (1, 3):
        grey = np.random.default_rng(images).integers(0, 256, (images, 1, HEIGHT, WIDTH)).astype(np.float32)
        with torch.no_grad():
            expected = encoder(torch.from_numpy((grey - np.float32(41.5)) / np.float32(37.25))).numpy()
        features = run(tmp_path, grey)
        assert features.shape == (images, channels, 1, 2)
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.integration
def test_an_image_of_another_size_is_refused(tiny):
    export_onnx(tiny, silent)
    with pytest.raises(Exception, match="Got: 64 Expected: 32"):
        run(tiny, np.zeros((1, 1, 64, 64), np.float32))


@pytest.mark.integration
def test_the_same_encoder_gives_the_same_bytes_and_another_one_others(tiny, monkeypatch):
    monkeypatch.setattr(onnx_export, "_graph", onnx_export._graph.__wrapped__)  # traced anew, as by another process
    written = []
    for seed in (0, 1, 0):
        with seeded(seed, "weights"):
            write_folder(tiny, lived_in(TinyEncoder(), seed))
        export_onnx(tiny, silent)
        written.append((tiny / "encoder.onnx").read_bytes())
    assert written[0] == written[2] != written[1]


def test_it_contains_nothing_about_the_machine_that_wrote_it(tiny):
    export_onnx(tiny, silent)
    content = (tiny / "encoder.onnx").read_bytes()
    for place in (onnx_export.__file__, str(Path(torch.__file__).parent), str(tiny), "site-packages", "stack_trace"):
        assert place.encode() not in content, place


def test_without_onnxscript_there_is_no_file_and_a_log_line(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said: list[str] = []
    export_onnx(tiny, said.append)
    assert said == [f"{tiny.name}: no encoder.onnx, since onnxscript is not installed"]
    assert not (tiny / "encoder.onnx").exists()


def test_a_failed_export_leaves_the_previous_file(tiny, monkeypatch):
    export_onnx(tiny, silent)
    before = (tiny / "encoder.onnx").read_bytes()

    def full(program, path, **how):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(tiny, silent)
    assert (tiny / "encoder.onnx").read_bytes() == before
    assert not list(tiny.glob(".*.tmp"))
