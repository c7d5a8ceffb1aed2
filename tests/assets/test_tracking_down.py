"""A job whose MLflow server is down, by the command line: the encoder is there, and a later job tells MLflow of it."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import run_job

pytestmark = pytest.mark.integration

ALONE = """
name: alone
images: {height: 32, width: 64}
pretraining: {backbones: [resnet50], methods: [baseline]}
downstream: {arms: [baseline]}
"""


def test_an_encoder_that_was_made_while_mlflow_was_down_is_registered_by_the_next_job(
    demo_store: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    store, recipe = tmp_path / "store", tmp_path / "alone.yaml"
    for part in ("tables", "images", "private", "checks"):
        shutil.copytree(demo_store / part, store / part)
    for part in ("tables", "checks"):
        shutil.copytree(demo_store / "experiments" / "tiny" / part, store / "experiments" / "alone" / part)
    for path in (store / "experiments" / "alone" / "checks").glob("*.json"):
        path.write_text(path.read_text().replace("experiments/tiny/", "experiments/alone/"))
    shutil.copy2(demo_store / "store.json", store)
    recipe.write_text(ALONE)
    down = run_job("pretrain", store, SONOTAG_RECIPE=str(recipe), MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert down.returncode == 0, down.stderr[-2000:]
    assert "cannot be reached" in down.stdout + down.stderr
    encoder = store / "experiments" / "alone" / "encoders" / "resnet50_baseline_seed-0"
    assert (encoder / "encoder.safetensors").is_file()
    up = run_job("pretrain", store, SONOTAG_RECIPE=str(recipe))
    assert up.returncode == 0, up.stderr[-2000:]
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    (version,) = client.search_model_versions("name = 'alone.resnet50_baseline_encoder'")
    experiment = client.get_experiment_by_name("alone")
    assert experiment is not None
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: int(run.info.start_time))
    assert [run.data.tags["assets"] for run in runs] == 2 * ["preflight", "resnet50_baseline_encoder"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    late, present = runs[1::2]
    assert late.info.run_id == version.run_id
    assert late.info.status == present.info.status == "FINISHED"
    assert late.data.tags["dagster.run_id"] != present.data.tags["dagster.run_id"]
    assert late.data.tags["data_version.resnet50_baseline_encoder"]
    names = {found.path for found in client.list_artifacts(late.info.run_id)}
    assert {"encoder", "encoder.safetensors", "model_card.md", "preprocessing.json"} <= names
    assert not any((store / "mlflow" / "unsent").iterdir())
