"""MLflow on sqlite is really written; one that is down costs a warning and nothing else."""

import multiprocessing
import socket
from pathlib import Path

import pytest

from resources.tracking import Tracking


def local(tmp_path: Path) -> Tracking:
    return Tracking(
        uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}",
        artifacts=str(tmp_path / "mlflow" / "artifacts"),
        experiment="trial",
        lock_file=str(tmp_path / "locks" / "mlflow.lock"),
    )


def read_runs(tracking: Tracking) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.uri)
    return client.search_runs([e.experiment_id for e in client.search_experiments(filter_string="name = 'trial'")])


def test_a_run_holds_params_metrics_by_epoch_tags_and_files(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracking, said = local(tmp_path), []
    artifact = tmp_path / "curves.csv"
    artifact.write_text("epoch,loss\n1,2.0\n")
    with tracking.run("encoder", {"recipe": "trial"}, said.append) as run:
        run.params({"epochs": 2, "long": "x" * 9000})
        run.metrics({"loss": 2.0}, 1)
        run.metrics({"loss": 1.0}, 2)
        run.files([artifact, tmp_path / "absent.csv"])
    (stored,) = read_runs(tracking)
    assert said == []
    assert stored.info.status == "FINISHED"
    assert stored.data.params["epochs"] == "2"
    assert stored.data.tags["recipe"] == "trial"
    client = MlflowClient(tracking_uri=tracking.uri)
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    assert [found.path for found in client.list_artifacts(run.run_id)] == ["curves.csv"]
    assert (tmp_path / "mlflow" / "artifacts") in Path(stored.info.artifact_uri.removeprefix("file://")).parents
    assert run.url is not None
    assert run.url.endswith(f"/runs/{run.run_id}")


def test_a_body_that_raises_leaves_a_failed_run(tmp_path: Path) -> None:
    tracking = local(tmp_path)
    with pytest.raises(RuntimeError), tracking.run("encoder", {}, print):
        raise RuntimeError
    assert [run.info.status for run in read_runs(tracking)] == ["FAILED"]


def test_a_child_run_names_its_parent(tmp_path: Path) -> None:
    tracking = local(tmp_path)
    with tracking.run("parent", {}, print) as parent, tracking.run("child", {}, print, parent=parent) as child:
        pass
    by_id = {run.info.run_id: run for run in read_runs(tracking)}
    assert by_id[child.run_id].data.tags["mlflow.parentRunId"] == parent.run_id


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_down_is_said_once_and_worked_without(tmp_path: Path) -> None:
    said: list[str] = []
    tracking = local(tmp_path).model_copy(update={"uri": f"http://user:secret@127.0.0.1:{closed_port()}"})
    done = False
    with tracking.run("encoder", {}, said.append) as run:
        run.params({"a": 1})
        run.metrics({"loss": 1.0})
        done = True
    assert done
    assert run.url is None
    assert len(said) == 1
    assert "cannot be reached" in said[0]
    assert "secret" not in said[0]


def test_a_tracking_that_dies_on_the_way_does_not_stop_the_work(tmp_path: Path) -> None:
    tracking, said = local(tmp_path), []
    with tracking.run("encoder", {}, said.append) as run:
        (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"this is no database any more" * 1000)
        run.metrics({"loss": 1.0}, 1)
        run.metrics({"loss": 0.5}, 2)
    assert len(said) == 1
    assert "not answering" in said[0]


def _touch(tmp_path: Path) -> None:
    with local(tmp_path).run("first", {}, print) as run:
        assert run.url


def test_two_processes_may_touch_a_fresh_database_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_touch, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read_runs(local(tmp_path))) == 2
