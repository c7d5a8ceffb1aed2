"""Records that MLflow refuses until a person acts are kept, reported with the action, and delivered afterwards."""

import http.server
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.archive.location import without_credentials
from resources import pending_runs
from resources.environment import sqlite_address
from resources.tracking import Tracking
from tests.resources.conftest import MakeTracking, Server, free_port
from tests.resources.test_tracking import history, read_runs, waiting

pytestmark = pytest.mark.integration


@pytest.fixture(params=["sqlite", "server"])
def tracking(request: pytest.FixtureRequest, make_tracking: MakeTracking, tmp_path: Path) -> Tracking:
    if request.param == "sqlite":
        return make_tracking(sqlite_address(tmp_path / "mlflow" / "mlflow.db"))
    server: Server = request.getfixturevalue("server")
    return make_tracking(server.uri).model_copy(update={"experiment": f"withheld-{tmp_path.name}"})


def experiment(tracking: Tracking) -> tuple[MlflowClient, str]:
    client = MlflowClient(tracking_uri=tracking.uri)
    found = client.get_experiment_by_name(tracking.experiment)
    assert found is not None
    return client, found.experiment_id


def a_run(tracking: Tracking, name: str) -> list[str]:
    said: list[str] = []
    with tracking.run(name, {}, said.append) as run:
        run.metrics({"loss": 2.0}, 1)
    return said


def test_runs_of_a_deleted_experiment_wait_until_it_is_restored(tracking: Tracking) -> None:
    assert a_run(tracking, "before") == []
    client, number = experiment(tracking)
    client.delete_experiment(number)
    for name in ("first", "second", *(f"run {n}" for n in range(8))):  # more often than anything is tried
        said = a_run(tracking, name)
        assert any(tracking.experiment in line and f"restore -x {number}`" in line for line in said)
        assert not any(without_credentials(tracking.uri) in line or "dropped" in line for line in said)
        assert len(said) <= 2
    assert len(waiting(tracking)) == 10
    client.restore_experiment(number)
    assert " 10 earlier runs " in a_run(tracking, "after")[-1]
    runs = read_runs(tracking)
    assert len(runs) == 12
    assert all(run.info.status == "FINISHED" and history(tracking, run, "loss") == [(1, 2.0)] for run in runs)
    assert waiting(tracking) == []


@pytest.mark.parametrize("what", ["experiment", "run"])
def test_a_run_deleted_while_it_is_recorded_keeps_its_later_records(tracking: Tracking, what: str) -> None:
    said: list[str] = []
    with tracking.run("encoder", {}, said.append) as run:
        run.metrics({"loss": 2.0}, 1)
        client, number = experiment(tracking)
        client.delete_experiment(number) if what == "experiment" else client.delete_run(run.run_id)
        run.metrics({"loss": 1.0}, 2)
        run.params({"epochs": 2})
    assert len(said) == 1
    assert (tracking.experiment if what == "experiment" else run.run_id) in said[0] and "restore" in said[0]
    client.restore_experiment(number) if what == "experiment" else client.restore_run(run.run_id)
    a_run(tracking, "after")
    stored = next(found for found in read_runs(tracking) if found.info.run_id == run.run_id)
    assert history(tracking, stored, "loss") == [(1, 2.0), (2, 1.0)]
    assert stored.data.params == {"epochs": "2"}
    assert waiting(tracking) == []


def test_a_permanently_deleted_run_is_created_again(make_tracking: MakeTracking, tmp_path: Path) -> None:
    tracking = make_tracking(sqlite_address(tmp_path / "mlflow" / "mlflow.db"))
    a_run(tracking, "before")
    client, number = experiment(tracking)
    client.delete_experiment(number)
    a_run(tracking, "waits")
    store = client._tracking_client.store
    for run in client.search_runs([number], run_view_type=3):
        store._hard_delete_run(run.info.run_id)
    store._hard_delete_experiment(number)  # as `mlflow gc` does
    a_run(tracking, "after")
    assert sorted(run.info.run_name for run in read_runs(tracking)) == ["after", "waits"]


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server before MLflow that answers every request with `status`."""

    status = 403

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "permissions"), (403, "permissions"), (404, "refuses"), (503, "reached")],
)
def test_a_server_that_refuses_is_distinguished_from_one_that_is_unreachable(
    make_tracking: MakeTracking, refusing: str, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(Refusing, "status", status)
    tracking = make_tracking(refusing)
    for number in range(7):
        said = a_run(tracking, f"run {number}")
        assert len(said) == 1 and words in said[0]
    assert len(waiting(tracking)) == 7
    starts = [
        pending_runs.Start.model_validate_json((folder / "start.json").read_bytes()) for folder in waiting(tracking)
    ]
    assert {start.attempts for start in starts} == {0}


def test_an_unreachable_server_costs_no_attempt(make_tracking: MakeTracking) -> None:
    tracking = make_tracking(f"http://127.0.0.1:{free_port()}")
    for number in range(7):
        assert tracking.uri in a_run(tracking, f"run {number}")[0]
    assert len(waiting(tracking)) == 7


def test_attempts_that_a_server_fails_are_hours_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes, then hours: the fifth and last attempt is more than a day after the first."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    pending = pending_runs.create_pending_run(tmp_path, pending_runs.Start(experiment="e", name="n", tags={}, at=1))
    at = []
    for _ in range(5):
        while not pending.is_due:
            now[0] += 60
        assert not pending.is_exhausted
        at.append(now[0])
        pending.count_failure()
    assert pending.is_exhausted
    waits = [later - sooner for sooner, later in pairwise(at)]
    assert waits == sorted(waits)
    assert waits[0] >= 600 and at[-1] - at[0] > 86_400
    pending.close()


@pytest.mark.parametrize("name", ["what? a store", "100%25", "a#b", "a%41", "it's Ä", "x=1&y;z"])
def test_a_database_is_created_at_its_path(make_tracking: MakeTracking, tmp_path: Path, name: str) -> None:
    database = tmp_path / name / "mlflow.db"
    tracking = make_tracking(sqlite_address(database)).model_copy(
        update={"artifacts": str(tmp_path / name / "artifacts")}
    )
    (tmp_path / "curves.csv").write_text("epoch,loss")
    said: list[str] = []
    with tracking.run("encoder", {}, said.append) as run:
        run.files([tmp_path / "curves.csv"])
    assert said == []
    assert database.is_file()
    assert len(list((tmp_path / name / "artifacts").rglob("curves.csv"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {name, "curves.csv", "mlflow", "locks"}
