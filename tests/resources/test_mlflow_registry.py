"""Encoders in MLflow's registry, on sqlite and on a server: used without this project, and each task's champion."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipeline.networks.encoders import build_encoder, load_encoder, save_encoder
from pipeline.pretraining.encoder_folder import Preprocessing, encoder_digest
from pipeline.pretraining.onnx_export import export_onnx
from pipeline.progress import silent
from pipeline.training.seeds import seeded
from resources.mlflow_records import Champion
from resources.tracking import Tracking
from tests.resources.conftest import MakeTracking, Server, free_port

pytestmark = pytest.mark.integration

HEIGHT, WIDTH = 32, 64


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two untrained encoders in their folders."""
    folders = tuple(tmp_path_factory.mktemp("encoders") / name for name in ("one", "two"))
    for seed, folder in enumerate(folders):
        with seeded(seed, "encoder"):
            save_encoder(build_encoder("resnet50"), folder / "encoder.safetensors")
        Preprocessing("resnet50", HEIGHT, WIDTH, mean=80.0, sd=40.0).write(folder)
        export_onnx(folder, silent)
    return folders[0], folders[1]


@pytest.fixture(params=["sqlite", "server"])
def tracking(request: pytest.FixtureRequest, make_tracking: MakeTracking, tmp_path: Path) -> Tracking:
    if request.param == "sqlite":
        return make_tracking(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    server: Server = request.getfixturevalue("server")
    return make_tracking(server.uri)


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of this test's models: a server keeps those of the other tests."""
    return f"trial-{tmp_path.name}"


def versions(tracking: Tracking, name: str) -> list[str]:
    client = MlflowClient(tracking_uri=tracking.uri)
    return sorted(v.tags["encoder_digest"] for v in client.search_model_versions(f"name = '{name}'"))


def champion(tracking: Tracking, name: str) -> str:
    return str(MlflowClient(tracking.uri).get_model_version_by_alias(name, "champion").tags["encoder_digest"])


def crowned(name: str, digest: str, *earlier: str) -> Champion:
    return Champion(name=f"{name}.task", encoder=name, digest=digest, earlier=earlier, tags={"arm": "ce"})


def test_a_registered_encoder_computes_what_it_computed_here(
    tracking: Tracking, encoders: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded by MLflow alone, from its registered name; features are those of the network in PyTorch."""
    import mlflow.onnx
    import mlflow.pyfunc
    from mlflow.models import get_model_info

    folder, said = encoders[0], []
    with tracking.run("encoder", {}, said.append) as run:
        run.encoder(name, encoder_digest(folder), folder)
    assert said == []
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", tracking.uri)
    monkeypatch.setattr("mlflow.tracking._model_registry.utils._registry_uri", tracking.uri)
    uri = f"models:/{name}/1"
    info = get_model_info(uri)
    (taken,), (given,) = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (taken.name, taken.shape, taken.type) == ("grey", (-1, 1, HEIGHT, WIDTH), np.float32)
    assert (given.name, given.shape) == ("features", (-1, 2048, 1, 2))
    example = mlflow.pyfunc.load_model(uri).input_example
    assert example["grey"].shape == (1, 1, HEIGHT, WIDTH)
    grey = np.random.default_rng(0).integers(0, 256, (3, 1, HEIGHT, WIDTH)).astype(np.float32)
    features = mlflow.pyfunc.load_model(uri).predict({"grey": grey})["features"]
    with torch.no_grad():
        expected = load_encoder("resnet50", folder / "encoder.safetensors").eval()(torch.from_numpy((grey - 80) / 40))
    assert np.allclose(features, expected.numpy(), rtol=1e-3, atol=1e-4)
    assert MlflowClient(tracking.uri).get_model_version(name, "1").run_id == run.run_id


def test_nothing_in_a_registered_model_is_pickled_or_names_this_machine(
    encoders: tuple[Path, Path], make_tracking: MakeTracking, tmp_path: Path, name: str
) -> None:
    tracking = make_tracking(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    with tracking.run("encoder", {}, print) as run:
        run.encoder(name, "d", encoders[0])
    (model,) = [path.parent for path in Path(tracking.artifacts).rglob("MLmodel")]
    assert {path.name for path in model.iterdir()} == {
        *("MLmodel", "model.onnx", "conda.yaml", "python_env.yaml", "requirements.txt"),
        *("input_example.json", "serving_input_example.json"),
    }
    described = yaml.safe_load((model / "MLmodel").read_text())
    assert described["flavors"]["python_function"]["loader_module"] == "mlflow.onnx"
    assert not any("pickle" in line for line in (model / "MLmodel").read_text().splitlines())
    for path in model.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path
        assert str(encoders[0].parent).encode() not in path.read_bytes(), path


def test_the_same_encoder_is_registered_once(tracking: Tracking, encoders: tuple[Path, Path], name: str) -> None:
    for folder in (encoders[0], encoders[0], encoders[1]):
        with tracking.run("encoder", {}, print) as run:
            run.encoder(name, encoder_digest(folder), folder)
    assert versions(tracking, name) == sorted(map(encoder_digest, encoders))


def test_the_alias_moves_from_champion_to_champion(tracking: Tracking, encoders: tuple[Path, Path], name: str) -> None:
    one, two = map(encoder_digest, encoders)
    said: list[str] = []
    with tracking.run("encoders", {}, said.append) as run:
        for folder in encoders:
            run.encoder(name, encoder_digest(folder), folder)
        run.champion(crowned(name, one))
        assert champion(tracking, f"{name}.task") == one
        run.champion(crowned(name, two, one))
        assert champion(tracking, f"{name}.task") == two
        run.champion(crowned(name, two, one))
    assert said == []
    assert versions(tracking, f"{name}.task") == sorted([one, two])
    client = MlflowClient(tracking_uri=tracking.uri)
    chosen = client.get_model_version_by_alias(f"{name}.task", "champion")
    assert chosen.tags["arm"] == "ce"
    assert chosen.source in {v.source for v in client.search_model_versions(f"name = '{name}'")}


def test_an_alias_that_was_set_elsewhere_is_kept(tracking: Tracking, encoders: tuple[Path, Path], name: str) -> None:
    one, two = map(encoder_digest, encoders)
    said: list[str] = []
    with tracking.run("encoders", {}, said.append) as run:
        for folder in encoders:
            run.encoder(name, encoder_digest(folder), folder)
        run.champion(crowned(name, one))
        run.champion(crowned(name, two, "another"))
        assert champion(tracking, f"{name}.task") == one
        run.champion(crowned(name, "never registered", one))
        run.metrics({"loss": 1.0})
    assert len(said) == 2
    assert f"{name}.task " in said[0]
    assert f"{name} has no version" in said[1]
    assert MlflowClient(tracking.uri).get_run(run.run_id).data.metrics["loss"] == 1.0


def test_an_encoder_that_a_server_missed_is_registered_later_and_is_champion(
    server: Server, make_tracking: MakeTracking, encoders: tuple[Path, Path], name: str
) -> None:
    """The pending run holds a copy, since the encoder's folder may have changed by then."""
    down, digest = make_tracking(f"http://127.0.0.1:{free_port()}"), encoder_digest(encoders[0])
    with down.run("encoder", {}, print) as run:
        run.encoder(name, digest, encoders[0])
    with down.run("champion", {}, print) as run:
        run.champion(crowned(name, digest))
    assert len(list(Path(down.pending).rglob("model.onnx"))) == 1
    up = down.model_copy(update={"uri": server.uri})
    with up.run("later", {}, print):
        pass
    assert versions(up, name) == [digest]
    assert champion(up, f"{name}.task") == digest
    assert list(Path(up.pending).iterdir()) == []


def test_an_encoder_without_an_onnx_file_is_reported_and_the_run_continues(
    make_tracking: MakeTracking, tmp_path: Path, name: str
) -> None:
    Preprocessing("resnet50", HEIGHT, WIDTH, mean=80.0, sd=40.0).write(tmp_path / "bare")
    tracking, said = make_tracking(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"), []
    with tracking.run("encoder", {}, said.append) as run:
        run.encoder(name, "d", tmp_path / "bare")
        run.metrics({"loss": 1.0})
    assert len(said) == 1
    assert said[0].startswith(f"{name} ")
