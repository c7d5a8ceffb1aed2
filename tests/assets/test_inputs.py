"""Tables that assets take as arguments: loaded once the step may start, and current while they are used."""

import ast
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets import step as step_module
from assets.definitions import build_defs
from assets.failures import KIND
from pipeline.blocking_checks import Check, attempt
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, QUARANTINE, REJECTED_FILES, REJECTED_FRAMES
from resources import tables as tables_module
from resources.environment import read_environment
from resources.tables import current_table, load_table
from tests.conftest import ROOT, TINY_RECIPE, keys_of

pytestmark = pytest.mark.integration

SECOND_WRITER = """
import sys, time
from pathlib import Path
import pyarrow as pa
from pipeline.locks import tables_lock
from pipeline.store import Store
from pipeline.tables import REJECTED_FRAMES

store, written = Store(Path(sys.argv[1])), Path(sys.argv[2])
with tables_lock(store, print):
    Path(sys.argv[3]).touch()
    while not written.exists():
        time.sleep(0.05)
    rows = [{"level": "frame", "id": "f_0000000000000002:0", "reason": "blank", "detail": ""}]
    REJECTED_FRAMES.write(store.experiment("tiny").tables, pa.Table.from_pylist(rows, REJECTED_FRAMES.schema))
"""
WAITING = "Waiting for another process that writes tables"


