"""Scores of frozen features on one problem, at several fractions of its training images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.frozen.masks import LinearMasks, mean_dice, mean_masks
from pipeline.frozen.problem import Positions, Problem, Split
from pipeline.frozen.questions import logistic_scores, neighbour_scores
from pipeline.frozen.scores import Score, auc_score, dice_score
from pipeline.representation.features import Features

FRACTIONS: Final = (1.0, 0.25, 0.1, 0.05)
"""Shares of the training images."""
DRAWS: Final = 5
"""Random subsets of each share below 1; all encoders share them."""
AT_LEAST: Final = 8
"""Minimum number of training images."""

NEIGHBOURS, LOGISTIC, MASKS, MEAN_MASK = "nearest neighbours", "logistic regression", "linear masks", "mean mask"
_ANSWERS = {NEIGHBOURS: neighbour_scores, LOGISTIC: logistic_scores}


@dataclass(frozen=True)
class Scored:
    """The score of features on a split of a problem after training on a share of its training images.

    It is the area under the ROC curve, or Dice of masks.
    """

    split: Split
    method: str
    fraction: float
    draws: int
    score: Score


def scores_of(features: Features, problem: Problem) -> list[Scored]:
    """`features`, one row per image of `problem`, scored by each method that its truth allows."""
    return [
        row
        for method in ((MASKS,) if problem.is_segmentation else _ANSWERS)
        for row in _scored(method, features, problem)
    ]


def scores_of_mean_mask(problem: Problem) -> list[Scored]:
    """The control "mean mask" of a segmentation."""
    return list(_scored(MEAN_MASK, None, problem))


def _scored(method: str, features: Features | None, problem: Problem) -> Iterator[Scored]:
    """Fits once per fraction and draw, and scores every split by that fit."""
    ends = np.cumsum([len(asked) for asked in problem.splits.values()])[:-1]
    for fraction in FRACTIONS:
        trains = [problem.fraction(fraction, draw, AT_LEAST) for draw in range(DRAWS if fraction < 1 else 1)]
        answers = [_answers(method, features, problem, train, problem.evaluated) for train in trains]
        by_split = zip(*(np.split(draw, ends) for draw in answers), strict=True)
        for (split, asked), draws in zip(problem.splits.items(), by_split, strict=True):
            yield Scored(split, method, fraction, len(trains), _score(problem, asked, draws))


def _score(problem: Problem, asked: Positions, draws: Sequence[NDArray[np.float64]]) -> Score:
    patients = [problem.patients[position] for position in asked.tolist()]
    if problem.is_segmentation:
        return dice_score(draws, patients)
    return auc_score(problem.targets_NT[asked], draws, patients)


def _answers(
    method: str, features: Features | None, problem: Problem, train: Positions, asked: Positions
) -> NDArray[np.float64]:
    """Dice of each image of `asked`, shape (n,); for questions its scores, shape (n, T)."""
    if features is None:
        return mean_dice(mean_masks(problem, train, asked), problem.masks_NHW[asked], len(problem.names))
    if problem.is_segmentation:
        predicted = LinearMasks(features.maps_NCHW, problem, train).classes(asked)
        return mean_dice(predicted, problem.masks_NHW[asked], len(problem.names))
    return _ANSWERS[method](features.pooled_ND, problem, train, asked)
