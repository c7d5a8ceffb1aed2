"""Two attempts at one check at once: the result is that of whoever looked at what is there last."""

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.checks import Check, attempt, refuse
from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.store import Store

CHECK = Check(asset="dicom_index", check="no_file_lost", group="archive")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path).open()


def write(store: Store, rows: int) -> None:
    write_table(store.tables / "dicom_index.parquet", pa.table({"file_id": list(range(rows))}))


def start(store: Store, stack: ExitStack) -> object:
    return stack.enter_context(attempt(store, "demo", {"dicom_index"}, [CHECK]))


@pytest.mark.parametrize("rows", [3, 4])
def test_of_two_runs_at_once_neither_undoes_the_others_result(store: Store, rows: int) -> None:
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