def rejections(*names: str) -> pa.Table:
    rows = [{"level": "frame", "id": name, "reason": "blank", "detail": ""} for name in names]
    return pa.Table.from_pylist(rows, REJECTED_FRAMES.schema)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in which `quarantine` can be made: of a file and of a frame."""
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    opened = Store(tmp_path / "store").open()
    REJECTED_FILES.write(opened.tables, rejections("f_0000000000000000"))
    REJECTED_FRAMES.write(opened.experiment("tiny").tables, rejections("f_0000000000000001:0"))
    return opened


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setattr(step_module, "WAITS", (0.01, 0.02, 0.04))
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def materialize(store: Store, instance: dg.DagsterInstance, *assets: str) -> dg.ExecuteInProcessResult:
    recipe = str(store.root.parent / "tiny.yaml")
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(store.root), "SONOTAG_RECIPE": recipe}))
    return definitions.resolve_job_def("ingest").execute_in_process(
        instance=instance, asset_selection=keys_of(definitions, *assets), raise_on_error=False
    )


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    events = result.get_step_failure_events()
    return [str(event.step_failure_data.user_failure_data.description) for event in events]


def in_quarantine(store: Store) -> list[str]:
    ids: list[str] = QUARANTINE.read(store.experiment("tiny").tables)["id"].to_pylist()
    return ids


def test_what_another_process_writes_while_a_step_waits_for_its_lock_is_read_again(
    store: Store, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    go, held = tmp_path / "go", tmp_path / "held"
    writer = subprocess.Popen(
        [sys.executable, "-c", SECOND_WRITER, str(store.root), str(go), str(held)], cwd=ROOT, stdout=subprocess.PIPE
    )
    results: list[dg.ExecuteInProcessResult] = []
    try:
        wait_for(held.exists)
        step = threading.Thread(target=lambda: results.append(materialize(store, instance, "quarantine")))
        step.start()
        wait_for(lambda: waits(instance))  # by now it has loaded both tables
        go.touch()
        step.join(60)
        assert writer.wait(30) == 0
    finally:
        writer.kill()
    assert results[0].success
    assert in_quarantine(store) == ["f_0000000000000000", "f_0000000000000002:0"]


def waits(instance: dg.DagsterInstance) -> bool:
    runs = instance.get_runs()
    return any(WAITING in entry.user_message for run in runs for entry in instance.all_logs(run.run_id))


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_table_is_read_again_only_if_it_was_written(store: Store) -> None:
    recipe = Recipe(name="tiny")
    rows = load_table("rejected_frames", store, recipe)
    assert current_table(rows, store, recipe) is rows
    REJECTED_FRAMES.write(store.experiment("tiny").tables, rejections("f_0000000000000003:0"))
    again = current_table(rows, store, recipe)
    assert again["id"].to_pylist() == ["f_0000000000000003:0"]
    assert current_table(again, store, recipe) is again


def test_a_table_that_no_run_has_written_is_one_sentence_and_no_second_try(
    store: Store, instance: dg.DagsterInstance
) -> None:
    REJECTED_FRAMES.path(store.experiment("tiny").tables).unlink()
    result = materialize(store, instance, "quarantine")
    (said,) = failures(result)
    assert "rejected_frames.parquet" in said and "`ingest`" in said and "\n" not in said
    assert not any(event.event_type_value == "STEP_UP_FOR_RETRY" for event in result.all_events)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None and run.tags[KIND] == "mistake"


def test_a_failed_check_upstream_is_named_before_a_table_is_read(store: Store, instance: dg.DagsterInstance) -> None:
    REJECTED_FRAMES.path(store.experiment("tiny").tables).unlink()
    check = Check(asset="dicom_index", check="no_file_lost", group="archive")
    with attempt(store, "tiny", {"dicom_index"}, [check]) as here:
        here.record(check, False, "2 files: 1 records, 0 rejected")
    (said,) = failures(materialize(store, instance, "quarantine"))
    assert "no_file_lost" in said and "rejected_frames" not in said


def test_after_a_users_mistake_no_table_is_read_either(store: Store, instance: dg.DagsterInstance) -> None:
    REJECTED_FRAMES.path(store.experiment("tiny").tables).unlink()
    assets = ("weak_labels", "labelled_records", "label_changes", "quarantine")  # none finds its inputs
    first, second = failures(materialize(store, instance, *assets))
    assert ".parquet does not exist yet" in first
    assert "not started, since" in second and ".parquet" not in second


def test_a_disk_that_fails_while_a_table_is_loaded_is_tried_again(
    store: Store, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tries = tables_module.read_table_of, []

    def unreliable(*arguments: Any) -> pa.Table:
        tries.append(arguments)
        if len(tries) == 1:
            raise OSError(5, "Input/output error")
        return read(*arguments)

    monkeypatch.setattr(tables_module, "read_table_of", unreliable)
    result = materialize(store, instance, "quarantine")
    assert result.success
    assert sum(event.event_type_value == "STEP_RESTARTED" for event in result.all_events) == 1


def test_a_damaged_table_is_named_with_the_job_that_writes_it(store: Store, instance: dg.DagsterInstance) -> None:
    DICOM_INDEX.path(store.tables).write_bytes(b"PAR1 and nothing else")
    (said,) = failures(materialize(store, instance, "weak_labels", "labelled_records", "label_changes"))
    assert "dicom_index.parquet is damaged" in said and "`ingest`" in said


def test_an_asset_that_returns_a_value_is_refused(store: Store) -> None:
    tables = tables_module.TableInputs(tables_module.StoreFolder(root=str(store.root)), [], step_module.guarded)

    @dg.asset
    def careless() -> int:
        return 1

    with pytest.raises(TypeError, match="careless returned a value"):
        dg.materialize([careless], resources={"io_manager": tables})


def test_no_asset_reads_a_table_of_its_own_accord() -> None:
    """Tables are arguments; `earlier` names what is read of earlier runs."""
    allowed = {
        "assets/automation.py": {"read_pool"},  # a schedule, which no asset feeds
        "assets/leaks.py": {"read_table"},  # the pixels of pairs that a check has found
        "assets/prediction.py": {"read_table"},  # what the asset itself has written
    }
    reading = {"read_table", "read_pool", "read_table_of", "load_pool", "load_table"}
    tables = {"DICOM_INDEX", "IMAGES", "PATIENT_SPLITS", "REJECTED_FILES", "REJECTED_FRAMES", "NEAR_DUPLICATES"}
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "assets").glob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            function = call.func
            if isinstance(function, ast.Name) and function.id in reading:
                found.setdefault(f"assets/{path.name}", set()).add(function.id)
            if isinstance(function, ast.Attribute) and function.attr == "read":
                of = ast.unparse(function.value)
                assert of not in tables and "table" not in of, f"{path.name}, line {call.lineno}"
    assert found == allowed
