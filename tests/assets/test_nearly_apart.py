"""Near-duplicates stop a task and fine-tuning, tie patients, and are cleared by a reviewer, in real jobs."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from pipeline.files import read_table
from pipeline.recipe import load_recipe
from tests.assets.test_apart_from_the_pool import ASSET, RECIPE, check_of, job_of, materialize, said
from tests.conftest import table_path
from tests.pipeline.archive.synthetic import write_dicom
from tests.pipeline.cohort.test_near_duplicate_search import cropped, jpeg, scene

pytestmark = pytest.mark.integration

SPLITS = "no_image_in_two_splits"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive, pool and encoder of ten patients, two with nearly the same frame, beside a labelled set of eight."""
    folder = tmp_path_factory.mktemp("nearly")
    for number in range(10):
        frame = jpeg(scene(0, fan=False), 70) if number == 9 else scene(number, fan=False)
        tags = {"StudyDescription": "US THYROID BIOPSY", "TransducerType": "LINEAR", "PatientID": f"P{number}"}
        write_dicom(folder / "archive" / str(number), frame, **tags)
        Image.fromarray(scene(100 + number, fan=False)).save(folder / f"{number}.png")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write_manifest(folder)
    for job in ("ingest", "pretrain"):
        assert job_of(folder, job).execute_in_process(instance=dg.DagsterInstance.ephemeral()).success
    return folder


@pytest.fixture(autouse=True)
def _as_it_was(clinic: Path) -> Iterator[None]:
    yield
    write_manifest(clinic)
    (clinic / "store" / "private" / "not_the_same.csv").unlink(missing_ok=True)


def write_manifest(folder: Path, last: np.ndarray | None = None) -> None:
    """Five images to train on, one to validate on, two to test on; the last one is as given."""
    Image.fromarray(scene(107, fan=False) if last is None else last).save(folder / "7.png")
    sides = ["train"] * 5 + ["val", "test", "test"]
    rows = [f"{number}.png,Q{number},{number % 2},{side}" for number, side in enumerate(sides)]
    (folder / "quality.csv").write_text("\n".join(["image,patient,quality,split", *rows]) + "\n", encoding="utf-8")


def variant(number: int) -> np.ndarray:
    """Of the scene of that number: mirrored, cropped and compressed."""
    return jpeg(np.ascontiguousarray(np.fliplr(cropped(scene(number, fan=False), 0.03, 0.02, 0.01, 0.04))), 60)


def clear(folder: Path, name: str, reviewer: str = "Dr. X", date: str = "2026-05-01") -> None:
    """Fill in the worklist of that name as a reviewer does, and save it under the name that is read."""
    private, recipe = folder / "store" / "private", load_recipe(str(folder / "recipe.yaml")).name
    with (private / "experiments" / recipe / "near_duplicates" / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (private / "not_the_same.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"reviewer": reviewer, "reviewed_on": date} for row in rows)


def images(folder: Path) -> dg.ExecuteInProcessResult:
    return materialize(folder, "quality_images")


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> dg.AssetCheckEvaluation:
    (found,) = [e for e in result.get_asset_check_evaluations() if e.check_name == check]
    return found


def test_a_set_without_near_duplicates_passes_and_is_trained_on(clinic: Path) -> None:
    result = materialize(clinic)
    assert result.success
    assert evaluation(result, SPLITS).passed and check_of(result).passed


def test_a_variant_of_a_training_image_among_the_test_images_stops_the_task_until_it_is_cleared(clinic: Path) -> None:
    write_manifest(clinic, variant(103))
    result = images(clinic)
    assert not result.success
    found = evaluation(result, SPLITS)
    assert (found.passed, found.blocking, found.metadata["pairs"].value) == (False, True, 1)
    (pairs,) = (clinic / "store" / "private" / "experiments").glob("*/near_duplicates")
    sheet = Image.open(pairs / "quality_splits.png")
    assert sheet.height > 200
    clear(clinic, "quality_splits")
    assert images(clinic).success
    assert not (pairs / "quality_splits.csv").exists()


@pytest.mark.parametrize("source", ["val", "train"])
def test_validation_images_are_compared_too(clinic: Path, source: str) -> None:
    write_manifest(clinic)
    Image.fromarray(variant(103 if source == "train" else 107)).save(clinic / "5.png")  # of the validation split
    try:
        assert not images(clinic).success
    finally:
        Image.fromarray(scene(105, fan=False)).save(clinic / "5.png")


def test_a_variant_of_a_pool_image_among_the_test_images_stops_fine_tuning_until_it_is_cleared(clinic: Path) -> None:
    write_manifest(clinic, variant(4))
    result = materialize(clinic)
    assert not result.success
    found = check_of(result)
    assert (found.passed, found.blocking, found.metadata["shared"].value) == (False, True, 1)
    assert "1 of them nearly, pairs " in said(result) and "P4" not in said(result)
    clear(clinic, "quality_pool")
    assert materialize(clinic, ASSET).success


def test_a_row_that_is_not_filled_in_clears_nothing_and_a_wrong_one_is_a_sentence(clinic: Path) -> None:
    write_manifest(clinic, variant(103))
    assert not images(clinic).success
    clear(clinic, "quality_splits", "", "")
    assert not images(clinic).success
    for reviewer, date, field in (
        ("", "2026-05-01", "reviewer"),
        ("Dr. X", "", "reviewed_on"),
        ("X", "May", "reviewed"),
    ):
        clear(clinic, "quality_splits", reviewer, date)
        result = images(clinic)
        (failed,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
        sentence = str(failed.step_failure_data.user_failure_data.description)
        assert "not_the_same.csv, line 2: " in sentence and field in sentence


def test_patients_of_the_archive_with_nearly_the_same_frame_are_on_one_side_until_it_is_cleared(
    clinic: Path, tmp_path: Path
) -> None:
    (pair,) = read_table(table_path(clinic / "store", "near_duplicates")).to_pylist()
    assert pair["likeness"] > 0.85
    sides = dict(
        zip(
            *(read_table(table_path(clinic / "store", "patient_splits"))[n].to_pylist() for n in ("patient", "split")),
            strict=True,
        )
    )
    assert sides[pair["patient"]] == sides[pair["other_patient"]]
    assert images(clinic).success  # whatever a test before has left: a check that is red stops what follows
    folder = shutil.copytree(clinic, tmp_path / "clinic")
    clear(folder, "archive")
    table_path(folder / "store", "patient_splits").unlink()
    result = job_of(folder, "ingest").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    assert result.success
    assert evaluation(result, "no_near_duplicates").passed
    splits = [m for m in result.get_asset_materialization_events() if m.asset_key.path[-1] == "patient_splits"]
    assert splits[0].materialization.metadata["groups of linked patients"].value == 0
