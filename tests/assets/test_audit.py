"""The job `audit` in a small archive: it lists wrong descriptions, and what a reviewer decides is used."""

import csv
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from assets.definitions import build_defs
from pipeline.privacy.identity import pseudonym
from pipeline.store import Store
from pipeline.tables import DOUBTFUL_LABELS, LABEL_CHANGES, weak_labels_table
from resources.archive import Archive
from resources.environment import read_environment
from tests.conftest import plain_bytes
from tests.pipeline.archive.synthetic import write_dicom
from tests.pipeline.labels.test_audit import stripes

pytestmark = pytest.mark.integration

PATIENTS, WRONG = 24, (5, 8)
RECIPE = """
name: tiny
images: {height: 64, width: 96}
pretraining: {backbones: [resnet50], methods: [baseline], epochs: 1}
labels: {sources: [{kind: study_groups, groups: [liver, kidney]}]}
archive: {description_patients: 5}
downstream: {arms: [baseline]}
"""
RARE = "US KIDNEY OF MRS MILLER"


def uid(patient: int) -> str:
    return f"1.2.3.{100 + patient}"


class Clinic:
    """Livers with stripes across the image and kidneys with stripes down it, three images a patient.

    The descriptions of WRONG are those of the other organ.
    """

    def __init__(self, folder: Path) -> None:
        self.mapping, self.store = folder / "groups", Store(folder / "store")
        self.mapping.mkdir()
        groups = f"study_description,groups\nUS LIVER,liver\nUS KIDNEY,kidney\n{RARE},kidney\n"
        (self.mapping / "groups.csv").write_text(groups, encoding="utf-8")
        (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
        for patient in range(PATIENTS):
            is_liver = bool(patient % 2) != (patient in WRONG)
            description = "US LIVER" if is_liver else RARE if patient == WRONG[0] else "US KIDNEY"
            tags = {"PatientID": f"P{patient}", "StudyInstanceUID": uid(patient), "StudyDescription": description}
            for number in range(3):
                pixels = np.kron(stripes(bool(patient % 2), 100 * patient + number), np.ones((3, 3), np.uint8))
                write_dicom(folder / "archive" / f"{patient}-{number}", pixels, **tags)
        variables = {
            "SONOTAG_STORE": str(self.store.root),
            "SONOTAG_ARCHIVE": str(folder / "archive"),
            "SONOTAG_STUDY_GROUPS": str(self.mapping),
            "SONOTAG_RECIPE": str(folder / "tiny.yaml"),
        }
        self.definitions = build_defs(read_environment(variables))
        self.archive = str(folder / "archive")
        self.tables = self.store.experiment("tiny").tables
        self.worklist = self.store.private_of("tiny") / "doubtful_labels.csv"

    def run(self, job: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        job_def = self.definitions.resolve_job_def(job)
        instance = dg.DagsterInstance.ephemeral()
        return job_def.execute_in_process(instance=instance, raise_on_error=raise_on_error)

    def study(self, patient: int) -> str:
        key = Archive(folder=self.archive).key(self.store.private)
        return pseudonym(key, "study", uid(patient))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    return Clinic(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def audited(clinic: Clinic) -> dg.ExecuteInProcessResult:
    assert clinic.run("ingest").success and not clinic.worklist.exists()
    return clinic.run("audit")


def test_the_wrong_descriptions_are_listed_with_pictures(clinic: Clinic, audited: dg.ExecuteInProcessResult) -> None:
    rows = DOUBTFUL_LABELS.read(clinic.tables).to_pylist()
    assert {row["study"] for row in rows} == {clinic.study(patient) for patient in WRONG}
    found = {
        row["study"]: (row["tags_say"], row["pixels_say"], row["images"], row["study_description"]) for row in rows
    }
    assert found[clinic.study(5)] == ("kidney", "liver", 3, None)
    assert found[clinic.study(8)] == ("liver", "kidney", 3, "US LIVER")
    (made,) = audited.get_asset_materialization_events()
    metadata = made.materialization.metadata
    assert metadata["audited studies"].value == PATIENTS and metadata["audited images"].value == 3 * PATIENTS
    assert str(metadata["for the reviewer"].value).count("data:image/png;base64,") == 3 * len(WRONG)


@pytest.mark.usefixtures("audited")
def test_a_rare_description_is_in_the_private_csv_alone(clinic: Clinic) -> None:
    with clinic.worklist.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["study"]: row for row in csv.DictReader(file)}
    assert rows[clinic.study(5)]["study_description"] == RARE
    page = clinic.worklist.with_suffix(".html").read_text(encoding="utf-8")
    assert RARE in page and page.count('src="data:image/jpeg;base64,') == 3 * len(WRONG)
    for path in clinic.store.experiment("tiny").root.rglob("*"):
        assert path.is_dir() or b"MILLER" not in plain_bytes(path), path


@pytest.mark.usefixtures("audited")
def test_what_a_reviewer_decides_is_used_and_leaves_the_list(clinic: Clinic) -> None:
    """Study 5 gets the groups of its pixels; the reviewer has not looked at the other one."""
    text = clinic.worklist.read_text(encoding="utf-8-sig").replace(
        f"{clinic.study(5)},? liver", f"{clinic.study(5)},liver"
    )
    (clinic.mapping / "reviewed.csv").write_text(text, encoding="utf-8")
    assert clinic.run("ingest").success
    changes = LABEL_CHANGES.read(clinic.tables)
    assert [(row["before"], row["after"]) for row in changes.to_pylist()] == [("kidney", "liver")] * 3
    labels = weak_labels_table(("liver", "kidney")).read(clinic.tables)
    assert sum(labels["liver"].to_pylist()) == 3 * (PATIENTS // 2 + 1)
    assert clinic.run("audit").success
    assert DOUBTFUL_LABELS.read(clinic.tables)["study"].to_pylist() == [clinic.study(8)]
