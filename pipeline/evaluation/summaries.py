"""Every metric of an arm over its seeds, with its spread over test images and its spread over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pyarrow as pa

from pipeline.evaluation.bootstrap import deviation, resample_indices
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.results import Result, Status, cell_of, predictions_by_cell
from pipeline.evaluation.task_metrics import Metric, on_all_images, task_metrics
from pipeline.recipe import Recipe
from pipeline.recipe.evaluation import Evaluation


@dataclass(frozen=True)
class Summary:
    """One row of the metrics table; the fields, in order, are the columns of metrics_table.csv.

    `mean` is the metric on the whole test set, averaged over the `seeds` that ran; `sd` is the bootstrap standard
    deviation of that average (test images are resampled, seeds are not); `seed_sd` is the standard deviation between
    seeds, None if only one ran. Without a number, `reason` states whether the arm did not run or the metric is
    undefined.
    """

    recipe: str
    backbone: str
    arm: str
    task: str
    fraction: float
    metric: str
    mean: float | None = None
    sd: float | None = None
    seed_sd: float | None = None
    seeds: int = 0
    status: Status = "not run"
    reason: str = ""


def summaries(recipe: Recipe, results: Sequence[Result], predictions: pa.Table) -> list[Summary]:
    """One row per metric of every backbone, arm, task and fraction of `results`, in their order.

    An arm without any seed that ran has a single row, for the task's own metric.
    """
    found = predictions_by_cell(predictions)
    rows: list[Summary] = []
    for key, group in groupby(results, key=lambda r: (r.recipe, r.backbone, r.arm, r.task, r.fraction)):
        seeds = list(group)
        ran = [found[cell_of(result)] for result in seeds if result.status == "ran"]
        first = Summary(*key, metric=seeds[0].metric, status=seeds[0].status, reason=seeds[0].reason)
        rows += _all_metrics(recipe, first, ran) if ran else [first]
    return rows


def own_metric(recipe: Recipe, rows: Sequence[Summary]) -> list[Summary]:
    """The rows of each task's own metric (`METRICS`): one per backbone, arm, task and fraction."""
    return [row for row in rows if row.metric == METRICS[recipe.downstream.tasks[row.task].kind]]


def _all_metrics(recipe: Recipe, first: Summary, ran: Sequence[pa.Table]) -> list[Summary]:
    row = replace(first, seeds=len(ran), status="ran", reason="")
    of_seeds = [task_metrics(predictions, recipe.downstream.tasks[first.task].classes) for predictions in ran]
    images = len(ran[0])
    return [
        _with_spread(replace(row, metric=name), [metrics[name] for metrics in of_seeds], images, recipe.evaluation)
        for name in of_seeds[0]
    ]


def _with_spread(row: Summary, of_seeds: Sequence[Metric], images: int, settings: Evaluation) -> Summary:
    values = np.array([on_all_images(metric, images) for metric in of_seeds])
    if np.isnan(values).any():
        return replace(row, reason="undefined on these test images")
    indices = resample_indices(images, settings)
    resampled = np.mean([metric(indices) for metric in of_seeds], axis=0)
    return replace(
        row,
        mean=float(values.mean()),
        sd=deviation(resampled),
        seed_sd=deviation(values) if len(values) > 1 else None,
    )
