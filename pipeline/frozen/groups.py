"""Machines and sources of a problem's images."""

from typing import Final

import numpy as np

from pipeline.evaluation.patient_groups import Group, patient_groups
from pipeline.frozen.problem import Positions, Problem

MACHINE, SOURCE = "machine", "source"
"""What the images of a group share."""
LEFT_OUT: Final = "source left out"
"""A group of one source, none of whose images was among those of the fit."""
NOT_STATED: Final = "not stated"
"""The machine of images whose header names none."""


def groups_of(problem: Problem, by: str, asked: Positions) -> list[Group]:
    """The groups of the images at `asked`, whose positions are among these; none if they are not known."""
    names = problem.groups.get(by)
    if names is None:
        return []
    return patient_groups(
        [names[position] for position in asked.tolist()], [problem.patients[position] for position in asked.tolist()]
    )


def without_source(problem: Problem, source: str) -> Positions:
    """The training images of all other sources."""
    names = problem.groups[SOURCE]
    return np.array([position for position in problem.train.tolist() if names[position] != source], np.int64)
