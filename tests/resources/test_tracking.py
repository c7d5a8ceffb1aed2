"""Runs are recorded on SQLite and on a server; if it is down, one line is logged and the records are sent later."""

import json
import math
import multiprocessing
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from resources import pending_runs
from resources import tracking as module
from resources.mlflow_records import RECORDS, Input
from resources.tracking import Tracking
from tests.conftest import ROOT
from tests.resources.conftest import MakeTracking, Server, free_port

pytestmark = pytest.mark.integration

POOL = Input(
    name="pretraining_pool", digest="ab" * 32, location="tables/pool.parquet", use="training", size={"images": 7}
)


@pytest.fixture
def local(make_tracking: MakeTracking, tmp_path: Path) -> Tracking:
    return make_tracking(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")


@pytest.fixture(params=["sqlite", "server"])
def tracking(request: pytest.FixtureRequest, make_tracking: MakeTracking, tmp_path: Path) -> Tracking:
    """A tracking whose MLflow is there, on sqlite and behind a server."""
    if request.param == "sqlite":
        return make_tracking(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    server: Server = request.getfixturevalue("server")
    return make_tracking(server.uri).model_copy(update={"experiment": f"trial-{tmp_path.name}"})


def read_runs(tracking: Tracking) -> list[Run]:
    """The runs of the tracking's experiment, by their start."""
    client = MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: int(run.info.start_time))


def history(tracking: Tracking, run: Run, metric: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=tracking.uri)
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric))


