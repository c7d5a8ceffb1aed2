"""Forecasts of trainings, extrapolated from a few timed steps: hours, memory and disk."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any, TypeVar

import torch

from pipeline.progress import Log
from pipeline.training.device import configure_backends, training_device
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


@dataclass(frozen=True)
class Unfinished:
    """Models of one kind that are still to be trained: an encoder, or a backbone's models on one task."""

    name: str
    models: int
    steps: int
    """Training steps left, over all models."""
    validations: float
    """Validation passes left, over all models, in batches of a step."""
    trainer: Callable[[], Trainer[Any]]
    """Starts the training of one model; called once, to time its steps."""


@dataclass(frozen=True)
class Forecast:
    """What unfinished models still take; sizes in bytes, a range is (minimum, maximum)."""

    name: str
    models: int
    steps: int
    step_seconds: Range
    hours: Range
    memory: int
    """Peak memory of this process, with the images."""
    gpu_memory: int
    """Peak GPU memory of the steps; 0 without a GPU."""
    weights: int
    """Files that stay on disk; an encoder is stored twice (safetensors and ONNX)."""
    checkpoints: int
    """Two checkpoints, during training."""

    def __str__(self) -> str:
        models = f"{self.models} models, " if self.models > 1 else ""
        steps = f"{self.steps} steps of {self.step_seconds[0]:.2g} to {self.step_seconds[1]:.2g} s"
        gpu = f", {format_size(self.gpu_memory)} of GPU memory" if self.gpu_memory else ""
        disk = f"{format_size(self.weights + self.checkpoints)} of disk"
        memory = f"{format_size(self.memory)} of memory{gpu}"
        return f"{self.name}: {models}{steps}, {format_range(self.hours)}; {memory}, {disk}"


def forecasts(unfinished: Iterable[Unfinished], log: Log) -> list[Forecast]:
    """The forecast of each of `unfinished`, logged as it is made; leaves torch's random state as it was."""
    found = []
    configure_backends(training_device())
    for models in unfinished:
        with torch.random.fork_rng():
            found.append(_forecast(models))
        log(f"Preflight, {found[-1]}")
    return found


def total_hours(found: Sequence[Forecast]) -> Range:
    """Hours of all trainings, one after the other."""
    return sum(forecast.hours[0] for forecast in found), sum(forecast.hours[1] for forecast in found)


def _forecast(models: Unfinished) -> Forecast:
    trainer = models.trainer()
    seconds = time_steps(trainer)
    weights, checkpoint = _bytes(trainer)
    return Forecast(
        models.name,
        models.models,
        models.steps,
        (min(seconds), max(seconds)),
        estimate_hours(seconds, models.steps, models.validations),
        _peak_memory(),
        torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        models.models * weights,
        2 * checkpoint,
    )


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


def _bytes(trainer: Trainer[Any]) -> tuple[int, int]:
    """Sizes of a model's files and of a checkpoint: all networks, optimizer states, the best epoch's weights."""
    of = {name: sum(t.nbytes for t in n.state_dict().values()) for name, n in trainer.trained.networks.items()}
    states = [state for optimizer in trainer.trained.optimizers.values() for state in optimizer.state.values()]
    moments = sum(value.nbytes for state in states for value in state.values() if isinstance(value, torch.Tensor))
    kept = sum(of[name] for name in trainer.result_networks)
    return of.get("encoder", 0) + kept, sum(of.values()) + moments + kept


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def format_size(count: int) -> str:
    """Bytes as text in megabytes or gigabytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def format_range(hours: Range) -> str:
    """A range of hours as text."""
    return f"{_format_hours(hours[0])} to {_format_hours(hours[1])}"


def _format_hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"
