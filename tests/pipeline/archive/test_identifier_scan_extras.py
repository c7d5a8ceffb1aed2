"""The search looks for rare descriptions, tasks' patients and new images, in UTF-16 too, without false alarms."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archive.identifier_scan import Finding, RecipeTexts, scan_for_identifiers, shareable_paths
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX
from tests.pipeline.archive.synthetic import index_folder, noise, write_dicom

Found = Callable[..., set[tuple[str, str]]]
RARE = "US LIVER for Dr Sentinelmann"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Five patients of a scanner and a study after which folders are called, a sixth with a wording of its own."""
    folder = tmp_path / "archive"
    for number in range(5):
        top = ("EPIQ 7G", "US OB 1ST TRIMESTER", "C5-1 GUARD", "PHILIPS 2")[number % 4]
        write_dicom(
            folder / top / f"{number}" / "1.dcm",
            noise(seed=number),
            PatientID=f"COMMON-{number}00",
            StudyInstanceUID=f"1.2.{number}",
            Manufacturer="Philips 2 Medical",
            ManufacturerModelName="EPIQ 7G",
            TransducerData="C5-1 Guard",
            StudyDescription="US OB  1st trimester",
        )
    write_dicom(folder / "x" / "1.dcm", noise(seed=9), StudyInstanceUID="1.3", PatientID="P9", StudyDescription=RARE)
    return folder


@pytest.fixture
def search(archive: Path, store: Store) -> Found:
    """Index the archive, whose descriptions five patients must share; the function searches what the store shares."""
    index = index_folder(archive, store.private, patients=5)
    DICOM_INDEX.write(store.tables, index.records)

    def found(known: RecipeTexts = RecipeTexts()) -> set[tuple[str, str]]:  # noqa: B008 - frozen
        result = scan_for_identifiers(str(archive), store.private, shareable_paths(store, []), known)
        return {(one.file, one.kind) for one in result.findings}

    return found


def _log(store: Store, text: str | bytes) -> str:
    path = store.root / "dagster" / "event.log"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return "dagster/event.log"


def test_folders_named_like_published_texts_are_not_found(search: Found, store: Store) -> None:
    assert set(DICOM_INDEX.read(store.tables)["model"].to_pylist()) >= {"EPIQ 7G"}
    assert search() == set()
    file = _log(store, "cannot open archive/EPIQ 7G/0/1.dcm")  # a path stays one
    assert search() == {(file, "path")}


@pytest.mark.parametrize("text", [RARE, RARE.upper(), f'{{"seen": "{RARE}"}}', f"a\n{RARE}, 1 image"])
def test_a_rare_description_is_found(search: Found, store: Store, text: str) -> None:
    assert search() == set()
    file = _log(store, text)
    assert search() == {(file, "StudyDescription")}


def test_a_rare_description_that_is_public_elsewhere_is_not_found(search: Found, store: Store) -> None:
    _log(store, RARE)
    assert search(RecipeTexts(public=frozenset({f"printed: {RARE.lower()}"}))) == set()


def test_a_tasks_patient_is_found_and_the_recipes_name_is_not(search: Found, store: Store) -> None:
    file = _log(store, "scored Nodule-4711, of nodule2024, of xNodule-47113")
    assert search(RecipeTexts(frozenset({"nodule-4711"}))) == {(file, "patient of a task")}
    assert search(RecipeTexts(frozenset({"Nodule-4712", "nodule-471", "P1"}))) == set()
    assert search(RecipeTexts(frozenset({"nodule2024"}), frozenset({"nodule2024"}))) == set()


def test_files_that_a_model_was_applied_to_are_found(search: Found, store: Store, tmp_path: Path) -> None:
    new = write_dicom(tmp_path / "new" / "MUELLER ANNA" / "IM1", noise(seed=7), PatientID="NEWCOMER-42")
    other = write_dicom(tmp_path / "new" / "b" / "IM2", noise(seed=8), PatientID="NEWCOMER-43")
    folder = store.private / "predictions" / "demo" / "m" / "fraction-1_seed-0"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"file": [str(new), str(other), str(new)]}), folder / "predictions.parquet")
    file = _log(store, "of newcomer-42")
    assert search() == {(file, "PatientID")}
    _log(store, "MUELLER ANNA/IM1 cannot be opened")
    assert search() == {(file, "path")}
    _log(store, f"run config: folder {tmp_path / 'new'}")  # Dagster stores it, as docs/privacy.md explains
    assert search() == set()


def test_damaged_private_tables_end_no_search(search: Found, store: Store) -> None:
    folder = store.private / "predictions" / "demo"
    folder.mkdir(parents=True)
    (folder / "predictions.parquet").write_bytes(b"PAR1 no more")
    assert search() == set()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("before", ["", "x", "\u00e9"])
def test_utf_16_is_read(search: Found, store: Store, encoding: str, before: str) -> None:
    file = _log(store, before.encode() + f"; {RARE}; ".encode(encoding))
    assert search() == {(file, "StudyDescription")}


def test_utf_16_in_a_databases_cell_is_read(search: Found, store: Store) -> None:
    cell = pa.array([f"{RARE} ".encode("utf-16")])
    pq.write_table(pa.table({"blob": cell}), store.tables / "planted.parquet")
    assert search() == {("tables/planted.parquet", "StudyDescription")}


def test_a_result_names_no_value(archive: Path, search: Found, store: Store) -> None:
    _log(store, RARE)
    result = scan_for_identifiers(str(archive), store.private, shareable_paths(store, []))
    assert result.findings == (Finding("dagster/event.log", "StudyDescription"),)
