"""Scores of frozen features on one problem, at several fractions of its training images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.frozen.groups import LEFT_OUT, MACHINE, SOURCE, groups_of, without_source
from pipeline.frozen.masks import LinearMasks, mean_dice, mean_masks
from pipeline.frozen.problem import Positions, Problem, Split
from pipeline.frozen.questions import logistic_scores, neighbour_scores
from pipeline.frozen.scores import UNDEFINED, Score, auc_score, dice_score
from pipeline.representation.auc import Doubles
from pipeline.representation.features import Features
from pipeline.tables import LOGISTIC, MASKS, MEAN_MASK, NEIGHBOURS

FRACTIONS: Final = (1.0, 0.25, 0.1, 0.05)
"""Shares of the training images."""
DRAWS: Final = 5
"""Random subsets of each share below 1; all encoders share them."""
AT_LEAST: Final = 8
"""Minimum number of training images."""

_ANSWERS = {NEIGHBOURS: neighbour_scores, LOGISTIC: logistic_scores}


@dataclass(frozen=True)
class Scored:
    """The score of features on images of a split after training on a share of the training images of a problem.

    It is the area under the ROC curve, or Dice of masks. The images are all of the split, or those of its group `group`
    by `group_by`; `patients` are those of the images, one each. `questions` are those that count: with both answers.
    """

    split: Split
    method: str
    fraction: float
    draws: int
    patients: tuple[str, ...]
    score: Score
    questions: int | None = None
    group_by: str | None = None
    group: str | None = None


def scores_of(features: Features, problem: Problem) -> list[Scored]:
    """`features`, one row per image of `problem`, scored by each method that its truth allows.

    With all training images also by machine and by source, and on each source after training on the others if the
    problem asks for that.
    """
    methods = (MASKS,) if problem.is_segmentation else tuple(_ANSWERS)
    return [row for method in methods for row in _scored(method, features, problem)]


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
            row = Scored(split, method, fraction, len(trains), **_measured(problem, asked, draws))
            yield row
            if fraction == 1:
                yield from _by_group(row, problem, asked, draws)
    if problem.leave_one_source_out:
        yield from _left_out(method, features, problem)


def _by_group(row: Scored, problem: Problem, asked: Positions, draws: Sequence[Doubles]) -> Iterator[Scored]:
    """The rows of the groups of the images of `row`, those at `asked`, by the same fit."""
    for by in (MACHINE, SOURCE):
        for group in groups_of(problem, by, asked):
            images = np.array(group.images)
            found: dict[str, Any] = {"patients": _patients(problem, asked[images]), "score": UNDEFINED}
            if group.is_scored:
                found = _measured(problem, asked[images], [answers[images] for answers in draws])
            yield replace(row, **{"questions": None, **found}, group_by=by, group=group.name)


def _left_out(method: str, features: Features | None, problem: Problem) -> Iterator[Scored]:
    """The rows of each source after training on the images of all others."""
    for split, asked in problem.splits.items():
        for group in groups_of(problem, SOURCE, asked):
            train, own = without_source(problem, group.name), asked[np.array(group.images)]
            if group.is_scored and len(train) >= AT_LEAST:
                answers = _answers(method, features, problem, train, own)
                learned_T = _have_both_answers(problem.targets_NT[train])
                found = _measured(problem, own, [answers], learned_T)
                yield Scored(split, method, 1.0, 1, **found, group_by=LEFT_OUT, group=group.name)


def _measured(
    problem: Problem, asked: Positions, draws: Sequence[Doubles], counted_T: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """Patients, score and number of questions of the images at `asked`, of those in `counted_T` if it is given."""
    patients = _patients(problem, asked)
    if problem.is_segmentation:
        return {"patients": patients, "score": dice_score(draws, patients)}
    truth_NT = problem.targets_NT[asked]
    if counted_T is not None:
        truth_NT = np.where(counted_T, truth_NT, np.int8(-1))
    questions = int(_have_both_answers(truth_NT).sum())
    return {"patients": patients, "score": auc_score(truth_NT, draws, patients), "questions": questions}


def _patients(problem: Problem, asked: Positions) -> tuple[str, ...]:
    return tuple(problem.patients[position] for position in asked.tolist())


def _have_both_answers(truth_NT: NDArray[np.int8]) -> NDArray[np.bool_]:
    both_T: NDArray[np.bool_] = (truth_NT == 1).any(0) & (truth_NT == 0).any(0)
    return both_T


def _answers(method: str, features: Features | None, problem: Problem, train: Positions, asked: Positions) -> Doubles:
    """Dice of each image of `asked`, shape (n,); for questions its scores, shape (n, T)."""
    if features is None:
        return mean_dice(mean_masks(problem, train, asked), problem.masks_NHW[asked], len(problem.names))
    if problem.is_segmentation:
        predicted = LinearMasks(features.maps_NCHW, problem, train).classes(asked)
        return mean_dice(predicted, problem.masks_NHW[asked], len(problem.names))
    return _ANSWERS[method](features.pooled_ND, problem, train, asked)
