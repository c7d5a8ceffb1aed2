"""Preflight of a recipe: forecasts of its encoders and of its fine-tuned models, before pretraining starts."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from pipeline.downstream.finetune import FineTuning
from pipeline.downstream.predictions import Cell, cells
from pipeline.downstream.task_images import TaskImages, task_images, training_subset
from pipeline.files import read_table
from pipeline.networks.encoders import build_encoder, save_encoder
from pipeline.pretraining import preflight as pretraining
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.plan import planned_encoders
from pipeline.pretraining.pool import pool_with_pixels
from pipeline.pretraining.top_folders import sources_of
from pipeline.progress import Log
from pipeline.recipe import Recipe
from pipeline.recipe.downstream import Task
from pipeline.store import Store
from pipeline.training.outcome import Outcome
from pipeline.training.preflight import Forecast, Unfinished, forecasts, format_range, total_hours


def preflight(pool: pa.Table, recipe: Recipe, store: Store, log: Log) -> list[Forecast]:
    """Forecasts of all encoders and models of `recipe` that are still to be trained, each logged as it is made.

    `pool` is the table of the pretraining pool. Raises `UserError` as `pool_with_pixels`, and if the pool is too small
    or the disk cannot hold the encoders.
    """
    encoders = planned_encoders(recipe, store.experiment(recipe.name))
    shown, sources = pool_with_pixels(pool, store, recipe), sources_of(pool, store.private)
    found = pretraining.preflight(encoders, shown, sources, log)
    found += forecasts(unfinished_models(recipe, store), log)
    log(f"Preflight: about {format_range(total_hours(found))} for encoders and models, one after the other.")
    return found


def unfinished_models(recipe: Recipe, store: Store) -> Iterator[Unfinished]:
    """The models without an outcome, by task and backbone.

    Tasks whose images are not in the store yet, or do not fill a batch, are skipped.
    """
    experiment = store.experiment(recipe.name)
    for name, task in recipe.downstream.tasks.items():
        if not experiment.task_images(name).is_file():
            continue
        data = task_images(read_table(experiment.task_images(name)), task, recipe.images)
        for backbone in recipe.pretraining.backbones:
            left = [
                cell
                for cell in cells(recipe)
                if (cell.task, cell.backbone) == (name, backbone) and Outcome.read(cell.folder(experiment)) is None
            ]
            if left and len(data.train) >= task.batch_size:
                yield _unfinished(recipe, left, task, data)


def _unfinished(recipe: Recipe, left: list[Cell], task: Task, data: TaskImages) -> Unfinished:
    """The models of the cells `left`, which share backbone and task."""
    one, batch = left[0], task.batch_size
    subsets = [len(training_subset(data, c.task, c.fraction, c.seed, batch)) for c in left]
    return Unfinished(
        f"{one.backbone} {one.task}",
        len(left),
        task.epochs * sum(task.epoch_repeats(images) * (images // batch) for images in subsets),
        len(left) * task.epochs * len(data.val) / batch,
        partial(_trainer, recipe, one, task, data),
    )


def _trainer(recipe: Recipe, cell: Cell, task: Task, data: TaskImages) -> FineTuning:
    """The training of a whole network on all images, from a random encoder; frozen arms take less time."""
    height, width = data.images_NHW.shape[1:]
    whole = replace(cell, arm="baseline", fraction=1.0)
    short = task.model_copy(update={"epochs": 1, "min_steps": 0})
    with TemporaryDirectory() as folder:
        save_encoder(build_encoder(cell.backbone), Path(folder) / ENCODER)
        Preprocessing(cell.backbone, height, width, mean=128.0, sd=64.0).write(Path(folder))
        return FineTuning(whole, short, data, Path(folder), recipe.downstream.precision)
