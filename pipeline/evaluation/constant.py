"""The best constant predictor of a task: what a model must beat to have learnt anything.

Belongs here: predictors that ignore the image, fitted on the training split. Not here: trained models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.downstream.task_images import TaskImages
from pipeline.evaluation.metrics import METRICS, dice
from pipeline.recipe import Task

_LEVELS = np.append(np.arange(101) / 100, np.inf)  # shares of the training masks; the last leaves an empty mask


@dataclass(frozen=True)
class Constant:
    """A constant predictor and its score in [0, 1] on the test images, by the metric of the task."""

    task: str
    metric: str
    predictor: str
    score: float


def best_constant(name: str, task: Task, data: TaskImages) -> Constant:
    """The constant that scores best on the training split of the task called `name`, scored on its test split.

    Ordinal: the commonest class (the lowest of equals). Segmentation: for each foreground class the pixels that at
    least a certain share of the training masks hold, at the share with the best training Dice; classes are fitted one
    by one and may overlap, which can only favour the constant.
    """
    metric = METRICS[task.kind]
    train, test = data.truth[data.train].numpy(), data.truth[data.test].numpy()
    if task.kind == "ordinal":
        commonest = int(np.bincount(train, minlength=len(task.classes)).argmax())
        return Constant(name, metric, f"class {task.classes[commonest]}", float((test == commonest).mean()))
    scores = [_best_mask_score(train == value, test == value) for value in range(1, len(task.classes))]
    return Constant(name, metric, "mean training mask", float(np.mean(scores)))


def _best_mask_score(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    """Mean test Dice of the constant mask with the best mean training Dice; masks are (N, H, W)."""
    share = train.mean(axis=0)
    candidates = np.stack([share >= level for level in _LEVELS])
    best = candidates[_mean_dice(candidates, train).argmax()]
    return float(_mean_dice(best[None], test)[0])


def _mean_dice(candidates: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean Dice over the N `truth` masks of each of the L `candidates`, shape (L,)."""
    candidates_LP = candidates.reshape(len(candidates), -1).astype(np.float32)
    truth_NP = truth.reshape(len(truth), -1).astype(np.float32)
    overlap_LN = np.rint(candidates_LP @ truth_NP.T).astype(np.int64)
    sizes_L, sizes_N = candidates_LP.sum(axis=1).astype(np.int64), truth_NP.sum(axis=1).astype(np.int64)
    sizes_LN = np.broadcast_to(sizes_L[:, None], overlap_LN.shape)
    means: NDArray[np.float64] = dice(overlap_LN, sizes_LN, np.broadcast_to(sizes_N, overlap_LN.shape)).mean(axis=1)
    return means
