"""Damaged files of a store: reproducible ones are made again, mirrored ones are restored or refused."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archive.cache_builder import build_cache
from pipeline.archive.erase import erase_patient
from pipeline.archive.scan import index_archive
from pipeline.cohort.splits import known_sides, read_draws, save_sides, sides_of, split_patients
from pipeline.errors import DamagedError, UserError
from pipeline.files import read_json, read_table
from pipeline.images.cache import load_pixels
from pipeline.labels.changes import last_mapping, save_mapping
from pipeline.labels.study_groups import StudyGroups
from pipeline.privacy.erasure_list import ErasureList
from pipeline.privacy.identity import load_key, pseudonym
from pipeline.recipe.archive import Archive
from pipeline.recipe.images import Images
from pipeline.store import Store
from pipeline.tables import DELETED_FILES, DICOM_INDEX, IMAGES, PATIENT_SPLITS, REJECTED_FILES, REJECTED_FRAMES
from tests.conftest import plain_bytes
from tests.pipeline.archive.synthetic import noise, write_dicom

SIZE, SETTINGS = Images(height=32, width=64), Archive(description_patients=1)
PATIENTS = 8


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))


def of_another_kind(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"strange": [1, 2]}), path)
    else:
        path.write_text(json.dumps(["strange"]))


DAMAGES = [halved, emptied, overwritten, of_another_kind]


def ingest(folder: Path) -> tuple[Store, np.ndarray]:
    """The store after the job `ingest`, and the pixels of its cache."""
    archive, store = str(folder / "archive"), Store(folder / "store").open()
    key = load_key(store.private, {})
    index = index_archive(archive, store.private, key, SETTINGS)
    for table, rows in ((DICOM_INDEX, index.records), (REJECTED_FILES, index.rejected), (DELETED_FILES, index.deleted)):
        table.write(store.tables, rows)
    cache = build_cache(index.records, archive, store.private, key, store.images, SIZE, SETTINGS)
    IMAGES.write(store.experiment("demo").tables, cache.images)
    REJECTED_FRAMES.write(store.experiment("demo").tables, cache.rejected)
    patients = set(index.records["patient"].to_pylist())
    save_sides(store, split_patients(read_draws(store.private, patients), known_sides(store), 0.3))
    last_mapping(store.private_of("demo"))
    save_mapping(store.private_of("demo"), StudyGroups({"US LIVER": ("liver",)}))
    return store, load_pixels(cache.folder, cache.images)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with an archive and the store of one ingest, one patient erased."""
    folder = tmp_path_factory.mktemp("whole")
    for number in range(PATIENTS):
        study = f"1.2.{number + 1}"
        write_dicom(
            folder / "archive" / f"{number}.dcm",
            noise(32, 64, seed=number),
            PatientID=f"P{number}",
            SOPInstanceUID=f"{study}.9",
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
        )
    store, _ = ingest(folder)
    erase_patient(store, load_key(store.private, {}), "P7", None)
    ingest(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def state(folder: Path) -> dict[str, object]:
    store = Store(folder / "store")
    return {
        "sides": sides_of(PATIENT_SPLITS.read(store.tables)),
        "forgotten": read_json(store.private / "forgotten.json"),
        "key": (store.private / "pseudonym.key").read_bytes(),
        "images": sorted(IMAGES.read(store.experiment("demo").tables)["image_digest"].to_pylist()),
        "index": DICOM_INDEX.read(store.tables).to_pylist(),
    }


KEPT = ["private/forgotten.json", "private/sides.parquet", "store.json"]
COPIES = ["private/forgotten.copy.json", "private/sides.copy.parquet", "store.copy.json"]


def made_again(store: Path) -> list[Path]:
    kept = {*KEPT, *COPIES, "private/pseudonym.key", "private/pseudonym.copy.key"}
    files = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return [path for path in files if path.relative_to(store).as_posix() not in kept]


@pytest.mark.parametrize("damage", DAMAGES)
def test_reproducible_files_are_made_again_and_nothing_else_changes(folder, damage, caplog):
    before = state(folder)
    _, pixels = ingest(folder)
    files = made_again(folder / "store")
    assert {path.parent.name for path in files} >= {"tables", "private"} and len(files) > 10
    for path in files:
        damage(path)
    with caplog.at_level(logging.WARNING):
        _, again = ingest(folder)
    assert state(folder) == before and np.array_equal(again, pixels)
    if damage is not of_another_kind:  # a list of another origin is no news
        assert any("scan.parquet" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", KEPT + COPIES)
@pytest.mark.parametrize("damage", [*DAMAGES, os.unlink])
def test_mirrored_files_are_restored_from_their_copies(folder, name, damage, caplog):
    before = state(folder)
    damage(folder / "store" / name)
    with caplog.at_level(logging.WARNING):
        ingest(folder)
    assert state(folder) == before
    assert (name in COPIES) != any("restored from its copy" in record.getMessage() for record in caplog.records)
    for kept, copy in zip(KEPT, COPIES, strict=True):
        assert (folder / "store" / kept).read_bytes() == (folder / "store" / copy).read_bytes()


@pytest.mark.parametrize(("name", "copy"), list(zip(KEPT, COPIES, strict=True)))
@pytest.mark.parametrize("damage", DAMAGES)
def test_if_both_are_damaged_nothing_is_done_and_nothing_lost(folder, name, copy, damage):
    damage(folder / "store" / name)
    damage(folder / "store" / copy)
    damaged = [(folder / "store" / each).read_bytes() for each in (name, copy)]
    splits = PATIENT_SPLITS.path(folder / "store" / "tables").read_bytes()
    with pytest.raises(UserError, match=f"{Path(name).name} .*{Path(copy).name}"):
        ingest(folder)
    assert [(folder / "store" / each).read_bytes() for each in (name, copy)] == damaged
    assert PATIENT_SPLITS.path(folder / "store" / "tables").read_bytes() == splits


def test_a_store_without_copies_gets_them_and_a_damaged_split_of_it_is_refused(folder):
    store = Store(folder / "store")
    for name in (*COPIES, "private/pseudonym.copy.key", "private/sides.parquet"):
        (store.root / name).unlink()
    before = state(folder)
    halved(PATIENT_SPLITS.path(store.tables))
    with pytest.raises(UserError, match=r"patient_splits\.parquet") as refused:
        known_sides(store)
    assert not isinstance(refused.value, DamagedError), "no job can write it again"
    with pytest.raises(DamagedError):
        erase_patient(store.open(), load_key(store.private, {}), "P1", None)
    PATIENT_SPLITS.write(store.tables, pa.table({"patient": [*before["sides"]], "split": [*before["sides"].values()]}))
    ingest(folder)
    assert all((store.root / name).is_file() for name in COPIES) and sides_of(known_sides(store)) == before["sides"]


@pytest.mark.parametrize("damage", [halved, emptied, os.unlink])
def test_a_truncated_key_is_restored(folder, damage, caplog):
    private = folder / "store" / "private"
    key = load_key(private, {})
    for name in ("pseudonym.key", "pseudonym.copy.key"):
        damage(private / name)
        assert load_key(private, {}) == key
        assert (private / "pseudonym.key").read_bytes() == (private / "pseudonym.copy.key").read_bytes()


def test_a_key_that_differs_from_its_copy_is_refused_until_one_is_removed(folder):
    private = folder / "store" / "private"
    (private / "pseudonym.key").write_bytes(b"another key of many bytes")
    with pytest.raises(UserError, match=r"pseudonym\.copy\.key") as raised:
        load_key(private, {})
    assert "another key" not in str(raised.value)
    (private / "pseudonym.copy.key").unlink()
    assert load_key(private, {}) == b"another key of many bytes"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_patient_is_forgotten_in_a_damaged_store_too_and_leaves_no_trace(folder, damage):
    store = Store(folder / "store")
    key = load_key(store.private, {})
    patient = pseudonym(key, "patient", "P1")
    for path in made_again(store.root):
        if path.name != "scan.parquet":
            damage(path)
    erase_patient(store, key, "P1", None)
    ingest(folder)
    assert patient in ErasureList(store.private, read_json(store.private / "forgotten.json")["key"]).patients
    assert DICOM_INDEX.read(store.tables).num_rows == PATIENTS - 2 and patient not in sides_of(known_sides(store))
    left = {path: plain_bytes(path) for path in store.root.rglob("*.parquet")}
    assert pseudonym(key, "patient", "P2").encode() in left[DICOM_INDEX.path(store.tables)], "a patient is found"
    assert [path for path, content in left.items() if patient.encode() in content] == []


@pytest.mark.parametrize("damage", [halved, emptied, overwritten])
def test_a_damaged_table_or_text_raises_an_error_that_names_it(tmp_path, damage):
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps({"a": "b" * 100}))
    for name, read in (("a.parquet", read_table), ("a.json", read_json)):
        damage(tmp_path / name)
        with pytest.raises(DamagedError, match=name):
            read(tmp_path / name)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
