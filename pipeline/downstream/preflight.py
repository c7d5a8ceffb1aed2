"""Forecast of the duration of fine-tuning from a few timed steps on each task, before pretraining starts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline.downstream.finetune import FineTuning
from pipeline.downstream.predictions import Cell, cells
from pipeline.downstream.task_images import TaskImages, task_images, training_subset
from pipeline.files import read_table
from pipeline.networks.encoders import build_encoder, save_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.progress import Log
from pipeline.recipe import Backbone, Precision, Recipe, Task
from pipeline.store import Store
from pipeline.training.outcome import Outcome
from pipeline.training.timing import Range, estimate_hours, format_range, time_steps


@dataclass(frozen=True)
class Forecast:
    """Number and training time of one backbone's unfinished models on one task."""

    name: str
    models: int
    hours: Range

    def __str__(self) -> str:
        return f"{self.name}: {self.models} models, {format_range(self.hours)}"


def preflight(recipe: Recipe, store: Store, log: Log) -> list[Forecast]:
    """A forecast per backbone and task with unfinished models; logs each one.

    Tasks whose images are not in the store yet, or do not fill a batch, are skipped.
    """
    forecasts = []
    for forecast in _forecasts(recipe, store):
        log(f"Preflight, {forecast}")
        forecasts.append(forecast)
    return forecasts


def _forecasts(recipe: Recipe, store: Store) -> Iterator[Forecast]:
    experiment = store.experiment(recipe.name)
    for name, task in recipe.downstream.tasks.items():
        if not experiment.task_images(name).is_file():
            continue
        data = task_images(read_table(experiment.task_images(name)), task, recipe.images)
        for backbone in recipe.pretraining.backbones:
            left = [
                cell
                for cell in cells(recipe)
                if (cell.task, cell.backbone) == (name, backbone)
                and Outcome.read(experiment.model(backbone, cell.arm, name, cell.fraction, cell.seed)) is None
            ]
            if left and len(data.train) >= task.batch_size:
                yield Forecast(f"{backbone} {name}", len(left), _hours(left, task, data, recipe.downstream.precision))


def _hours(left: list[Cell], task: Task, data: TaskImages, precision: Precision) -> Range:
    """Hours of all cells, by steps of one that trains the whole network; frozen arms take less."""
    with TemporaryDirectory() as folder, torch.random.fork_rng():
        _write_random_encoder(left[0].backbone, data, Path(folder))
        whole = replace(left[0], arm="baseline", fraction=1.0)
        seconds = time_steps(
            FineTuning(whole, task.model_copy(update={"epochs": 1, "min_steps": 0}), data, Path(folder), precision)
        )
    batch = task.batch_size
    subsets = [len(training_subset(data, c.task, c.fraction, c.seed, batch)) for c in left]
    return estimate_hours(
        seconds,
        task.epochs * sum(task.epoch_repeats(images) * (images // batch) for images in subsets),
        len(subsets) * task.epochs * len(data.val) / batch,
    )


def _write_random_encoder(backbone: Backbone, data: TaskImages, folder: Path) -> None:
    save_encoder(build_encoder(backbone), folder / ENCODER)
    height, width = data.images_NHW.shape[1:]
    Preprocessing(backbone, height, width, mean=128.0, sd=64.0).write(folder)
