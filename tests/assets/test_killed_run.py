"""A run that is killed leaves nothing in the way: the next one starts at once and ends with the same results."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from assets.definitions import build_defs
from resources.environment import read_environment
from resources.instance import make_instance
from tests.conftest import ROOT, TINY_RECIPE, job_environment, run_job, table_path

pytestmark = pytest.mark.integration

RESULTS = "experiments/tiny/reports/results_table.csv"


WAITING = """
import time
from pathlib import Path

import dagster as dg

from resources.compute import POOL, Compute


@dg.asset(pool=POOL)
def encoder(context: dg.AssetExecutionContext, compute: Compute) -> None:
    with compute.training(context.log.info):
        context.log.info("it trains")
        while not Path({end!r}).exists():
            time.sleep(0.1)


defs = dg.Definitions(
    [encoder], jobs=[dg.define_asset_job("train")], resources={{"compute": Compute(lock_file={lock!r})}}
)
"""


def test_a_place_in_the_pool_is_free_again_without_a_daemon(tmp_path: Path) -> None:
    """The instance and the pool of the project, the step of another one that ends when it is told to."""
    end, lock = tmp_path / "end", tmp_path / "locks" / "training.lock"
    (tmp_path / "waiting.py").write_text(WAITING.format(end=str(end), lock=str(lock)), encoding="utf-8")
    environment = job_environment(tmp_path, {"PYTHONPATH": str(ROOT)})
    command = [str(Path(sys.executable).parent / "dagster"), "job", "execute", "-m", "waiting", "-j", "train"]
    log = tmp_path / "killed.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        while "it trains" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    end.touch()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_step_that_trains_is_in_the_pool(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY_RECIPE, encoding="utf-8")
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(tmp_path / "s"), "SONOTAG_RECIPE": str(recipe)}))
    training = {asset.op.name for asset in definitions.assets if "compute" in asset.required_resource_keys}
    assert training == {asset.op.name for asset in definitions.assets if asset.op.pool == "training"}
    assert len(training) == 1 + 5 + 12 + 1 + 1 + 1


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
    tables = list(demo_store.rglob("tables/*.parquet"))
    assert len(tables) > 10
    for path in tables:
        assert path.read_bytes() == table_path(store, path.stem).read_bytes(), path.name


LAUNCHED = """
import os
import time
from pathlib import Path

import dagster as dg


@dg.asset(pool="training")
def encoder() -> None:
    Path({worker!r}).write_text(str(os.getpid()))
    time.sleep(600)


in_process = {{"execution": {{"config": {{"in_process": {{}}}}}}}}
defs = dg.Definitions([encoder], jobs=[dg.define_asset_job("train", config=in_process)])
"""

ASK = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    (run,) = instance.get_runs()
    print(run.status.value, instance.event_log_storage.get_concurrency_info("training").active_slot_count)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_launched_run_whose_process_is_killed_gives_its_place_in_the_pool_back(tmp_path: Path) -> None:
    """As on a server, but for the database: its code server sees that it died, and the daemon frees the place."""
    worker = tmp_path / "worker"
    (tmp_path / "launched.py").write_text(LAUNCHED.format(worker=str(worker)), encoding="utf-8")
    environment = job_environment(tmp_path, {"PYTHONPATH": str(tmp_path)})
    settings = yaml.safe_load((ROOT / "dagster.postgres.yaml").read_text(encoding="utf-8"))
    del settings["storage"]
    settings["run_monitoring"] |= {"free_slots_after_run_end_seconds": 5, "poll_interval_seconds": 5}
    home = Path(environment["DAGSTER_HOME"])
    (home / "new.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    make_instance(home / "new.yaml", str(home))
    programs = Path(sys.executable).parent

    def ask() -> str:
        return subprocess.run(
            [sys.executable, "-c", ASK], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    with open(tmp_path / "daemon.log", "wb") as log:
        daemon = subprocess.Popen(
            [str(programs / "dagster-daemon"), "run", "-m", "launched"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        launch = [str(programs / "dagster"), "job", "launch", "-m", "launched", "-j", "train"]
        subprocess.run(launch, cwd=tmp_path, env=environment, check=True, capture_output=True)
        wait_for(worker.exists, daemon)
        assert ask() == "STARTED 1"
        os.kill(int(worker.read_text()), signal.SIGKILL)
        wait_for(lambda: ask() == "FAILURE 0", daemon)
    finally:
        daemon.terminate()
        daemon.wait()


def wait_for(condition: Callable[[], bool], daemon: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert daemon.poll() is None
        time.sleep(1)
