"""Preflight of fine-tuning: models and hours left; and of a whole recipe."""

from pathlib import Path

import pytest

from pipeline.downstream.predictions import cells
from pipeline.downstream.preflight import unfinished_models
from pipeline.files import write_table
from pipeline.progress import Log, silent
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.training import preflight as training_preflight
from pipeline.training.outcome import Outcome
from pipeline.training.preflight import Forecast, forecasts
from tests.pipeline.downstream.conftest import SPLITS, table, task


def recipe(epochs: int = 3) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "small",
            "images": {"height": 32, "width": 64},
            "pretraining": {"backbones": ["resnet50"], "methods": ["baseline", "ce"]},
            "downstream": {
                "arms": ["baseline", "ce"],
                "fractions": [1.0, 0.5],
                "tasks": {kind: task(kind, epochs).model_dump() for kind in ("ordinal", "segmentation")},
            },
        }
    )


def preflight(recipe: Recipe, store: Store, log: Log) -> list[Forecast]:
    return forecasts(unfinished_models(recipe, store), log)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the images of one task of two: 12 for training, 4 for validation."""
    made = Store(tmp_path / "store")
    write_table(made.experiment("small").task_images("ordinal"), table("ordinal"))
    return made


def test_models_of_all_arms_and_fractions_count_and_a_task_without_images_does_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_preflight, "time_steps", lambda training: [1.0, 2.0])
    said: list[str] = []
    (forecast,) = preflight(recipe(), store, said.append)
    assert (forecast.name, forecast.models) == ("resnet50 ordinal", 4)
    # Two arms; of 12 images three batches of 4 an epoch, of half of them one; each epoch validates a batch's worth.
    steps, validations = 3 * 2 * (3 + 1), 3 * 4 * 1
    assert forecast.hours == pytest.approx(((steps + validations / 6) / 3600, 2.6 * (steps + validations / 2) / 3600))
    assert said == [f"Preflight, {forecast}"]


def test_models_of_few_images_train_for_the_steps_that_the_task_requires(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_preflight, "time_steps", lambda training: [1.0])
    settings = recipe().model_dump()
    settings["downstream"]["tasks"]["ordinal"]["min_steps"] = 7
    del settings["evaluation"]["comparisons"]
    (forecast,) = preflight(Recipe.model_validate(settings), store, silent)
    # Two arms, three epochs. Of 12 images a pass of three batches, of 6 three of one; each epoch validates a batch.
    steps, validations = 2 * 3 * (3 + 3 * 1), 2 * 3 * (1 + 1)
    assert forecast.hours == pytest.approx(((steps + validations / 6) / 3600, 1.3 * (steps + validations / 2) / 3600))


def test_models_that_are_there_do_not_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_preflight, "time_steps", lambda training: [1.0])
    done, *others = [cell for cell in cells(recipe()) if cell.task == "ordinal"]
    for cell in [done]:
        Outcome("ran", "", "x").write(store.experiment("small").model("resnet50", cell.arm, "ordinal", 1.0, 0))
    assert [forecast.models for forecast in preflight(recipe(), store, silent)] == [len(others)]
    for cell in others:
        folder = store.experiment("small").model("resnet50", cell.arm, "ordinal", cell.fraction, cell.seed)
        Outcome("diverged", "why", "x").write(folder)
    assert preflight(recipe(), store, silent) == []


@pytest.mark.integration
def test_real_steps_are_tried_and_nothing_is_left_behind(store: Store) -> None:
    write_table(store.experiment("small").task_images("segmentation"), table("segmentation"))
    found = preflight(recipe(), store, silent)
    assert [forecast.name for forecast in found] == ["resnet50 ordinal", "resnet50 segmentation"]
    assert all(0 < forecast.hours[0] < forecast.hours[1] for forecast in found)
    assert sorted(path.name for path in store.root.rglob("*.*")) == ["ordinal.parquet", "segmentation.parquet"]


def test_too_few_images_for_a_batch_are_left_to_fine_tuning_to_refuse(store: Store) -> None:
    write_table(store.experiment("small").task_images("ordinal"), table("ordinal", ["train"] * 3 + SPLITS[12:]))
    assert preflight(recipe(), store, silent) == []
