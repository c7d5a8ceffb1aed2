"""Subsets of images that cover as many patients as possible."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T", bound=Hashable)


def patient_rounds(positions: Sequence[int], patients: Sequence[T], random: torch.Generator) -> list[int]:
    """`positions` of images, shuffled by `random`, one of each patient per round; `patients` has that of each image."""
    remaining: dict[T, list[int]] = {}
    for turn in torch.randperm(len(positions), generator=random).tolist():
        remaining.setdefault(patients[positions[turn]], []).append(positions[turn])
    rounds = sorted((turn, order, p) for order, own in enumerate(remaining.values()) for turn, p in enumerate(own))
    return [position for _, _, position in rounds]
