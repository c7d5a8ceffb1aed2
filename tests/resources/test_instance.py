"""The Dagster instance is made once, by real processes that start at the same time."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipeline.errors import UserError
from resources.instance import main, make_instance, refuse_home
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

MAKE = [sys.executable, "-m", "resources.instance", "dagster.yaml"]
DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")


@dg.job
def empty() -> None:
    """A job without steps."""


def run_at_once(home: Path, count: int) -> list[tuple[int, str]]:
    """Exit code and standard error of so many processes that make the instance in `home`."""
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    started = [
        subprocess.Popen(MAKE, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(count)
    ]
    return [(process.wait(), said) for process in started for said in [process.communicate()[1]]]


def test_processes_that_start_at_once_make_one_instance(tmp_path: Path) -> None:
    home = tmp_path / "new" / "dagster"
    assert run_at_once(home, 4) == [(0, "")] * 4
    assert (home / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()
    for name in DATABASES:
        (version,) = sqlite3.connect(home / name).execute("select count(*) from alembic_version").fetchone()
        assert version == 1, name


def test_the_databases_exist_before_the_configuration_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(dg.DagsterInstance, "from_config", lambda *_: 1 / 0)
        make_instance(ROOT / "dagster.yaml", str(tmp_path))
    assert not (tmp_path / "dagster.yaml").exists()
    make_instance(ROOT / "dagster.yaml", str(tmp_path))
    made = (tmp_path / "dagster.yaml").stat().st_ctime_ns
    assert all((tmp_path / name).stat().st_mtime_ns < made for name in DATABASES)


def test_an_existing_instance_keeps_its_runs(tmp_path: Path) -> None:
    make_instance(ROOT / "dagster.yaml", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        kept = instance.create_run_for_job(empty).run_id
    make_instance(ROOT / "dagster.yaml", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert [run.run_id for run in instance.get_runs()] == [kept]


def test_a_mistake_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for home in ("", "store/dagster"):
        with pytest.raises(UserError, match=f"DAGSTER_HOME.*{home!r}"):
            make_instance(ROOT / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert str(tmp_path / "none.yaml") in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["what? a store", "100%25 store", "a%41", "50%E9?x=1"])
def test_a_folder_that_dagster_would_misread_is_refused_before_anything_is_made(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / name / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert main([str(ROOT / "dagster.yaml")]) == 1
    said = capsys.readouterr().err
    assert str(home) in said and "SONOTAG_STORE" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_loading_the_definitions_refuses_such_a_folder_too(tmp_path: Path) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "what?"), "SONOTAG_STORE": str(tmp_path / "store")}
    load = [sys.executable, "-c", "import assets.definitions"]
    done = subprocess.run(load, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "what?" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["a b", "a#b", "a%b", "50 %", "it's", 'a"b', "Ä ü 超", "a&b=c;d", "%(x)s", "a:b@c"])
def test_every_other_folder_holds_its_databases(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    make_instance(ROOT / "dagster.yaml", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert empty.execute_in_process(instance=instance).success
    assert [path for path in DATABASES if not (home / path).is_file()] == []
    assert list(tmp_path.iterdir()) == [home]


def test_any_folder_is_accepted_with_a_server_s_database(tmp_path: Path) -> None:
    refuse_home(str(tmp_path / "what?"), ROOT / "dagster.postgres.yaml")
