"""Damaged or foreign files in a model's folder give a one-line error that names file and field."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.downstream.model_folder import load_network, read_description
from pipeline.errors import UserError
from pipeline.networks.encoders import build_encoder, load_encoder
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.training.outcome import Outcome
from pipeline.training.seeds import seeded
from pipeline.training.tensors import read_metadata, read_tensors, write_tensors
from tests.pipeline.prediction.conftest import description, write_model

MODEL = description("segmentation").model_dump(mode="json")
ENCODER = asdict(Preprocessing("resnet50", 64, 96, 100.0, 50.0))
OUTCOME = asdict(Outcome("ran", "", "f", 1.5))
READERS: dict[str, tuple[dict[str, Any], Callable[[Path], object]]] = {
    "model.json": (MODEL, read_description),
    "preprocessing.json": (ENCODER, Preprocessing.read),
    "outcome.json": (OUTCOME, Outcome.read),
}


@pytest.mark.parametrize("name", READERS)
def test_a_written_file_is_read_back(name: str, tmp_path: Path) -> None:
    content, read = READERS[name]
    (tmp_path / name).write_text(json.dumps(content))
    found: Any = read(tmp_path)
    assert (found.model_dump(mode="json") if name == "model.json" else asdict(found)) == content


NUMBERS = ("NaN", "Infinity", "-Infinity", "1e300", "1e999", "-1", "-1e-9", "9" * 5000, '"50"', "true", "null", "[]")
CHANGES = [
    *(
        (name, field, value)
        for name in ("model.json", "preprocessing.json")
        for field in ("mean", "sd")
        for value in NUMBERS
    ),
    *(("model.json", "sd", value) for value in ("0", "0.0", "1e-300")),
    *(("preprocessing.json", "sd", value) for value in ("0", "0.0", "1e-300")),
    *(
        (name, "height", value)
        for name in ("model.json", "preprocessing.json")
        for value in ("0", "33", "3200000", "64.0")
    ),
    *(("outcome.json", "seconds", value) for value in ("NaN", "Infinity", "-1", '"1"', "true")),
    *(("outcome.json", "status", value) for value in ('"done"', "1", "null")),
    ("model.json", "classes", '["one"]'),
    ("model.json", "seed", "0.5"),
]


@pytest.mark.parametrize(("name", "field", "value"), CHANGES)
def test_an_implausible_value_raises_an_error_that_names_the_field(
    name: str, field: str, value: str, tmp_path: Path
) -> None:
    content, read = READERS[name]
    text = json.dumps(content | {field: "HERE"}).replace('"HERE"', value)
    assert value in text
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: ({field}|Invalid JSON)") as error:
        read(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", ["", "[" * 200_000, '{"a":' * 200_000, "null", "[]", "{}", '{"x": 1}', "\0", "\ud800"])
def test_a_file_of_another_kind_raises_a_user_error(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=name) as error:
        READERS[name][1](tmp_path)
    assert "\n" not in str(error.value)


def packed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand: length, header, numbers."""
    return pack("<Q", len(header) if length is None else length) + header + data


def tensor(kind: str, shape: str, end: int) -> bytes:
    return packed(f'{{"a":{{"dtype":"{kind}","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode(), bytes(end))


WEIGHTS = {
    "empty": b"",
    "text": b"no weights at all, but a text",
    "header of 8 EiB": packed(b"{}", length=2**63),
    "header of 1 TiB": packed(b"{}", length=2**40),
    "list": packed(b"[]"),
    "deep": packed(b'{"a":' + b"[" * 200_000),
    "negative": tensor("F32", "[-1]", 4),
    "shape beyond memory": tensor("F32", "[4611686018427387904, 4]", 4),
    "endless integer": tensor("F32", f"[{'9' * 5000}]", 4),
    "unknown kind": tensor("X1", "[1]", 4),
    "cut short": tensor("F32", "[4]", 16)[:-3],
    "complex": tensor("C64", "[1]", 8),
    "four bits": tensor("F4", "[2]", 1),
    "no utf-8": packed(b'{"\xff":1}'),
}


@pytest.mark.parametrize("content", WEIGHTS.values(), ids=WEIGHTS)
def test_unreadable_weights_raise_a_user_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors") as error:
        read_tensors(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    if b"dtype" not in content:
        with pytest.raises(UserError):
            read_metadata(path)


def test_missing_weights_raise_a_user_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError, match="cannot be opened"):
            read_tensors(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_raise_a_user_error(value: float, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "ordinal")
    with seeded(0, "test"):
        encoder = build_encoder("resnet50").backbone.state_dict()
    for path, state in (
        (model / "model.safetensors", read_tensors(model / "model.safetensors")),
        (tmp_path / "e", encoder),
    ):
        weights = next(held for held in state.values() if held.dtype == torch.float32)
        weights.view(-1)[-1] = value
        write_tensors(path, state)
    with pytest.raises(UserError, match=r"model\.safetensors: tensor .* NaN"):
        load_network(model, description("ordinal"))
    with pytest.raises(UserError, match=r"e: tensor .* NaN"):
        load_encoder("resnet50", tmp_path / "e")
