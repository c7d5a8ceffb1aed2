"""The power analysis needs no prediction of a test image."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.downstream.predictions import VALIDATION
from pipeline.evaluation.power_analysis import main
from pipeline.evaluation.results import predictions_by_cell
from pipeline.files import write_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.training.outcome import Outcome
from tests.pipeline.evaluation.conftest import of_seeds, write_models


@pytest.fixture
def store(three_seeds: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with predictions of validation images only, and 40 test patients of the task quality."""
    store = Store(tmp_path / "store").open()
    experiment = store.experiment(three_seeds.name)
    _, validation = of_seeds(three_seeds, {"ce": (2, 4, 5), "ce_dcm_frozen": (7, 6, 5)})
    ran = {cell: Outcome("ran", "", "f") for cell in predictions_by_cell(validation)}
    write_models(experiment, ran, validation, [VALIDATION])
    patients = [f"q{number // 2}" for number in range(80)] + ["a", "b"]
    images = {"patient": patients, "split": ["test"] * 80 + ["train", "val"]}
    write_table(experiment.task_images("quality"), pa.table(images))
    (tmp_path / "tiny.yaml").write_text(json.dumps(three_seeds.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setenv("SONOTAG_STORE", str(store.root))
    monkeypatch.setenv("SONOTAG_RECIPE", str(tmp_path / "tiny.yaml"))
    return store


def test_validation_images_and_counts_of_test_images_are_enough(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list(store.root.rglob("predictions.parquet"))
    assert main() == 0
    printed = capsys.readouterr().out
    quality = [line for line in printed.splitlines() if line.startswith("| ResNet-50 | Quality (accuracy)")]
    assert len(quality) == 2, "a row for each fraction"
    assert all(line.endswith("| 10 (10) | 80 (40) |") and " – |" not in line for line in quality)
    liver = [line for line in printed.splitlines() if line.startswith("| ResNet-50 | Liver kidney (Dice)")]
    assert len(liver) == 2 and all(line.endswith("| – | – | – | – |") for line in liver), "its images are not prepared"


def test_an_unknown_recipe_is_one_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SONOTAG_RECIPE", "nowhere")
    assert main() == 1
    assert capsys.readouterr().err.startswith("No recipe 'nowhere'")
