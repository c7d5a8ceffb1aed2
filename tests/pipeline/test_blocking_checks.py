"""Two attempts at one check at once: the result is that of the attempt that read the present files last."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.blocking_checks import Check, attempt, refuse
from pipeline.errors import UnreachableError, UserError
from pipeline.files import write_table
from pipeline.store import Store
from tests.conftest import ROOT

KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from pipeline.files import atomic_replace
with atomic_replace(Path(sys.argv[1])):
    os._exit(1)
"""
CHECK = Check(asset="dicom_index", check="no_file_lost", group="archive")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path).open()


def write(store: Store, rows: int) -> None:
    write_table(store.tables / "dicom_index.parquet", pa.table({"file_id": list(range(rows))}))


def start(store: Store, stack: ExitStack) -> object:
    return stack.enter_context(attempt(store, "demo", {"dicom_index"}, [CHECK]))


@pytest.mark.parametrize("rows", [3, 4])
def test_two_simultaneous_runs_do_not_overwrite_each_others_results(store: Store, rows: int) -> None:
    with ExitStack() as first, ExitStack() as second:
        one, two = start(store, first), start(store, second)
        write(store, 3)
        two.record(CHECK, True, "")  # type: ignore[attr-defined]
        write(store, rows)
        one.record(CHECK, True, "")  # type: ignore[attr-defined]
        second.close()
        refuse(store, "demo", {"dicom_index"})
        first.close()
    refuse(store, "demo", {"dicom_index"})


def test_files_that_the_other_run_wrote_without_a_check_are_unfinished(store: Store) -> None:
    with ExitStack() as first, ExitStack() as second:
        one, _ = start(store, first), start(store, second)
        write(store, 3)
        one.record(CHECK, True, "")  # type: ignore[attr-defined]
        write(store, 4)
    with pytest.raises(UserError, match="has not finished"):
        refuse(store, "demo", {"dicom_index"})


def test_the_next_reader_removes_what_an_attempt_left_that_was_killed_as_it_began(store: Store) -> None:
    folder = store.checks / ".under_way"
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(folder / "a.json")], cwd=ROOT, check=False)
    assert len(list(folder.glob(".*.tmp"))) == 1
    refuse(store, "demo", {"dicom_index"})
    assert not list(folder.glob(".*.tmp"))


OTHER = Check(asset="dicom_index", check="another", group="archive")


def test_a_check_run_alone_renews_its_own_result_and_keeps_those_of_others(store: Store) -> None:
    write(store, 3)
    with attempt(store, "demo", {"dicom_index"}, [CHECK, OTHER]) as here:
        here.record(CHECK, False, "")
        here.record(OTHER, False, "")
    with attempt(store, "demo", (), [CHECK]) as alone:
        alone.record(CHECK, True, "")
    with pytest.raises(UserError, match="another of dicom_index did not pass"):
        refuse(store, "demo", {"dicom_index"})


def test_a_check_run_alone_records_nothing_about_files_that_it_did_not_examine(store: Store) -> None:
    write(store, 3)
    with pytest.raises(UnreachableError, match="dicom_index has changed"), attempt(store, "demo", (), [CHECK]) as alone:
        write(store, 4)
        alone.record(CHECK, True, "")
    with pytest.raises(UserError, match="has not finished"):
        refuse(store, "demo", {"dicom_index"})


def test_checks_that_a_run_leaves_out_are_unfinished(store: Store) -> None:
    write(store, 3)
    with attempt(store, "demo", {"dicom_index"}, [CHECK, OTHER]) as here:
        write(store, 4)
        here.record(CHECK, True, "")
    with pytest.raises(UserError, match="another of dicom_index has not finished"):
        refuse(store, "demo", {"dicom_index"})
