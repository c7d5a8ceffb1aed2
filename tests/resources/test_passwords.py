"""A password in an address is used, and stands in nothing that is printed, kept or linked."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import build_defs
from pipeline.archive.location import without_credentials
from resources.environment import read_environment
from tests.conftest import job_environment, run_job
from tests.resources.conftest import MakeTracking, Server, free_port

pytestmark = pytest.mark.integration

SECRET = "geheim7Wort"
OTHER = "another8Word"


def files_with(secret: str, folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]


def with_password(uri: str) -> str:
    return uri.replace("://", f"://trainer:{SECRET}@")


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("http://user:word@host:5000/mlflow", "http://host:5000/mlflow"),
        ("postgresql+psycopg2://user:word@host/db?password=word", "postgresql+psycopg2://host/db"),
        ("http://user:w/o#r?d@e@host:5000", "http://host:5000"),
        ("http://user:word@host:noport", "http://host:noport"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("/data/a@b", "/data/a@b"),
    ],
)
def test_an_address_is_printed_without_what_may_be_a_credential(address: str, printed: str) -> None:
    assert without_credentials(address) == printed


def test_a_server_receives_all_records_and_the_password_appears_nowhere(
    server: Server, make_tracking: MakeTracking, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking = make_tracking(with_password(server.uri)).model_copy(update={"experiment": "secret"})
    said: list[str] = []
    (tmp_path / "curves.csv").write_text("epoch,loss\n")
    with tracking.run("encoder", {}, said.append) as run:
        run.params({"epochs": 2})
        run.files([tmp_path / "curves.csv"])
    assert said == []
    assert run.url is not None
    assert run.url.startswith(f"{server.uri}/#/experiments/")
    assert SECRET not in "".join(capfd.readouterr())
    assert files_with(SECRET, server.folder) == files_with(SECRET, tmp_path) == []


def test_a_server_that_is_down_is_named_without_its_password(make_tracking: MakeTracking, tmp_path: Path) -> None:
    said: list[str] = []
    place = f"http://127.0.0.1:{free_port()}"
    with make_tracking(with_password(place)).run("encoder", {}, said.append) as run:
        run.params({"epochs": 2})
    assert f" {place} " in said[0]
    assert files_with(SECRET, tmp_path) == []


def test_a_job_keeps_no_password_anywhere(server: Server, tmp_path: Path) -> None:
    """Run config, events, snapshots of the job, what steps printed: all of it is in the store."""
    store = tmp_path / "store"
    archive = f"memory://clinic:{OTHER}@nowhere/scans"
    done = run_job("ingest", store, SONOTAG_ARCHIVE=archive, MLFLOW_TRACKING_URI=with_password(server.uri))
    assert done.returncode == 1
    assert "SONOTAG_ARCHIVE memory://nowhere/scans " in done.stderr  # the step has read its variable
    assert "MLflow at" not in done.stderr  # and MLflow's, which responded
    for secret in (SECRET, OTHER):
        assert secret not in done.stdout + done.stderr
        assert files_with(secret, store) == files_with(secret, server.folder) == []


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    changes = {
        "SONOTAG_ARCHIVE": f"memory://clinic:{OTHER}@nowhere/scans",
        "MLFLOW_TRACKING_URI": with_password("http://127.0.0.1:9"),
    }
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    yield job_environment(tmp_path / "store", changes)


def test_a_sensor_reads_the_variable_too(variables: dict[str, str]) -> None:
    definitions = build_defs(read_environment(variables))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources=definitions.resources) as context,
    ):
        said = definitions.get_repository_def().get_sensor_def("new_files").evaluate_tick(context).skip_message
    assert said is not None
    assert "memory://nowhere/scans" in said
    assert OTHER not in said
