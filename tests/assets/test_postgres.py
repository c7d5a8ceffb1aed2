"""The server's instance: Dagster and MLflow in a PostgreSQL that the test starts, and two runs at once."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY_RECIPE, job_environment

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
DAGSTER = str(Path(sys.executable).parent / "dagster")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PROGRAMS, reason="no PostgreSQL under /usr/lib/postgresql (apt-get install postgresql)"),
]


def as_its_user(*command: str) -> None:
    """Run a program of PostgreSQL, which refuses to run as root."""
    user = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
    program = str(PROGRAMS[-1] / command[0])
    subprocess.run([program, *command[1:]], check=True, stdout=subprocess.DEVNULL, cwd="/", **user)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL with the databases dagster and mlflow, without the database's name."""
    folder = Path(tempfile.mkdtemp())  # not below pytest's folder, which its user cannot enter
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    as_its_user("initdb", "-D", f"{folder}/data", "-U", "sonotag", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    as_its_user("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w", "start")
    try:
        for name in ("dagster", "mlflow"):
            as_its_user("createdb", "-h", "127.0.0.1", "-p", port, "-U", "sonotag", name)
        yield f"sonotag@127.0.0.1:{port}"
    finally:
        as_its_user("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(server: str, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = tmp_path_factory.mktemp("server") / "store"
    store.mkdir()
    (store / "phantom").symlink_to(phantom)
    made = job_environment(
        store,
        {
            "SONOTAG_POSTGRES_URL": f"postgresql+psycopg2://{server}/dagster",
            "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{server}/mlflow",
        },
    )
    (Path(made["DAGSTER_HOME"]) / "dagster.yaml").write_bytes((ROOT / "dagster.postgres.yaml").read_bytes())
    return made


def recipe(folder: Path, name: str) -> str:
    text = TINY_RECIPE.replace("name: tiny", f"name: {name}").replace(
        "methods: [baseline, imagenet, dcm, ce, ce_dcm]", "methods: [baseline, dcm]"
    )
    path = folder / f"{name}.yaml"
    path.write_text(text[: text.index("downstream:")] + "downstream: {arms: [baseline, dcm]}\n", encoding="utf-8")
    return str(path)


def start(job: str, environment: dict[str, str], recipe: str) -> "subprocess.Popen[str]":
    command = [DAGSTER, "job", "execute", "-m", "assets.definitions", "-j", job]
    variables = environment | {"SONOTAG_RECIPE": recipe}
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ask(environment: dict[str, str], code: str) -> str:
    """What a program prints that has the instance of `environment`."""
    command = [sys.executable, "-c", f"import dagster as dg\ninstance = dg.DagsterInstance.get()\n{code}"]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


SPANS = """
from dagster import DagsterEventType as Kind
for run in instance.get_runs(dg.RunsFilter(job_name="pretrain")):
    began = {}
    for entry in instance.all_logs(run.run_id):
        event = entry.get_dagster_event() if entry.is_dagster_event else None
        if event and event.event_type == Kind.STEP_START:
            began[event.step_key] = entry.timestamp
        if event and event.event_type == Kind.STEP_SUCCESS:
            print(run.run_id, began[event.step_key], entry.timestamp)
"""


def test_two_runs_at_once_share_the_databases_and_train_in_turn(environment: dict[str, str], tmp_path: Path) -> None:
    one, other = recipe(tmp_path, "one"), recipe(tmp_path, "other")
    ingest = start("ingest", environment, f"{one},{other}")
    said_before = ingest.communicate()[0]
    assert ingest.returncode == 0, said_before[-3000:]
    runs = [start("pretrain", environment, one), start("pretrain", environment, other)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert not any("cannot be reached" in text for text in said)
    assert ask(environment, "print(type(instance.run_storage).__name__)").strip() == "PostgresRunStorage"
    statuses = ask(environment, "for run in instance.get_runs(): print(run.job_name, run.status.value)")
    assert sorted(statuses.splitlines()) == ["ingest SUCCESS", "pretrain SUCCESS", "pretrain SUCCESS"]
    spans = sorted((float(a), float(b), run) for run, a, b in map(str.split, ask(environment, SPANS).splitlines()))
    assert len(spans) == 6
    assert len({run for _, _, run in spans}) == 2
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_mlflow_has_both_recipes_on_the_same_server(environment: dict[str, str]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    experiments = {found.name: found.experiment_id for found in client.search_experiments()}
    for name in ("one", "other"):
        made = [run.data.tags["assets"] for run in client.search_runs([experiments[name]])]
        of_pretrain = sorted(assets for assets in made if assets == "preflight" or assets.endswith("_encoder"))
        assert of_pretrain == ["preflight", "resnet50_baseline_encoder", "resnet50_dcm_encoder"]
        assert any("pretraining_pool" in assets for assets in made)


def test_the_daemon_takes_two_runs_from_the_queue(environment: dict[str, str], tmp_path: Path) -> None:
    variables = environment | {"SONOTAG_RECIPE": recipe(tmp_path, "one")}
    command = [str(Path(DAGSTER).with_name("dagster-daemon")), "run", "--workspace", "workspace.yaml"]
    with open(tmp_path / "daemon.log", "wb") as log:
        daemon = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log)
    before = ask(environment, "print(len(instance.get_runs()))")
    launch = [DAGSTER, "job", "launch", "--workspace", "workspace.yaml", "--job", "pretrain"]
    try:
        for _ in range(2):
            subprocess.run(launch, cwd=ROOT, env=variables, check=True, capture_output=True)
        statuses: set[str] = set()
        while statuses != {"SUCCESS"}:
            assert daemon.poll() is None
            assert "FAILURE" not in statuses
            time.sleep(2)
            count = f"limit=len(instance.get_runs()) - {int(before)}"
            statuses = set(ask(environment, f"print(*(r.status.value for r in instance.get_runs({count})))").split())
    finally:
        daemon.terminate()
        daemon.wait()
    assert int(ask(environment, "print(len(instance.get_runs()))")) == int(before) + 2
