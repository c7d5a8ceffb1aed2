"""Processor time to score a frozen encoder on a task, beside that to fine-tune one model of that task."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.measure import REPEATS, Figure
from pipeline.downstream.finetune import finetune
from pipeline.downstream.predictions import Cell
from pipeline.downstream.task_images import TaskImages, task_images
from pipeline.frozen.problem import problem_of_task
from pipeline.frozen.table import encoder_scores
from pipeline.networks.encoders import build_encoder, save_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.progress import silent
from pipeline.recipe import load_recipe
from pipeline.recipe.downstream import Task
from pipeline.tasks.manifests import read_manifest
from pipeline.training.outcome import Outcome

_BACKBONE = "resnet50"


def figures(clinic: Path, work: Path) -> Iterator[Figure]:
    """A figure per task of the recipe `demo`, whose images are those of the phantom `clinic`."""
    recipe = load_recipe("demo", {"SONOTAG_STORE": str(clinic.parent)})
    encoder = work / "encoder"
    write_encoder(encoder, recipe.images.height, recipe.images.width)
    for name, declared in recipe.downstream.tasks.items():
        task = declared.model_copy(update={"learning_rate": {_BACKBONE: 0.0005}})
        data = task_images(read_manifest(name, task, recipe.images, str), task, recipe.images)
        yield figure(name, task, data, encoder, work / name)


def write_encoder(folder: Path, height: int, width: int) -> None:
    """A ResNet-50 with random weights: neither side depends on their values."""
    save_encoder(build_encoder(_BACKBONE), folder / ENCODER)
    Preprocessing(_BACKBONE, height, width, mean=80.0, sd=50.0).write(folder)
    Outcome("ran", "", "random").write(folder)


def figure(name: str, task: Task, data: TaskImages, encoder: Path, work: Path, repeats: int = REPEATS) -> Figure:
    """The ratio of the medians of alternating runs: fine-tuning on all training images, and scoring at every share."""
    problem, cell = problem_of_task(name, task, data), Cell("benchmark", _BACKBONE, "ce", name, 1.0, 0)
    frozen, tuned = [], []
    for number in range(repeats):
        frozen.append(_seconds(partial(encoder_scores, encoder, problem)))
        folder = work / f"{number}"
        tuned.append(_seconds(partial(finetune, cell, task, data, encoder, folder, silent, lambda epoch, values: None)))
    ours, theirs = statistics.median(frozen), statistics.median(tuned)
    counts = f"{len(data.train)} training images of {len(problem.images_NHW)}, {task.epochs} epochs of fine-tuning"
    return Figure(f"{name} ({counts})", f"{theirs / ours:.1f}× ({ours:.1f} s against {theirs:.1f} s)")


def _seconds(run: Callable[[], object]) -> float:
    """Of the processor, which do not include waiting on a busy machine."""
    began = time.process_time()
    run()
    return time.process_time() - began
