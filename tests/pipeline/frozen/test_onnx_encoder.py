"""Encoders in ONNX files: features as PyTorch's, and files that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import UserError
from pipeline.frozen import evaluate
from pipeline.frozen.onnx_encoder import OnnxEncoder, onnx_scores
from pipeline.images.batches import Normalization
from pipeline.methods.external import ExternalEncoder
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, ONNX
from pipeline.pretraining.onnx_export import export_onnx
from pipeline.progress import silent
from pipeline.representation.features import encoder_features
from tests.pipeline.frozen.conftest import questions, squares
from tests.pipeline.pretraining.conftest import TinyEncoder
from tests.pipeline.pretraining.test_onnx import lived_in, write_folder

GREY = np.random.default_rng(2).integers(0, 256, (5, 32, 64)).astype(np.uint8)
PLAIN = Normalization(0.0, 1.0)


def model(
    path: Path, nodes: list, shape: tuple = ("n", 1, 32, 64), weights: dict | None = None, outputs: int = 1
) -> Path:
    """A model from `x` of `shape` to `y`, whose shape is not stated."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info(f"y{n or ''}", TensorProto.FLOAT, None) for n in range(outputs)]
    initializers = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, made, initializers)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def mean_of_channels(path: Path, **changes: object) -> Path:
    """Pooled features: the mean grey level of each channel."""
    return model(path, [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], **changes)


def refused(path: Path, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        OnnxEncoder(path).features(PLAIN, GREY, False)
    assert path.name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.integration
def test_features_and_maps_are_those_of_the_same_encoder_in_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that sonotag writes: its z-score is part of the graph, so that the recipe names mean 0 and sd 1."""
    monkeypatch.setattr("pipeline.networks.encoders._ResNet50", TinyEncoder)
    write_folder(tmp_path, lived_in(TinyEncoder()))
    export_onnx(tmp_path, silent)
    expected = encoder_features(load_encoder("resnet50", tmp_path / ENCODER), Normalization(41.5, 37.25), GREY, True)
    found = OnnxEncoder(tmp_path / ONNX).features(PLAIN, GREY, True)
    np.testing.assert_allclose(found.pooled_ND, expected.pooled_ND, rtol=1e-4, atol=1e-4)
    level = expected.maps_NCHW[:, -found.maps_NCHW.shape[1] :].astype(np.float32)
    np.testing.assert_allclose(found.maps_NCHW.astype(np.float32), level, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", ["n", 2])
def test_the_z_score_and_three_channels_are_made_and_a_fixed_batch_is_filled(
    tmp_path: Path, channels: int, batch: str | int
) -> None:
    path = mean_of_channels(tmp_path / "a.onnx", shape=(batch, channels, 32, 64))
    found = OnnxEncoder(path).features(Normalization(100.0, 50.0), GREY, True)
    expected = (GREY.reshape(5, -1).mean(1) - 100) / 50
    np.testing.assert_allclose(found.pooled_ND, np.tile(expected[:, None], channels), rtol=1e-4)
    assert not len(found.maps_NCHW)


def test_images_are_brought_to_a_fixed_size(tmp_path: Path) -> None:
    path = mean_of_channels(tmp_path / "a.onnx", shape=("n", 1, 224, 224))
    flat = np.full((2, 32, 64), 7, np.uint8)
    np.testing.assert_allclose(OnnxEncoder(path).features(PLAIN, flat, False).pooled_ND, 7, rtol=1e-5)


def test_an_encoder_is_scored_like_any_other_and_pooled_features_say_nothing_of_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "FRACTIONS", (1.0,))
    truth = np.tile([[0], [1]], (80, 1)).astype(np.int8)
    bright = replace(questions(truth), images_NHW=np.tile(truth[:, :, None] * 90, (1, 32, 32)).astype(np.uint8))
    path = mean_of_channels(tmp_path / "a.onnx", shape=("n", 1, "h", "w"))
    named = ExternalEncoder(weights=str(path), mean=50, sd=20)
    assert {(row.method, row.score.mean) for row in onnx_scores(named, bright)} == {
        ("nearest neighbours", 1.0),
        ("logistic regression", 1.0),
    }
    assert onnx_scores(named, squares(12)) == []


def test_a_model_with_weights_in_another_file_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 4)
    for in_node in (False, True):
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../" * 9 + str(secret))
        path = model(tmp_path / "a.onnx", [helper.make_node("Add", ["x", "w"], ["y"])])
        content = onnx.load_model_from_string(path.read_bytes())
        if in_node:
            content.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
        else:
            content.graph.initializer.append(tensor)
        path.write_bytes(content.SerializeToString())
        refused(path, "weights in another file")


def test_operators_that_are_not_onnx_s_own_functions_and_control_flow_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    refused(model(path, [helper.make_node("Run", ["x"], ["y"], domain="evil")]), "'Run' is not ONNX's own")
    branch = helper.make_graph([], "b", [], [])
    loop = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    refused(model(path, [loop]), "control flow")
    with_function = onnx.load_model_from_string(mean_of_channels(path).read_bytes())
    with_function.functions.append(helper.make_function("own", "F", [], [], [], []))
    path.write_bytes(with_function.SerializeToString())
    refused(path, "functions")


def test_other_inputs_and_outputs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, identity = tmp_path / "a.onnx", [helper.make_node("Identity", ["x"], ["y"])]
    refused(mean_of_channels(path, shape=("n", 2, 32, 64)), "1 or 3")
    refused(mean_of_channels(path, shape=("n", 1, 9000, 9000)), "more than")
    refused(model(path, identity), "its output is neither")
    refused(model(path, [*identity, helper.make_node("Identity", ["x"], ["y1"])], outputs=2), "more than one output")
    flat = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Log", ["f"], ["y"])]
    refused(model(path, flat), "not finite")  # the logarithm of black
    monkeypatch.setattr("pipeline.frozen.onnx_encoder.MAX_FEATURES", 2000)
    refused(model(path, [helper.make_node("Flatten", ["x"], ["y"])]), "2000 channels")


def test_what_is_no_model_is_too_large_or_fails_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.onnx"
    refused(path, "does not exist")
    for content in (b"", b"no model", b"\x80\x04pickle", bytes(range(256))):
        path.write_bytes(content)
        refused(path, "no ONNX model")
    refused(model(path, [helper.make_node("Nothing", ["x"], ["y"])]), "cannot load it")
    wrong = {"w": np.zeros((3, 3), np.float32)}
    refused(
        model(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], ("n", 1, "h", "w"), wrong), "cannot (load|apply)"
    )
    monkeypatch.setattr("pipeline.frozen.onnx_encoder.MAX_BYTES", 10)
    refused(path, "larger than")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.frozen.onnx_encoder.find_spec", lambda name: None)
    refused(mean_of_channels(tmp_path / "a.onnx"), r"sonotag\[onnx\]")
