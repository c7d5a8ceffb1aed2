"""An archive that grows between two runs of the job `ingest`: sides of the split, equal pixels, the ledger."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.store import Store
from pipeline.tables import image_digest
from tests.conftest import TINY_RECIPE, run_job, table_path
from tests.pipeline.archive.synthetic import noise, write_dicom

pytestmark = pytest.mark.integration

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


def ingest(folder: Path) -> str:
    """Run the job, and return what it logged."""
    named = {"ARCHIVE": "archive", "RECIPE": "recipe.yaml", "STUDY_GROUPS": "groups.csv"}
    variables = {f"SONOTAG_{name}": str(folder / file) for name, file in named.items()}
    done = run_job("ingest", folder / "store", **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def table(folder: Path, name: str) -> list[dict]:
    return pq.read_table(table_path(folder / "store", name)).to_pylist()


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


def test_a_study_that_joins_both_sides_goes_to_val_and_encoders_that_trained_on_it_are_named(clinic: tuple) -> None:
    folder, sides = clinic
    store = Store(folder / "store")
    train, val = (next(patient for patient, side in sides.items() if side == wanted) for wanted in ("train", "val"))
    numbers = {Path(row["path"].decode()).name: row["patient"] for row in private(folder)}
    people = [numbers[patient[1:]] for patient in (train, val)]
    before = {row["patient"]: row["split"] for row in table(folder, "patient_splits")}
    assert [before[patient] for patient in people] == ["train", "val"]
    encoder = store.experiment("tiny").encoder("resnet50", "ce", 0)
    encoder.mkdir(parents=True)
    (encoder / "encoder.safetensors").touch()
    digest = image_digest(pq.read_table(table_path(store.root, "pretraining_pool")))
    (encoder / "model_card.md").write_text(f"- digest of images and split: {digest}\n")
    write_dicom(
        folder / "archive" / "capture",
        noise(64, 96, seed=901),
        PatientID=train,
        StudyDescription="US THYROID",
        TransducerType="LINEAR",
        StudyInstanceUID=f"1.2.{val[1:]}",
    )
    said = ingest(folder)
    after = {row["patient"]: row["split"] for row in table(folder, "patient_splits")}
    moved = {patient for patient in before if before[patient] != after[patient]}
    assert people[0] in moved and {after[patient] for patient in {*people, *moved}} == {"val"}
    (warning,) = [line for line in said.splitlines() if "encoders_kept_validation_apart" in line]
    assert "(warn)" in warning and encoder.relative_to(store.root).as_posix() in warning
    assert any("no_patient_on_both_sides passed" in line for line in said.splitlines())
    assert image_digest(pq.read_table(table_path(store.root, "pretraining_pool"))) != digest
