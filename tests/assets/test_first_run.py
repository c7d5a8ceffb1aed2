"""The first run on an archive without a mapped study description: an empty pool, a warning, and what refuses it."""

import csv
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

from assets.automation import new_patients
from assets.definitions import build_defs
from pipeline.errors import UserError
from pipeline.pretraining.__main__ import main as pretraining_command
from pipeline.recipe import load_recipe
from pipeline.store import Store
from resources.environment import read_environment
from tests.conftest import keys_of
from tests.pipeline.archive.synthetic import write_dicom

pytestmark = pytest.mark.integration

RECIPE = """
name: first
images: {{height: 32, width: 64}}
pretraining: {{backbones: [resnet50], methods: [baseline, ce], epochs: 1, batch_size: 8}}
downstream:
  arms: [baseline, ce]
  tasks:
    quality:
      kind: ordinal
      classes: ["0", "1", "2", "3", "4"]
      manifest: {downstream}/quality.csv
      epochs: 1
      batch_size: 8
      learning_rate: {{resnet50: 0.0001}}
"""
POOL_PARTS = ("pretraining_pool", "pool_labels")


class Clinic:
    """A store, a recipe and a folder of mappings, in which no description is mapped yet."""

    def __init__(self, folder: Path, phantom: Path, archive: Path) -> None:
        self.recipe, self.groups = folder / "first.yaml", folder / "groups"
        self.recipe.write_text(RECIPE.format(downstream=phantom / "downstream"), encoding="utf-8")
        self.groups.mkdir()
        (self.groups / "none.csv").write_text("study_description,groups\n", encoding="utf-8")
        self.variables = {
            "SONOTAG_STORE": str(folder / "store"),
            "SONOTAG_ARCHIVE": str(archive),
            "SONOTAG_STUDY_GROUPS": str(self.groups),
            "SONOTAG_RECIPE": str(self.recipe),
        }
        self.store = Store(folder / "store")

    def run(self, job: str, *assets: str) -> dg.ExecuteInProcessResult:
        definitions = build_defs(read_environment(self.variables))
        keys = keys_of(definitions, *assets) or None
        return definitions.resolve_job_def(job).execute_in_process(
            instance=dg.DagsterInstance.ephemeral(), asset_selection=keys, raise_on_error=False
        )

    def pool_rows(self) -> int:
        return int(pq.read_metadata(self.store.experiment("first").tables / "pretraining_pool.parquet").num_rows)


def check_of(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = (check for check in result.get_asset_check_evaluations() if check.check_name == name)
    return found


def first_failure(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    return str(result.get_step_failure_events()[0].step_failure_data.user_failure_data.description)


@pytest.fixture(scope="module")
def clinic(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    return Clinic(tmp_path_factory.mktemp("first"), phantom, phantom / "archive")


@pytest.fixture(scope="module")
def first(clinic: Clinic) -> dg.ExecuteInProcessResult:
    return clinic.run("ingest")


def test_ingest_succeeds_with_an_empty_pool_and_warns(clinic: Clinic, first: dg.ExecuteInProcessResult) -> None:
    assert first.success and clinic.pool_rows() == 0
    check = check_of(first, "pool_can_train")
    assert not check.passed and not check.blocking and check.severity == dg.AssetCheckSeverity.WARN
    images = pq.read_metadata(clinic.store.experiment("first").tables / "images.parquet").num_rows
    assert all(part in str(check.description) for part in (f"{images} unmapped_description", "SONOTAG_STUDY_GROUPS"))
    assert (clinic.store.private_of("first") / "unmapped_descriptions.csv").is_file()
    blocking = [one for one in first.get_asset_check_evaluations() if one.blocking]
    assert blocking and all(one.passed for one in blocking)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("job", ["pretrain", "finetune"])
def test_training_refuses_an_empty_pool(clinic: Clinic, job: str) -> None:
    assert "no training and no validation image" in first_failure(clinic.run(job))
    assert not list(clinic.store.root.rglob("outcome.json"))


@pytest.mark.usefixtures("first")
def test_the_pretraining_command_refuses_it(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in clinic.variables.items():
        monkeypatch.setenv(name, value)
    assert pretraining_command([]) == 1
    said = capsys.readouterr().err
    assert "no training and no validation image" in said and len(said.splitlines()) == 1


@pytest.mark.usefixtures("first")
def test_the_schedule_skips(clinic: Clinic) -> None:
    with pytest.raises(UserError, match="pool_can_train"):
        new_patients(load_recipe(str(clinic.recipe)), clinic.store)


@pytest.mark.usefixtures("first")
def test_an_empty_pool_is_compared_with_the_tasks_and_described(clinic: Clinic) -> None:
    assert clinic.run("finetune", "quality_images").success
    again = clinic.run("ingest", *POOL_PARTS)
    assert again.success
    assert check_of(again, "no_test_image_in_pool").metadata["shared with quality"].value == 0
    assert clinic.run("report", "dataset_table").success


@pytest.mark.usefixtures("first")
def test_once_the_worklist_is_filled_in_the_pool_trains(clinic: Clinic) -> None:
    with open(clinic.store.private_of("first") / "unmapped_descriptions.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    with open(clinic.groups / "reviewed.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "groups": "chest", "reviewer": "R", "reviewed_on": "2026-11-23"} for row in rows)
    mapped = clinic.run("ingest")
    assert mapped.success and clinic.pool_rows() > 0
    assert check_of(mapped, "pool_can_train").passed
    assert clinic.run("pretrain").success
    assert (clinic.store.experiment("first").encoder("resnet50", "ce", 0) / "encoder.safetensors").is_file()


def test_an_archive_of_which_no_frame_becomes_an_image_gives_tables_without_rows(tmp_path: Path, phantom: Path) -> None:
    for number in range(3):
        black = np.zeros((64, 96), np.uint8)
        write_dicom(tmp_path / "archive" / str(number), black, PatientID=f"P{number}", StudyDescription="US LIVER")
    clinic = Clinic(tmp_path, phantom, tmp_path / "archive")
    result = clinic.run("ingest")
    assert result.success and clinic.pool_rows() == 0
    assert pq.read_metadata(clinic.store.experiment("first").tables / "rejected_frames.parquet").num_rows == 3
    assert "quarantine" in str(check_of(result, "pool_can_train").description)
