"""Erasing a patient from every table and cache, for good, and listing the networks exposed to the patient."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread
from time import sleep

import pyarrow as pa
import pytest

from pipeline.archive.erase import erase_patient
from pipeline.errors import UserError
from pipeline.files import read_table, write_json, write_table
from pipeline.locks import archive_lock, hold_lock
from pipeline.privacy.erasure_list import ErasureList
from pipeline.privacy.identity import key_check, pseudonym
from pipeline.privacy.training_exposure import record_training_set
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES, PATIENT_SPLITS, QUARANTINE, REJECTED_FILES
from tests.pipeline.archive import ingest
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom

pytestmark = pytest.mark.integration

FORGOTTEN = pseudonym(KEY, "patient", "P1")


def study(uid: str) -> dict[str, str]:
    """A study of one series."""
    return {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1"}


@pytest.fixture
def clinic(tmp_path):
    """A store with the index and cache of nine images of three patients."""
    for number in range(9):
        write_dicom(
            tmp_path / "archive" / f"{number}",
            noise(64, 96, seed=number),
            PatientID=f"P{number % 3}",
            **study(f"1.2.{number % 3 + 1}"),
            StudyDescription=f"US OF P{number % 3}",
        )
    ingest.main(str(tmp_path / "archive"), str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    patients = sorted(set(DICOM_INDEX.read(store.tables)["patient"].to_pylist()))
    PATIENT_SPLITS.write(store.tables, pa.table({"patient": patients, "split": ["train"] * len(patients)}))
    QUARANTINE.write(store.experiment("demo").tables, REJECTED_FILES.read(store.tables))
    return store


def everything(store: Store) -> bytes:
    """All text of all tables and shards, except the erasure list."""
    paths = [path for path in store.root.rglob("*.parquet") if "training_sets" not in path.parts]
    return json.dumps([read_table(path).to_pylist() for path in paths], default=str).encode()


def tables(store: Store) -> dict[str, list[dict]]:
    """All rows of all tables, without positions in the cache, which the next ingest renews."""
    read = {path.name: read_table(path) for path in store.root.glob("**/tables/*.parquet")}
    return {n: t.drop_columns([c for c in ("position",) if c in t.column_names]).to_pylist() for n, t in read.items()}


def test_nothing_of_the_patient_is_left_and_no_file_is_lost(clinic):
    instances = [r["sop_instance"] for r in DICOM_INDEX.read(clinic.tables).to_pylist() if r["patient"] == FORGOTTEN]
    assert len(instances) == 3 and FORGOTTEN.encode() in everything(clinic)
    for folder in (path.parent for path in clinic.images.glob("*/cache.json")):
        for name in ("crop_sheet.png", "contact_sheet.png"):
            (folder / name).write_bytes(b"a picture that may show one of them")
    drawn = clinic.experiment("demo").tables / "contact_sheet.png", clinic.private_of("demo") / "near_duplicates/a.png"
    for path in drawn:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a picture that may show one of them")
    done = erase_patient(clinic, KEY, "P1", None)
    assert (done.files, done.images, done.exposed_models) == (3, 3, ())
    left = everything(clinic)
    assert FORGOTTEN.encode() not in left and not any(instance.encode() in left for instance in instances)
    assert b"US OF P1" not in left and b"US OF P2" in left
    assert DICOM_INDEX.read(clinic.tables).num_rows == 6 == IMAGES.read(clinic.experiment("demo").tables).num_rows
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"] * 3
    assert not list(clinic.root.rglob("*.png"))


def test_later_runs_do_not_read_the_patient_and_keep_the_tables(clinic, tmp_path):
    erase_patient(clinic, KEY, "P1", None)
    before = tables(clinic)
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert tables(clinic) == before
    write_dicom(tmp_path / "archive" / "new", noise(64, 96, seed=77), PatientID="P1")
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"] * 4
    assert DICOM_INDEX.read(clinic.tables).num_rows == 6


@pytest.mark.parametrize("number", ["P9", "P", "0P1", "1"])
def test_an_unknown_number_raises_a_user_error_and_changes_nothing(clinic, number):
    before = tables(clinic)
    with pytest.raises(UserError, match="No such patient") as raised:
        erase_patient(clinic, KEY, number, None)
    assert number not in str(raised.value).replace("PatientID", "").replace("No such patient", "")
    assert tables(clinic) == before and not (clinic.private / "forgotten.json").exists()


def test_a_number_that_occurs_under_issuers_alone_names_them(clinic, tmp_path):
    for place, issuer in (("north", "NORTH"), ("south", "SOUTH")):
        write_dicom(
            tmp_path / "archive" / place,
            noise(64, 96),
            PatientID="7777",
            IssuerOfPatientID=issuer,
            **study(f"1.9{ord(place[0])}"),
        )
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    for issuer in (None, "WEST"):
        with pytest.raises(UserError, match="--issuer 'NORTH', --issuer 'SOUTH'"):
            erase_patient(clinic, KEY, "7777", issuer)
    with pytest.raises(UserError, match="with: no --issuer"):
        erase_patient(clinic, KEY, "P1", "WEST")
    with pytest.raises(UserError, match="spelling"):
        erase_patient(clinic, KEY, "p1", None)
    assert erase_patient(clinic, KEY, "7777", "SOUTH").files == 1


def test_the_number_of_another_issuer_is_another_patient(clinic, tmp_path):
    write_dicom(
        tmp_path / "archive" / "issued",
        noise(64, 96, seed=9),
        PatientID="P1",
        IssuerOfPatientID="ELSEWHERE",
        **study("1.2.9"),
    )
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert erase_patient(clinic, KEY, "P1", "ELSEWHERE").files == 1
    assert FORGOTTEN in DICOM_INDEX.read(clinic.tables)["patient"].to_pylist()


NAMED_IN_THREE_WAYS = (
    {"PatientID": "0000001"},
    {"PatientID": "0000001", "IssuerOfPatientID": "HOSP"},
    {"PatientID": None},
    {"PatientID": None, "StudyInstanceUID": None},
)


def add_files(folder: Path, *files: dict[str, str | None]) -> None:
    for fields in files:
        name = f"added{len(list(folder.iterdir()))}"
        seed = 100 + len(list(folder.iterdir()))
        write_dicom(folder / name, noise(64, 96, seed=seed), **({"StudyDescription": "US ADDED"} | fields))


@pytest.mark.parametrize("issuer", [None, "HOSP"])
def test_the_patients_other_pseudonyms_are_erased_and_other_numbers_listed(clinic, tmp_path, issuer):
    archive = tmp_path / "archive"
    of_study = [study("1.2.77") | names for names in NAMED_IN_THREE_WAYS]
    elsewhere = study("1.2.78") | {"PatientID": "0000001", "IssuerOfPatientID": "HOSP"}  # tied through the number
    mixed_up = study("1.2.77") | {"PatientID": "ANOTHER"}
    add_files(archive, *of_study, elsewhere, mixed_up, study("1.2.79") | {"PatientID": "ANOTHER"})
    ingest.main(str(archive), str(clinic.root))
    assert DICOM_INDEX.read(clinic.tables).num_rows == 9 + 7
    done = erase_patient(clinic, KEY, "0000001", issuer)
    assert (done.files, len(done.other_patients_files), done.images) == (5, 1, 5)
    assert DICOM_INDEX.read(clinic.tables).num_rows == 9 + 2 == IMAGES.read(clinic.experiment("demo").tables).num_rows
    another = pseudonym(KEY, "patient", "ANOTHER")
    assert another in {
        r["patient"] for r in DICOM_INDEX.read(clinic.tables).to_pylist() if r["file_id"] in done.other_patients_files
    }
    ingest.main(str(archive), str(clinic.root))
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"] * 5
    add_files(archive, *of_study, elsewhere)
    ingest.main(str(archive), str(clinic.root))
    assert REJECTED_FILES.read(clinic.tables)["reason"].to_pylist() == ["forgotten"] * 10


def test_a_study_that_later_turns_out_to_be_an_erased_patients_is_erased(clinic, tmp_path):
    archive = tmp_path / "archive"
    add_files(archive, study("1.2.55") | {"PatientID": None})
    ingest.main(str(archive), str(clinic.root))
    captured = pseudonym(KEY, "patient", "study\\1.2.55")
    patients = [captured, *PATIENT_SPLITS.read(clinic.tables)["patient"].to_pylist()]
    PATIENT_SPLITS.write(clinic.tables, pa.table({"patient": patients, "split": ["val"] * 4}))
    erase_patient(clinic, KEY, "P1", None)
    assert DICOM_INDEX.read(clinic.tables).num_rows == 7
    add_files(archive, study("1.2.55") | {"PatientID": "P1"})
    ingest.main(str(archive), str(clinic.root))
    assert DICOM_INDEX.read(clinic.tables).num_rows == 6 == IMAGES.read(clinic.experiment("demo").tables).num_rows
    assert captured.encode() not in everything(clinic)
    assert PATIENT_SPLITS.read(clinic.tables).num_rows == 2


def test_a_touched_file_of_the_patient_leaves_nothing_in_the_private_folder(clinic, tmp_path):
    instances = [r["sop_instance"] for r in DICOM_INDEX.read(clinic.tables).to_pylist() if r["patient"] == FORGOTTEN]
    erase_patient(clinic, KEY, "P1", None)
    for path in (tmp_path / "archive").iterdir():
        os.utime(path)
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    left = everything(clinic)
    assert FORGOTTEN.encode() not in left and b"US OF P1" not in left and b"US OF P2" in left
    assert not any(instance.encode() in left for instance in instances)
    known = read_table(clinic.private / "scan.parquet").to_pylist()
    assert [row["patient"] for row in known if row["reason"] == "forgotten"] == [None] * 3


def test_the_journal_of_a_killed_run_is_cleared_too(clinic):
    journal = clinic.private / "scan" / "000000.parquet"
    journal.parent.mkdir()
    shutil.copy(clinic.private / "scan.parquet", journal)
    erase_patient(clinic, KEY, "P1", None)
    assert FORGOTTEN.encode() not in json.dumps(read_table(journal).to_pylist(), default=str).encode()


def test_the_next_run_completes_a_killed_erasure(clinic, tmp_path):
    ErasureList(clinic.private, key_check(KEY)).add([FORGOTTEN])
    rows = pa.table({"sop_instance": DICOM_INDEX.read(clinic.tables)["sop_instance"]})
    labels = [clinic.experiment(recipe).tables / "label_changes.parquet" for recipe in ("demo", "another")]
    for path in labels:
        write_table(path, rows)
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert FORGOTTEN.encode() not in everything(clinic)
    assert [*(read_table(path).num_rows for path in labels), DICOM_INDEX.read(clinic.tables).num_rows] == [6, 6, 6]


def test_a_list_of_the_first_version_still_works(clinic, tmp_path):
    write_json(clinic.private / "forgotten.json", {"key": key_check(KEY), "patients": [FORGOTTEN]})
    ingest.main(str(tmp_path / "archive"), str(clinic.root))
    assert FORGOTTEN.encode() not in everything(clinic)


def test_the_worklist_that_may_quote_the_patients_description_is_deleted(clinic):
    clinic.private_of("demo").mkdir(parents=True)
    (clinic.private_of("demo") / "unmapped_descriptions.csv").write_text("study_description\nUS OF P1\n")
    (clinic.private_of("demo") / "unmapped_probes.csv").write_text("name\nPROBE OF P1\n")
    for page in ("unmapped_descriptions.html", "unmapped_probes.html"):
        (clinic.private_of("demo") / page).write_text("pictures of P1")
    erase_patient(clinic, KEY, "P1", None)
    assert not list(clinic.private.rglob("*.csv")) and not list(clinic.private.rglob("*.html"))


def test_erasing_waits_for_a_run_that_reads_the_archive_and_logs_it(clinic):
    lines: list[str] = []
    with archive_lock(clinic, lines.append):
        waiting = Thread(target=erase_patient, args=(clinic, KEY, "P1", None, lines.append))
        waiting.start()
        while not lines:
            sleep(0.01)
        assert FORGOTTEN.encode() in everything(clinic)
    waiting.join(60)
    assert FORGOTTEN.encode() not in everything(clinic) and len(lines) == 1


def test_a_training_blocks_erasing(clinic):
    with hold_lock(clinic.locks / "training.lock", print, ""), pytest.raises(UserError, match="training"):
        erase_patient(clinic, KEY, "P1", None)
    assert FORGOTTEN.encode() in everything(clinic)


def test_an_erasure_list_of_another_key_stops_the_index(clinic, tmp_path):
    erase_patient(clinic, KEY, "P1", None)
    with pytest.raises(UserError, match=r"forgotten.json.*pseudonym key"):
        index_folder(tmp_path / "archive", clinic.private, b"another key, long enough")


def test_erasing_from_an_empty_store_raises_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"scan.parquet.*`ingest`"):
        erase_patient(Store(tmp_path).open(), KEY, "P1", None)


def command(store: Store, archive: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {
        "SONOTAG_STORE": str(store.root),
        "SONOTAG_ARCHIVE": str(archive),
        "SONOTAG_PSEUDONYM_KEY": KEY.decode(),
    }
    run = [sys.executable, "-m", "pipeline.archive", *arguments]
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=False)


def test_the_command_prints_counts_and_never_the_number(clinic, tmp_path):
    record_training_set(clinic.private, "d" * 64, [FORGOTTEN])
    done = command(clinic, tmp_path / "archive", "forget", "P1")
    assert done.returncode == 0, done.stderr
    assert "3 files and 3 cached images" in done.stdout and "No encoder" in done.stdout
    assert "P1" not in done.stdout + done.stderr
    unknown = command(clinic, tmp_path / "archive", "forget", "1")
    assert unknown.returncode == 1 and "No such patient" in unknown.stderr and not unknown.stdout
