"""Results of fine-tuned arms on the test images of each source, for tasks whose manifest states sources."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.downstream.predictions import Cell
from pipeline.evaluation.bootstrap import patient_weights
from pipeline.evaluation.display_names import arm_label, backbone_label, metric_label, percent, task_label
from pipeline.evaluation.document import Section, TextTable
from pipeline.evaluation.frozen_gains import interval
from pipeline.evaluation.metrics import METRICS, image_scores
from pipeline.evaluation.patient_groups import Group, patient_groups
from pipeline.evaluation.results import predictions_by_cell
from pipeline.recipe import Recipe
from pipeline.settings import Backbone

Sources = Mapping[str, Mapping[int, str]]
"""By task, the source of each image by its row in the manifest (`image_id`)."""


def results_by_source_sections(recipe: Recipe, predictions: pa.Table, sources: Sources) -> list[Section]:
    """For each task with `sources` and each backbone the task's own metric: a row per source, a column per arm.

    Only models of the largest fraction count, and only arms with all seeds. A cell holds the mean over seeds and its
    95 % interval over patients.
    """
    found = {cell: rows.sort_by("image_id") for cell, rows in predictions_by_cell(predictions).items()}
    return [
        section
        for task, of_task in sources.items()
        for backbone in recipe.pretraining.backbones
        for section in _sections(recipe, found, task, of_task, backbone)
    ]


def _sections(
    recipe: Recipe, found: Mapping[Cell, pa.Table], task: str, sources: Mapping[int, str], backbone: Backbone
) -> list[Section]:
    columns, fraction = {}, max(recipe.downstream.fractions)
    for arm in recipe.downstream.arms:
        cells = [Cell(recipe.name, backbone, arm, task, fraction, seed) for seed in recipe.downstream.seeds]
        if all(cell in found for cell in cells):
            columns[arm_label(recipe, arm)] = [found[cell] for cell in cells]
    if not columns:
        return []
    images = next(iter(columns.values()))[0]
    patients = images["patient"].to_pylist()
    groups = patient_groups([sources[image] for image in images["image_id"].to_pylist()], patients)
    scores = [np.mean([image_scores(rows) for rows in of_arm], axis=0) for of_arm in columns.values()]
    body = [_row(group, patients, scores) for group in groups]
    metric = metric_label(METRICS[recipe.downstream.tasks[task].kind])
    heading = f"{task_label(task)} by source: {metric}, test images, {backbone_label(backbone)}, {percent(fraction)}"
    table = TextTable(("Source", "Images", "Patients", *columns), body, numbers_from=1)
    return [Section(heading, table)] if body else []


def _row(group: Group, patients: Sequence[str], scores: Sequence[NDArray[np.float64]]) -> tuple[str, ...]:
    own = [patients[image] for image in group.images]
    cells = [_cell(of_arm[list(group.images)], own) if group.is_scored else "–" for of_arm in scores]
    return (group.name, str(len(own)), str(len(set(own))), *cells)


def _cell(scores_N: NDArray[np.float64], patients: Sequence[str]) -> str:
    weights_RN = patient_weights(patients)
    mean, *resampled = weights_RN @ scores_N / weights_RN.sum(1)
    low, high = interval([resampled])
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"
