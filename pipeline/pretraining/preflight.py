"""What pretraining is going to take: hours, memory, disk; from a few steps of it, before it starts.

Belongs here: trying steps, reckoning, refusing what cannot fit. Not here: training (`pretrain`), showing.
"""

import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import torch

from pipeline.errors import UserError
from pipeline.pretraining.dataset import Batch, PretrainingSet
from pipeline.pretraining.encoder_folder import CHECKPOINT
from pipeline.pretraining.pretrain import fingerprint_of, training_of
from pipeline.progress import Say
from pipeline.recipe import Backbone, Method, Pretraining
from pipeline.training.device import prepare, training_device
from pipeline.training.loop import Plan, Trainer, steps_done
from pipeline.training.outcome import Outcome

TIMED_STEPS = 4
TIMED_SECONDS = 20.0
"""No further step is tried after so long."""

# Against a step of training, an image of validation costs its forward pass alone: between a sixth and a half of it.
_VALIDATION = (1 / 6, 1 / 2)
# A step of a long training on a GPU is compiled, those tried here are not; a machine may have other work later on.
_FASTER, _SLOWER = 0.5, 1.3


@dataclass(frozen=True)
class Forecast:
    """What the training of one encoder still takes; bytes, seconds and hours, as (at least, at most) where a range."""

    name: str
    steps: int
    step_seconds: tuple[float, float]
    hours: tuple[float, float]
    memory: int
    """What this process has taken at most, with the images."""
    gpu_memory: int
    """What the steps have taken of the GPU at most; 0 without one."""
    weights: int
    """That stay on disk: of the networks, twice of the encoder (safetensors and ONNX)."""
    checkpoints: int
    """Two of them, while it trains."""

    def __str__(self) -> str:
        low, high = (_duration(hours) for hours in self.hours)
        gpu = f", {size(self.gpu_memory)} of GPU memory" if self.gpu_memory else ""
        step = f"{self.step_seconds[0]:.2g} to {self.step_seconds[1]:.2g} s"
        memory = f"{size(self.memory)} of memory{gpu}"
        return f"{self.name}: {self.steps} steps of {step}, {low} to {high}; {memory}, {size(self.disk)} of disk"

    @property
    def disk(self) -> int:
        """What it takes of the disk at most at a time."""
        return self.weights + self.checkpoints


def preflight(
    encoders: Sequence[tuple[Backbone, Method, Path]], pool: PretrainingSet, settings: Pretraining, say: Say
) -> list[Forecast]:
    """Forecasts of the `encoders` (and their folders) that are still to be trained, each said as it is made.

    Raises `UserError` where the disk cannot hold them, and as `pretrain` where the pool is too small.
    """
    found = []
    for backbone, method, folder in encoders:
        forecast = forecast_of(backbone, method, pool, settings, folder)
        if forecast is not None:
            found.append(forecast)
            say(f"Preflight, {forecast}")
    if not found:
        say("Preflight: nothing is left to train.")
        return found
    low, high = (_duration(hours) for hours in total_hours(found))
    say(f"Preflight: about {low} to {high} in all, one after the other.")
    _refuse_a_full_disk(found, encoders[0][2])
    return found


def total_hours(forecasts: Sequence[Forecast]) -> tuple[float, float]:
    """Hours of all, one after the other: at least, at most."""
    return sum(f.hours[0] for f in forecasts), sum(f.hours[1] for f in forecasts)


def forecast_of(
    backbone: Backbone, method: Method, pool: PretrainingSet, settings: Pretraining, folder: Path
) -> Forecast | None:
    """The forecast of one encoder; None where it is done already, or needs no training."""
    fingerprint = fingerprint_of(backbone, method, pool, settings)
    done = Outcome.read(folder)
    if done is not None and done.fingerprint == fingerprint:
        return None
    prepare(training_device())
    with torch.random.fork_rng():
        made = training_of(backbone, method, pool, settings, lambda line: None)
        if made is None:
            return None
        trainer, plan = made
        seconds = _tried(trainer)
    epochs, steps = steps_done(folder / CHECKPOINT, fingerprint)
    left = plan.epochs * plan.steps - epochs * plan.steps - steps
    return _forecast(trainer, plan, left, seconds, len(pool.val))


def _tried(trainer: Trainer[Batch]) -> list[float]:
    """Seconds of a few steps; the first one, which sets things up, does not count."""
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


def _endless(trainer: Trainer[Batch]) -> Iterator[Batch]:
    """Batches, also of a pool that holds fewer of them than are tried."""
    return chain.from_iterable(trainer.batches(1, 0) for _ in repeat(None))


def _forecast(trainer: Trainer[Batch], plan: Plan, left: int, seconds: list[float], val_images: int) -> Forecast:
    low, high = min(seconds), max(seconds)
    on_gpu = torch.cuda.is_available()
    validations = math.ceil(left / plan.steps) * val_images / plan.images  # in steps' worth of images
    hours = (
        low * (_FASTER if on_gpu else 1.0) * (left + _VALIDATION[0] * validations) / 3600,
        high * _SLOWER * (left + _VALIDATION[1] * validations) / 3600,
    )
    weights, checkpoint = _bytes(trainer)
    return Forecast(
        plan.name,
        left,
        (low, high),
        hours,
        _peak_memory(),
        torch.cuda.max_memory_allocated() if on_gpu else 0,
        weights,
        2 * checkpoint,
    )


def _bytes(trainer: Trainer[Batch]) -> tuple[int, int]:
    """Of what stays on disk; of a checkpoint: all networks, what optimizers hold, the best epoch's weights."""
    of = {name: sum(t.nbytes for t in n.state_dict().values()) for name, n in trainer.trained.networks.items()}
    states = [state for optimizer in trainer.trained.optimizers.values() for state in optimizer.state.values()]
    moments = sum(value.nbytes for state in states for value in state.values() if isinstance(value, torch.Tensor))
    stays = 2 * of["encoder"] + of.get("decoder", 0)
    return stays, sum(of.values()) + moments + sum(of[name] for name in trainer.kept)


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _refuse_a_full_disk(forecasts: Sequence[Forecast], folder: Path) -> None:
    """What is surely needed: all weights, and the checkpoints of the one at work."""
    needed = sum(f.weights for f in forecasts) + max(f.checkpoints for f in forecasts)
    free = shutil.disk_usage(next(parent for parent in folder.parents if parent.is_dir())).free
    if free < needed:
        raise UserError(f"Pretraining needs {size(needed)} of disk, and {size(free)} are free where the store lies.")


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"
