"""A user's mistake stops a run early with one sentence that names file and field, and without a traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, TINY_RECIPE, job_environment, run_job

pytestmark = pytest.mark.integration


def sentence_of(job: str, store: Path, **changes: str) -> str:
    """Run a job that must fail by a user's mistake; returns what it said on standard error."""
    done = run_job(job, store, **changes)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Stack Trace" not in done.stderr
    return done.stderr


def assert_nothing_half_written(store: Path) -> None:
    """No table, image or model is in the store, and no temporary file; private records of a scan may be."""
    assert store.is_dir()
    assert not list(store.rglob("*.tmp"))
    made = [path for name in ("*.parquet", "*.safetensors", "*.csv") for path in store.rglob(name)]
    assert not [path for path in made if not path.is_relative_to(store / "private")]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    return path


def test_no_archive(tmp_path: Path) -> None:
    said = sentence_of("ingest", tmp_path / "store", SONOTAG_ARCHIVE=str(tmp_path / "nowhere"))
    assert f"SONOTAG_ARCHIVE {tmp_path / 'nowhere'} does not exist" in said
    assert_nothing_half_written(tmp_path / "store")


def test_an_empty_archive(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = sentence_of("ingest", tmp_path / "store", SONOTAG_ARCHIVE=str(tmp_path / "empty"))
    assert "holds no files" in said
    assert_nothing_half_written(tmp_path / "store")


def test_a_folder_without_one_dicom(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "MUELLER^ANNA.txt").write_text("not a DICOM file")
    said = sentence_of("ingest", tmp_path / "store", SONOTAG_ARCHIVE=str(folder))
    assert "not_dicom" in said
    assert "MUELLER" not in said
    assert_nothing_half_written(tmp_path / "store")


def test_a_recipe_with_a_misspelt_key(tmp_path: Path, recipe: Path) -> None:
    recipe.write_text(TINY_RECIPE.replace("batch_size: 16", "batchsize: 16"))
    said = sentence_of("demo", tmp_path / "store", SONOTAG_RECIPE=str(recipe))
    assert f"Recipe {recipe}: pretraining.batchsize: no such field" in said


def test_a_recipe_that_is_broken_while_the_pages_are_open_is_told_first_in_their_dialog(
    tmp_path: Path, recipe: Path
) -> None:
    recipe.write_text(TINY_RECIPE.replace("batch_size: 16", "batchsize: 16"))
    asked = (
        "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {... on PythonError {message}}}}}}"
    )
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster-graphql"), "--workspace", "workspace.yaml", "--text", asked],
        cwd=ROOT,
        env=job_environment(tmp_path / "store", {"SONOTAG_RECIPE": str(recipe)}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = next(line for line in done.stdout.splitlines() if line.startswith('{"data"'))
    (entry,) = json.loads(answer)["data"]["workspaceOrError"]["locationEntries"]
    said = entry["locationOrLoadError"]["message"]
    assert said.startswith("dagster._core.errors.DagsterInvalidDefinitionError: ")
    assert said.split(": ", 1)[1].strip() == f"Recipe {recipe}: pretraining.batchsize: no such field."


def test_a_mapping_that_names_an_unknown_group(tmp_path: Path, phantom: Path) -> None:
    mapping = tmp_path / "groups.csv"
    mapping.write_text("study_description,groups\nUS BIOPSY LIVER FOCAL,livr\n")
    said = sentence_of(
        "ingest", tmp_path / "store", SONOTAG_ARCHIVE=str(phantom / "archive"), SONOTAG_STUDY_GROUPS=str(mapping)
    )
    assert str(mapping) in said
    assert "line 2" in said
    assert "groups" in said
    assert "livr" not in said  # a cell may hold anything: file, line and field only


@pytest.fixture
def task_set(tmp_path: Path) -> Path:
    """A correct little thyroid set: six patients, one image and mask each, every split."""
    folder = tmp_path / "set"
    folder.mkdir()
    lines = ["image,mask,patient,split"]
    random = np.random.default_rng(0)
    for number, split in enumerate(["train", "train", "train", "val", "test", "test"]):
        Image.fromarray(random.integers(0, 255, (40, 60), dtype=np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(random.integers(0, 2, (40, 60), dtype=np.uint8)).save(folder / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,patient-{number},{split}")
    (folder / "thyroid.csv").write_text("\n".join(lines) + "\n")
    return folder


def finetune(tmp_path: Path, recipe: Path, task_set: Path) -> str:
    """Run `finetune` with `task_set` as the thyroid task and no quality task."""
    text = TINY_RECIPE.replace("${SONOTAG_STORE}/phantom/downstream/thyroid.csv", str(task_set / "thyroid.csv"))
    head, tail = text.split("    quality:")
    recipe.write_text(head + "    thyroid:" + tail.split("    thyroid:")[1])
    said = sentence_of("finetune", tmp_path / "store", SONOTAG_RECIPE=str(recipe))
    assert_nothing_half_written(tmp_path / "store")
    assert not list((tmp_path / "store").rglob("thyroid.parquet"))
    return said


def test_a_manifest_that_is_not_there(tmp_path: Path, recipe: Path, task_set: Path) -> None:
    (task_set / "thyroid.csv").unlink()
    assert str(task_set / "thyroid.csv") in finetune(tmp_path, recipe, task_set)


def test_a_manifest_with_a_missing_file(tmp_path: Path, recipe: Path, task_set: Path) -> None:
    (task_set / "2.png").unlink()
    said = finetune(tmp_path, recipe, task_set)
    assert "thyroid.csv, line 4: image" in said
    assert "2.png" not in said  # a path can name a patient


def test_a_mask_of_another_size_than_its_image(tmp_path: Path, recipe: Path, task_set: Path) -> None:
    Image.fromarray(np.zeros((41, 60), dtype=np.uint8)).save(task_set / "1_mask.png")
    said = finetune(tmp_path, recipe, task_set)
    assert "thyroid.csv, line 3: mask" in said
    assert "1_mask.png" not in said


def test_a_patient_on_both_sides_of_a_manifests_split(tmp_path: Path, recipe: Path, task_set: Path) -> None:
    manifest = task_set / "thyroid.csv"
    manifest.write_text(manifest.read_text().replace("patient-5", "patient-0"))
    said = finetune(tmp_path, recipe, task_set)
    assert "thyroid.csv" in said
    assert "patient" in said
    assert "patient-0" not in said


def test_a_bad_manifest_keeps_the_demo_from_training(tmp_path: Path, recipe: Path, phantom: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    shutil.copytree(phantom / "downstream", store / "phantom" / "downstream")
    (store / "phantom" / "archive").symlink_to(phantom / "archive")
    manifest = store / "phantom" / "downstream" / "thyroid.csv"
    manifest.write_text(manifest.read_text() + "nowhere.png,nowhere_mask.png,X,train\n")
    said = sentence_of("demo", store, SONOTAG_RECIPE=str(recipe))
    assert f"thyroid.csv, line {len(manifest.read_text().splitlines())}: image" in said
    assert "nowhere.png" not in said
    assert not (store / "experiments" / "tiny" / "encoders").exists()
