"""How long a training is going to take, from a few of its steps.

Belongs here: trying steps, and reckoning from them. Not here: what is trained; memory and disk (`preflight`).
"""

import time
from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import TypeVar

import torch

from pipeline.training.loop import Trainer

B = TypeVar("B")
Range = tuple[float, float]
"""At least, at most."""

TIMED_STEPS = 4
TIMED_SECONDS = 20.0
"""No further step is tried after so long."""

# Against a step of training, an image of validation costs its forward pass alone: between a sixth and a half of it.
_VALIDATION = (1 / 6, 1 / 2)
# A step of a long training on a GPU is compiled, those tried here are not; a machine may have other work later on.
_FASTER_ON_GPU, _SLOWER = 0.5, 1.3


def time_steps(trainer: Trainer[B]) -> list[float]:
    """Seconds of a few steps; the first one, which sets things up, does not count. An epoch has at least one."""
    seconds: list[float] = []
    started = time.monotonic()
    for batch in islice(_endless(trainer), TIMED_STEPS + 1):
        before = time.monotonic()
        trainer.step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - before)
        if time.monotonic() - started > TIMED_SECONDS and len(seconds) > 1:
            break
    return seconds[1:]


def _endless(trainer: Trainer[B]) -> Iterator[B]:
    """Batches, also of a training that has fewer of them than are tried."""
    return chain.from_iterable(trainer.batches(1, 0) for _ in repeat(None))


def estimate_hours(seconds: list[float], steps: float, validations: float) -> Range:
    """Hours of so many `steps`, of which each took one of `seconds`; `validations` in images, a step's worth of them.

    At least: every step as the fastest one, on a GPU in half the time. At most: as the slowest one, and 1.3 times that.
    """
    faster = _FASTER_ON_GPU if torch.cuda.is_available() else 1.0
    return (
        faster * min(seconds) * (steps + _VALIDATION[0] * validations) / 3600,
        _SLOWER * max(seconds) * (steps + _VALIDATION[1] * validations) / 3600,
    )


def format_hours(hours: float) -> str:
    """Hours as a person reads them."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def format_range(hours: Range) -> str:
    """A range of hours as a person reads it."""
    return f"{format_hours(hours[0])} to {format_hours(hours[1])}"


def add_ranges(ranges: list[Range]) -> Range:
    """One after the other."""
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)
