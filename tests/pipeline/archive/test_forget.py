"""Forgetting a patient: gone from every table and cache, never in again, and what saw it is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.archive.forget import forget
from pipeline.archive.identity import pseudonym
from pipeline.archive.trained_on import record_training_set
from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES, PATIENT_SPLITS, QUARANTINE, REJECTED_FILES
from tests.pipeline.archive import ingest
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom

FORGOTTEN = pseudonym(KEY, "patient", "P1")


@pytest.fixture
def clinic(tmp_path):
    """A store with the index and cache of nine images of three patients."""
    for number in range(9):
        write_dicom(
            tmp_path / "archive" / f"{number}",
            noise(64, 96, seed=number),
            PatientID=f"P{number % 3}",
            StudyDescription=f"US OF P{number % 3}",
        )
    ingest.main(str(tmp_path / "archive"), str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    patients = sorted(set(DICOM_INDEX.read(store.tables)["patient"].to_pylist()))
    PATIENT_SPLITS.write(store.tables, pa.table({"patient": patients, "split": ["train"] * len(patients)}))
    QUARANTINE.write(store.tables, REJECTED_FILES.read(store.tables))
    return store


def everything(store: Store) -> bytes:
    """Every text of every table and shard but the list of the forgotten, as one."""
    paths = [path for path in store.root.rglob("*.parquet") if "training_sets" not in path.parts]
    return json.dumps([read_table(path).to_pylist() for path in paths], default=str).encode()


def tables(store: Store) -> dict[str, list[dict]]:
    """All rows of all tables; places in the cache aside, which the next ingest tells anew."""
    read = {path.name: read_table(path) for path in store.tables.glob("*.parquet")}
    return {n: t.drop_columns([c for c in ("position",) if c in t.column_names]).to_pylist() for n, t in read.items()}


def test_nothing_of_the_patient_is_left_and_no_file_is_lost(clinic):
    instances = [r["sop_instance"] for r in DICOM_INDEX.read(clinic.tables).to_pylist() if r["patient"] == FORGOTTEN]
    assert len(instances) == 3 and FORGOTTEN.encode() in everything(clinic)
    for folder in (path.parent for path in clinic.images.glob("*/cache.json")):
        for name in ("crop_sheet.png", "contact_sheet.png"):
            (folder / name).write_bytes(b"a picture that may show one of them")
    done = forget(clinic, KEY, "P1", None)
    assert (done.files, done.images, done.saw) == (3, 3, ())
    left = everything(clinic)
    assert FORGOTTEN.encode() not in left and not any(instance.encode() in left for instance in instances)
    assert b"US OF P1" not in left and b"US OF P2" in left
    assert DICOM_INDEX.read(clinic.tables).num_rows == 6 == IMAGES.read(clinic.tables).num_rows
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"] * 3
    assert not list(clinic.images.rglob("*.png"))


def test_no_later_run_takes_the_patient_in_and_the_tables_stay_as_they_are(clinic, tmp_path):
    forget(clinic, KEY, "P1", None)
    before = tables(clinic)
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert tables(clinic) == before
    write_dicom(tmp_path / "archive" / "new", noise(64, 96, seed=77), PatientID="P1")
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"] * 4
    assert DICOM_INDEX.read(clinic.tables).num_rows == 6


def test_a_patient_can_be_forgotten_before_its_first_file_comes(clinic, tmp_path):
    assert forget(clinic, KEY, "P9", None).files == 0
    write_dicom(tmp_path / "archive" / "new", noise(64, 96, seed=77), PatientID="P9")
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"]


def test_the_number_of_another_issuer_is_another_patient(clinic, tmp_path):
    write_dicom(tmp_path / "archive" / "issued", noise(64, 96, seed=9), PatientID="P1", IssuerOfPatientID="ELSEWHERE")
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert forget(clinic, KEY, "P1", "ELSEWHERE").files == 1
    assert FORGOTTEN in DICOM_INDEX.read(clinic.tables)["patient"].to_pylist()


def test_under_another_key_the_forgotten_are_not_taken_in_unseen(clinic, tmp_path):
    forget(clinic, KEY, "P1", None)
    with pytest.raises(UserError, match="under another pseudonym key"):
        index_folder(tmp_path / "archive", clinic.private, b"another key, long enough")


def test_a_store_that_was_never_filled_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="run the job `ingest` first"):
        forget(Store(tmp_path).open(), KEY, "P1", None)


def command(store: Store, archive: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {
        "SONOTAG_STORE": str(store.root),
        "SONOTAG_ARCHIVE": str(archive),
        "SONOTAG_PSEUDONYM_KEY": KEY.decode(),
    }
    run = [sys.executable, "-m", "pipeline.archive", *arguments]
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=False)


def test_the_command_says_what_it_took_and_never_the_number(clinic, tmp_path):
    record_training_set(clinic.private, "d" * 64, [FORGOTTEN])
    done = command(clinic, tmp_path / "archive", "forget", "P1")
    assert done.returncode == 0, done.stderr
    assert "3 files and 3 cached images" in done.stdout and "No encoder" in done.stdout
    assert "P1" not in done.stdout + done.stderr
