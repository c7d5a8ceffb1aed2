"""A run that is killed leaves nothing in the way: the next one starts at once and ends with the same results."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, job_environment, run_job

RESULTS = "experiments/tiny/reports/results_table.csv"


def kill_while_training(store: Path, recipe: Path, marker: str) -> None:
    """Start `demo` and kill it, with everything it started, when `marker` has been said."""
    dagster = str(Path(sys.executable).parent / "dagster")
    log = store / "killed.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [dagster, "job", "execute", "-m", "assets.definitions", "-j", "demo"],
            cwd=ROOT,
            env=job_environment(store, {"SONOTAG_RECIPE": str(recipe)}),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        while marker not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("step", ["cache_images", "resnet50_ce_encoder", "resnet50_baseline_quality"])
def test_the_next_run_needs_no_daemon_and_ends_the_same(
    step: str, demo_store: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "phantom").symlink_to((demo_store / "phantom").resolve())
    kill_while_training(store, tiny_recipe, f'Started execution of step "{step}"')
    done = run_job("demo", store, SONOTAG_RECIPE=str(tiny_recipe))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (store / RESULTS).read_bytes() == (demo_store / RESULTS).read_bytes()
    assert not list(store.rglob("*.tmp"))
    for path in (demo_store / "tables").glob("*.parquet"):
        assert path.read_bytes() == (store / "tables" / path.name).read_bytes(), path.name
