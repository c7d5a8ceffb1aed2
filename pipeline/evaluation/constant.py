"""The best constant predictor of a task: a model must beat it to have learnt anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.downstream.task_images import TaskImages
from pipeline.evaluation.display_names import arm_label, backbone_label, metric_label, percent, task_label
from pipeline.evaluation.document import TextTable
from pipeline.evaluation.metrics import METRICS, dice
from pipeline.evaluation.results import Result
from pipeline.recipe import Recipe
from pipeline.recipe.downstream import Task

_LEVELS = np.append(np.arange(101) / 100, np.inf)  # shares of the training masks; the last leaves an empty mask


@dataclass(frozen=True)
class Constant:
    """A constant predictor and its score, in [0, 1], on the test images by the task's own metric."""

    task: str
    metric: str
    predictor: str
    score: float


def best_constant(name: str, task: Task, data: TaskImages) -> Constant:
    """The constant predictor that scores best on the training split of the task `name`, scored on its test split.

    Ordinal: the most frequent class (the lowest of ties). Segmentation: for each foreground class, the pixels contained
    in at least a certain share of the training masks, at the share with the best training Dice; classes are fitted
    separately and may overlap, which can only favour the constant.
    """
    metric = METRICS[task.kind]
    train, test = data.truth[data.train].numpy(), data.truth[data.test].numpy()
    if task.kind == "ordinal":
        most_frequent = int(np.bincount(train, minlength=len(task.classes)).argmax())
        return Constant(name, metric, f"class {task.classes[most_frequent]}", float((test == most_frequent).mean()))
    scores = [_best_mask_score(train == value, test == value) for value in range(1, len(task.classes))]
    return Constant(name, metric, "mean training mask", float(np.mean(scores)))


def _best_mask_score(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    """Mean test Dice of `best_mask` of `train`; masks have shape (N, H, W)."""
    return float(_mean_dice(best_mask(train)[None], test)[0])


def best_mask(train: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The constant mask (H, W) with the best mean Dice over the masks `train` (N, H, W): pixels in a share of them."""
    share = train.mean(axis=0)
    candidates = np.stack([share >= level for level in _LEVELS])
    best: NDArray[np.bool_] = candidates[_mean_dice(candidates, train).argmax()]
    return best


def _mean_dice(candidates: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean Dice over the N `truth` masks of each of the L `candidates`, shape (L,)."""
    candidates_LP = candidates.reshape(len(candidates), -1).astype(np.float32)
    truth_NP = truth.reshape(len(truth), -1).astype(np.float32)
    overlap_LN = np.rint(candidates_LP @ truth_NP.T).astype(np.int64)
    sizes_L, sizes_N = candidates_LP.sum(axis=1).astype(np.int64), truth_NP.sum(axis=1).astype(np.int64)
    sizes_LN = np.broadcast_to(sizes_L[:, None], overlap_LN.shape)
    means: NDArray[np.float64] = dice(overlap_LN, sizes_LN, np.broadcast_to(sizes_N, overlap_LN.shape)).mean(axis=1)
    return means


def constant_comparison_table(recipe: Recipe, results: Sequence[Result], constants: Sequence[Constant]) -> TextTable:
    """One row per task, fraction and seed: best constant predictor, best arm, number of arms above the constant."""
    by_task = {constant.task: constant for constant in constants}
    groups: dict[tuple[str, float, int], list[tuple[float, Result]]] = {}
    for result in results:
        if result.mean is not None and result.task in by_task:
            groups.setdefault((result.task, result.fraction, result.seed), []).append((result.mean, result))
    body = [_comparison(recipe, by_task[task], scored) for (task, _, _), scored in groups.items()]
    head = ("Task", "Training images", "Seed", "Metric", "Best constant predictor", "Best arm", "Arms above it")
    return TextTable(head, body, numbers_from=len(head))


def _comparison(recipe: Recipe, constant: Constant, scored: Sequence[tuple[float, Result]]) -> tuple[str, ...]:
    mean, best = max(scored, key=lambda pair: pair[0])
    above = sum(score > constant.score for score, _ in scored)
    return (
        task_label(constant.task),
        percent(best.fraction),
        str(best.seed),
        metric_label(constant.metric),
        f"{constant.score:.3f} ({constant.predictor})",
        f"{mean:.3f} ± {best.sd:.3f} ({backbone_label(best.backbone)} {arm_label(recipe, best.arm)})",
        f"{above} of {len(scored)}",
    )
