"""Groups of scored images, such as those of one machine or of one source."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pipeline.evaluation.significance import FEWEST_PATIENTS
from pipeline.frozen.problem import Positions, Problem

Grouping = Literal["machine", "source"]
"""What a group's images share."""
GROUPINGS: Final[tuple[Grouping, ...]] = ("machine", "source")
LEFT_OUT: Final = "source left out"
"""A group of one source, none of whose images was among those of the fit."""
NOT_STATED: Final = "not stated"
"""The group of images whose header names no machine."""


@dataclass(frozen=True)
class Group:
    """Images of a split, by their positions in the problem; `is_scored` if they are of `FEWEST_PATIENTS` patients."""

    name: str
    positions: Positions
    is_scored: bool


def groups_of(problem: Problem, by: Grouping, asked: Positions) -> list[Group]:
    """The groups of the images at `asked`, most patients first; none if there is one, or if none would be scored.

    All with fewer than `FEWEST_PATIENTS` patients are one last group without a score, called by their number: an
    interval would mean little, and the name of a machine that few patients saw is not published.
    """
    names = problem.groups.get(by, ())
    found: dict[str, list[int]] = {}
    for position in asked.tolist() if names else ():
        found.setdefault(names[position], []).append(position)
    patients = {name: len({problem.patients[position] for position in of}) for name, of in found.items()}
    ranked = sorted(found, key=lambda name: (-patients[name], name))
    scored = [name for name in ranked if patients[name] >= FEWEST_PATIENTS]
    if len(ranked) < 2 or not scored:
        return []
    small = [position for name in ranked[len(scored) :] for position in found[name]]
    rest = len(ranked) - len(scored)
    others = [Group(f"{rest} other{'s' * (rest > 1)}", np.array(small, np.int64), False)] if small else []
    return [*(Group(name, np.array(found[name], np.int64), True) for name in scored), *others]


def without_source(problem: Problem, source: str) -> Positions:
    """The training images of all other sources."""
    names = problem.groups["source"]
    return np.array([position for position in problem.train.tolist() if names[position] != source], np.int64)