def artifact(tracking: Tracking, run: Run, name: str, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return Path(
        MlflowClient(tracking_uri=tracking.uri).download_artifacts(run.info.run_id, name, str(folder))
    ).read_text()


def settings(tracking: Tracking) -> dict[str, str]:
    """What another process needs to open the same tracking."""
    return {name: getattr(tracking, name) for name in ("uri", "artifacts", "experiment", "lock_file", "pending")}


def waiting(tracking: Tracking) -> list[Path]:
    return [path for path in Path(tracking.pending).glob("*") if path.is_dir()]


def test_a_run_holds_params_metrics_by_epoch_tags_files_and_inputs(tracking: Tracking, tmp_path: Path) -> None:
    said: list[str] = []
    curves = tmp_path / "curves.csv"
    curves.write_text("epoch,loss\n1,2.0\n")
    with tracking.run("encoder", {"recipe": "trial"}, said.append) as run:
        run.params({"epochs": 2, "long": "x" * 9000, "augmentation": {"shift": 0.1}})
        run.metrics({"loss": 2.0}, 1)
        run.metrics({"loss": 1.0}, 2)
        run.files([curves, tmp_path / "absent.csv"])
        run.input(POOL)
    (stored,) = read_runs(tracking)
    assert said == []
    assert stored.info.status == "FINISHED"
    assert (stored.data.params["epochs"], stored.data.params["augmentation.shift"]) == ("2", "0.1")
    assert stored.data.tags["recipe"] == "trial"
    assert history(tracking, stored, "loss") == [(1, 2.0), (2, 1.0)]
    assert artifact(tracking, stored, "curves.csv", tmp_path / "read") == curves.read_text()
    assert [found.path for found in MlflowClient(tracking.uri).list_artifacts(run.run_id)] == ["curves.csv"]
    (read,) = stored.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("pretraining_pool", "ab" * 18)
    assert [(tag.key, tag.value) for tag in read.tags] == [("mlflow.data.context", "training")]
    assert run.url is not None
    assert run.url.endswith(f"/runs/{run.run_id}?workflowType=machine_learning")
    assert waiting(tracking) == []


def test_the_dataset_is_one_that_mlflow_data_reads(local: Tracking) -> None:
    import mlflow.data

    with local.run("encoder", {}, print) as run:
        run.input(POOL)
    (stored,) = read_runs(local)
    source = mlflow.data.get_source(stored.inputs.dataset_inputs[0].dataset)
    assert source.uri == "tables/pool.parquet"


def test_an_input_that_an_earlier_version_kept_is_still_read() -> None:
    kept = POOL.model_dump_json().replace('"location"', '"place"')
    assert '"place"' in kept
    assert RECORDS.validate_json(kept) == POOL


def test_artifacts_of_a_local_database_are_in_its_folder(local: Tracking, tmp_path: Path) -> None:
    with local.run("encoder", {}, print):
        pass
    (stored,) = read_runs(local)
    assert (tmp_path / "mlflow" / "artifacts") in Path(stored.info.artifact_uri.removeprefix("file://")).parents


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_body_that_raises_ends_its_run(local: Tracking, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), local.run("encoder", {}, print):
        raise error
    assert [run.info.status for run in read_runs(local)] == [status]


def test_a_child_run_names_its_parent(local: Tracking) -> None:
    with local.run("parent", {}, print) as parent, local.run("child", {}, print, parent=parent) as child:
        pass
    by_id = {run.info.run_id: run for run in read_runs(local)}
    assert by_id[child.run_id].data.tags["mlflow.parentRunId"] == parent.run_id
    assert {run.info.status for run in by_id.values()} == {"FINISHED"}


def test_the_machine_s_load_is_recorded_during_a_run(local: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first CPU load from psutil is always 0, and must not be logged."""
    loads = iter([0.0, *[40.0] * 10_000])
    monkeypatch.setattr("psutil.cpu_percent", lambda: next(loads))
    with local.model_copy(update={"sample_seconds": 0.05}).run("encoder", {}, print):
        while len(history(local, read_runs(local)[0], "system/cpu_utilization_percentage")) < 2:
            pass
    (stored,) = read_runs(local)
    assert history(local, stored, "system/cpu_utilization_percentage")[:2] == [(0, 40.0), (1, 40.0)]
    assert stored.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_a_server_that_is_down_is_logged_once_and_does_not_fail_the_work(make_tracking: MakeTracking) -> None:
    said: list[str] = []
    port = free_port()
    tracking = make_tracking(f"http://user:secret@127.0.0.1:{port}")
    done = False
    with tracking.run("encoder", {}, said.append) as run:
        run.params({"a": 1})
        run.metrics({"loss": 1.0})
        done = True
    assert done
    assert run.url is None
    assert len(said) == 1
    assert f"http://127.0.0.1:{port} " in said[0]
    kept = "".join(path.read_text() for path in Path(tracking.pending).rglob("*.json*"))
    assert "loss" in kept
    assert "secret" not in said[0] + kept


def test_a_server_that_never_responds_is_not_tried_again_for_a_while(
    make_tracking: MakeTracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.5)
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        tracking = make_tracking(f"http://127.0.0.1:{silent.getsockname()[1]}")
        opened = Tracking._connect
        monkeypatch.setattr(Tracking, "_connect", lambda self: (asked.append(1), opened(self))[1])
        for _ in range(3):
            with tracking.run("encoder", {}, print) as run:
                run.metrics({"loss": 1.0})
        assert len(asked) == 1
        monkeypatch.setattr(module, "_paused_until", {})  # as after PAUSE_SECONDS
        with tracking.run("encoder", {}, print):
            pass
    assert len(asked) == 2
    assert len(waiting(tracking)) == 4


def test_what_a_server_missed_is_sent_by_a_later_run(
    server: Server, make_tracking: MakeTracking, tmp_path: Path
) -> None:
    """The file is sent as it was in the run, with the run's own times."""
    down = make_tracking(f"http://127.0.0.1:{free_port()}").model_copy(update={"experiment": "missed"})
    curves = tmp_path / "curves.csv"
    curves.write_text("as it was")
    with down.run("encoder", {"recipe": "trial"}, print, None) as run:
        run.params({"epochs": 2})
        run.metrics({"loss": 2.0, "not a number": math.nan}, 1)
        run.metrics({"loss": 1.0}, 2)
        run.files([curves])
        run.input(POOL)
    curves.write_text("as it is now")
    started = pending_runs.Start.model_validate_json((waiting(down)[0] / "start.json").read_bytes()).at
    said: list[str] = []
    up = down.model_copy(update={"uri": server.uri, "experiment": "another"})
    with up.run("later", {}, said.append):
        pass
    (sent,) = read_runs(up.model_copy(update={"experiment": "missed"}))
    assert (sent.info.run_name, sent.info.status, sent.info.start_time) == ("encoder", "FINISHED", started)
    assert sent.info.end_time - started < 60_000
    assert sent.data.params == {"epochs": "2"}
    assert sent.data.tags["recipe"] == "trial"
    assert history(up, sent, "loss") == [(1, 2.0), (2, 1.0)]
    assert math.isnan(sent.data.metrics["not a number"])
    assert artifact(up, sent, "curves.csv", tmp_path / "read") == "as it was"
    assert len(sent.inputs.dataset_inputs) == 1
    assert waiting(up) == []
    assert list(Path(up.pending).iterdir()) == []
    assert len(said) == 1 and " 1 earlier run " in said[0]


def test_a_server_that_dies_during_a_run_later_receives_the_rest_of_it(
    server: Server, make_tracking: MakeTracking
) -> None:
    said: list[str] = []
    tracking = make_tracking(server.uri).model_copy(update={"experiment": "on the way"})
    with tracking.run("encoder", {}, said.append) as run:
        run.metrics({"loss": 2.0}, 1)
        server.stop()
        run.metrics({"loss": 1.0}, 2)
        run.metrics({"loss": 0.5}, 3)
    assert len(said) == 1
    assert "MlflowException" in said[0]
    server.start()
    with tracking.run("later", {}, print):
        pass
    first, later = read_runs(tracking)
    assert (first.info.run_id, first.info.status) == (run.run_id, "FINISHED")
    assert history(tracking, first, "loss") == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert later.info.run_name == "later"


def test_a_failure_of_mlflow_during_a_run_does_not_stop_the_work(local: Tracking, tmp_path: Path) -> None:
    said: list[str] = []
    with local.run("encoder", {}, said.append) as run:
        (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"this is no database any more" * 1000)
        run.metrics({"loss": 1.0}, 1)
        run.metrics({"loss": 0.5}, 2)
    assert len(said) == 1
    assert "MlflowException" in said[0]
    assert len(waiting(local)) == 1


def test_a_refused_record_is_reported_and_the_rest_is_sent(local: Tracking) -> None:
    said: list[str] = []
    with local.run("encoder", {}, said.append) as run:
        run.params({"a:b*c": 1})
        run.metrics({"loss": 1.0}, 1)
    (stored,) = read_runs(local)
    assert len(said) == 1 and all(part in said[0] for part in (" params ", "INVALID_PARAMETER_VALUE"))
    assert stored.data.metrics["loss"] == 1.0


def test_a_run_that_mlflow_has_purged_does_not_block_others(local: Tracking) -> None:
    gone = pending_runs.Start(experiment="trial", name="gone", tags={}, at=1, run_id="0" * 32)
    pending_runs.create_pending_run(Path(local.pending), gone).close()
    with local.run("later", {}, print):
        pass
    assert waiting(local) == []


KILLED = """
import json, os, signal, sys
from resources.tracking import Tracking
with Tracking(**json.loads(sys.argv[1])).run("killed", {}, print) as run:
    run.metrics({"loss": 1.0}, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_within_a_run(tracking: Tracking) -> None:
    """A process of its own opens a run and is killed as `kill -9` does."""
    command = [sys.executable, "-c", KILLED, json.dumps(settings(tracking))]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_run_whose_process_was_killed_is_ended_by_the_next_one(local: Tracking) -> None:
    with local.run("alive", {}, print):
        kill_within_a_run(local)
        assert [run.info.status for run in read_runs(local)] == ["RUNNING", "RUNNING"]
        with local.run("next", {}, print):
            status = {run.info.run_name: run.info.status for run in read_runs(local)}
            assert status == {"alive": "RUNNING", "killed": "KILLED", "next": "RUNNING"}
    assert {run.info.status for run in read_runs(local)} == {"FINISHED", "KILLED"}
    assert list(Path(local.pending).iterdir()) == []


def test_a_run_killed_while_the_server_was_down_is_sent_as_killed(server: Server, make_tracking: MakeTracking) -> None:
    down = make_tracking(f"http://127.0.0.1:{free_port()}").model_copy(update={"experiment": "killed"})
    kill_within_a_run(down)
    (folder,) = waiting(down)
    with open(folder / "records.jsonl", "a", encoding="utf-8") as lines:
        lines.write('{"kind": "metrics", "values": [{"ke')  # as a crash leaves it
    with down.model_copy(update={"uri": server.uri}).run("next", {}, print):
        pass
    first, _ = read_runs(down.model_copy(update={"uri": server.uri}))
    assert (first.info.run_name, first.info.status, first.data.metrics["loss"]) == ("killed", "KILLED", 1.0)


def test_pending_runs_are_limited_in_number_and_size(
    make_tracking: MakeTracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest runs; a run with a file that is too large keeps its other records."""
    monkeypatch.setattr(pending_runs, "MAX_RUNS", 3)
    monkeypatch.setattr(pending_runs, "MAX_BYTES", 5000)
    tracking, said = make_tracking(f"http://127.0.0.1:{free_port()}"), []
    large = tmp_path / "encoder.safetensors"
    large.write_bytes(b"x" * 6000)
    for number in range(5):
        with tracking.run(f"run {number}", {}, said.append) as run:
            run.files([large])
            run.metrics({"loss": 1.0}, 1)
    names = [
        pending_runs.Start.model_validate_json((folder / "start.json").read_bytes()).name
        for folder in waiting(tracking)
    ]
    assert sorted(names) == ["run 2", "run 3", "run 4"]
    assert sum(line.startswith("artifacts ") for line in said) == 5
    assert all("loss" in (folder / "records.jsonl").read_text() for folder in waiting(tracking))


def _touch(tracking: dict[str, str]) -> None:
    with Tracking(**tracking).run("first", {}, print) as run:
        assert run.url


def test_two_processes_can_create_a_database_at_once(local: Tracking) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_touch, args=(settings(local),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read_runs(local)) == 2
