"""The duration of a training, extrapolated from a few timed steps."""

import time
from itertools import chain, islice, repeat
from typing import TypeVar

import torch

from pipeline.training.loop import Trainer

B = TypeVar("B")
Range = tuple[float, float]
"""Minimum and maximum."""

TIMED_STEPS = 4
TIMED_SECONDS = 20.0
"""After this time no further step is timed."""

# Validating an image takes its forward pass alone: between a sixth and a half of a training step.
_VALIDATION = (1 / 6, 1 / 2)
# Long trainings on a GPU are compiled, timed steps are not; the machine may be busier later.
_FASTER_ON_GPU, _SLOWER = 0.5, 1.3


def time_steps(trainer: Trainer[B]) -> list[float]:
    """Seconds of a few steps of `trainer`, without the first one, which warms up. An epoch has at least one step."""
    seconds: list[float] = []
    started = time.monotonic()
    epochs = (trainer.batches(1, 0) for _ in repeat(None))  # an epoch may have fewer steps than are timed
    for batch in islice(chain.from_iterable(epochs), TIMED_STEPS + 1):
        before = time.monotonic()
        trainer.step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - before)
        if time.monotonic() - started > TIMED_SECONDS and len(seconds) > 1:
            break
    return seconds[1:]


def estimate_hours(seconds: list[float], steps: float, validations: float) -> Range:
    """Hours of `steps` steps that each take one of `seconds`, and of `validations`, counted in batches of a step.

    Minimum: every step as the fastest one, on a GPU half of that. Maximum: every step as the slowest one, times 1.3.
    """
    faster = _FASTER_ON_GPU if torch.cuda.is_available() else 1.0
    return (
        faster * min(seconds) * (steps + _VALIDATION[0] * validations) / 3600,
        _SLOWER * max(seconds) * (steps + _VALIDATION[1] * validations) / 3600,
    )


def format_hours(hours: float) -> str:
    """Hours as text in seconds, minutes or hours."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def format_range(hours: Range) -> str:
    """A range of hours as text."""
    return f"{format_hours(hours[0])} to {format_hours(hours[1])}"


def add_ranges(ranges: list[Range]) -> Range:
    """The range of the sum."""
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)
