"""The same run another way: a process per step, and without an MLflow that answers; the results are the same."""

from pathlib import Path

import pytest

from tests.conftest import run_job

RESULTS = "experiments/tiny/reports/results_table.csv"

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def store(demo_store: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "phantom").symlink_to((demo_store / "phantom").resolve())
    return folder


def test_a_process_per_step_gives_the_same_results(store: Path, demo_store: Path, tiny_recipe: Path) -> None:
    config = store / "multiprocess.yaml"
    config.write_text("execution: {config: {multiprocess: {max_concurrent: 2}}}\n")
    for job in ("ingest", "pretrain", "finetune", "report"):
        done = run_job(job, store, "-c", str(config), SONOTAG_RECIPE=str(tiny_recipe))
        assert done.returncode == 0, done.stderr[-3000:]
    assert (store / RESULTS).read_bytes() == (demo_store / RESULTS).read_bytes()


def test_an_mlflow_that_is_down_loses_nothing(store: Path, demo_store: Path, tiny_recipe: Path) -> None:
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # the discard port: refused at once
    done = run_job("demo", store, SONOTAG_RECIPE=str(tiny_recipe), **nobody)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "cannot be reached" in done.stderr
    assert (store / RESULTS).read_bytes() == (demo_store / RESULTS).read_bytes()
    encoder = "experiments/tiny/encoders/resnet50_ce_dcm_seed-0/encoder.safetensors"
    assert (store / encoder).read_bytes() == (demo_store / encoder).read_bytes()
