"""An archive that grows between two runs of the job `ingest`: sides of the split, equal pixels, the ledger."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import TINY_RECIPE, run_job
from tests.pipeline.archive.synthetic import noise, write_dicom

PATIENTS = 10


def add(archive: Path, name: str, patient: str, seed: int) -> None:
    write_dicom(
        archive / name,
        noise(64, 96, seed=seed),
        PatientID=patient,
        StudyDescription="US THYROID",
        TransducerType="LINEAR",
        StudyInstanceUID=f"1.2.{patient[1:]}",
    )


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder after a first ingest of ten patients with two images each; and each patient's side, by number."""
    folder = tmp_path_factory.mktemp("growing")
    for number in range(2 * PATIENTS):
        add(folder / "archive", f"{number}", f"P{number % PATIENTS}", number)
    mapping = "study_description,groups\nUS THYROID,thyroid\n"
    (folder / "groups.csv").write_text(mapping, encoding="utf-8")
    (folder / "recipe.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    ingest(folder)
    sides = {row["patient"]: row["split"] for row in table(folder, "patient_splits")}
    records = {row["file_id"]: row for row in table(folder, "dicom_index")}
    numbers = {row["file_id"]: Path(row["path"].decode()).name for row in private(folder)}
    return folder, {f"P{int(numbers[f]) % PATIENTS}": sides[row["patient"]] for f, row in records.items()}


def ingest(folder: Path) -> None:
    named = {"ARCHIVE": "archive", "RECIPE": "recipe.yaml", "STUDY_GROUPS": "groups.csv"}
    variables = {f"SONOTAG_{name}": str(folder / file) for name, file in named.items()}
    done = run_job("ingest", folder / "store", **variables)
    assert done.returncode == 0, done.stderr[-3000:]


def table(folder: Path, name: str) -> list[dict]:
    return pq.read_table(folder / "store" / "tables" / f"{name}.parquet").to_pylist()


def private(folder: Path) -> list[dict]:
    return pq.read_table(folder / "store" / "private" / "scan.parquet").to_pylist()


def test_an_image_that_would_link_both_sides_is_rejected_and_nothing_is_lost(clinic: tuple) -> None:
    folder, sides = clinic
    train = next(patient for patient, side in sides.items() if side == "train")
    val = next(patient for patient, side in sides.items() if side == "val")
    before = {row["patient"]: row["split"] for row in table(folder, "patient_splits")}
    add(folder / "archive", "linking", val, int(train[1:]))  # the pixels of the training patient's first image
    add(folder / "archive", "new patient", "P77", int(val[1:]))  # the pixels of the validation patient's first image
    add(folder / "archive", "repeat", train, int(train[1:]))  # its own pixels again: no harm
    ingest(folder)
    (rejected,) = table(folder, "quarantine")
    ids = {row["file_id"]: Path(row["path"].decode()).name for row in private(folder)}
    assert (rejected["level"], rejected["reason"]) == ("frame", "duplicate_across_split")
    assert ids[rejected["id"].partition(":")[0]] == "linking"
    assert len(table(folder, "images")) == 2 * PATIENTS + 2
    after = {row["patient"]: row["split"] for row in table(folder, "patient_splits")}
    assert before.items() <= after.items()
    (new,) = after.keys() - before.keys()
    assert after[new] == "val"
    pool = table(folder, "pretraining_pool")
    pictures = {side: {row["source_digest"] for row in pool if row["split"] == side} for side in ("train", "val")}
    assert pictures["train"] and pictures["val"] and not pictures["train"] & pictures["val"]


def test_the_decision_stands_in_the_next_run(clinic: tuple) -> None:
    folder, _ = clinic
    names = ("dicom_index", "images", "quarantine", "patient_splits", "pretraining_pool")
    before = {name: table(folder, name) for name in names}
    ingest(folder)
    assert {name: table(folder, name) for name in names} == before
