"""Forecasts of pretraining, extrapolated from a few steps: hours, memory and disk."""

import math
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import UserError
from pipeline.pretraining.controls import Sources
from pipeline.pretraining.dataset import Batch, PretrainingSet
from pipeline.pretraining.encoder_folder import CHECKPOINT
from pipeline.pretraining.plan import PlannedEncoder
from pipeline.pretraining.pretrain import fingerprint_of, finished, training_of
from pipeline.progress import Log
from pipeline.training.device import configure_backends, training_device
from pipeline.training.loop import Plan, Trainer, steps_done
from pipeline.training.timing import Range, add_ranges, estimate_hours, format_range, time_steps


@dataclass(frozen=True)
class Forecast:
    """What the training of one encoder still takes; bytes, seconds and hours; a range is (minimum, maximum)."""

    name: str
    steps: int
    step_seconds: Range
    hours: Range
    memory: int
    """Peak memory of this process, with the images."""
    gpu_memory: int
    """Peak GPU memory of the steps; 0 without a GPU."""
    weights: int
    """That stay on disk: of the networks, twice of the encoder (safetensors and ONNX)."""
    checkpoints: int
    """Two of them, while it trains."""

    def __str__(self) -> str:
        gpu = f", {size(self.gpu_memory)} of GPU memory" if self.gpu_memory else ""
        step = f"{self.step_seconds[0]:.2g} to {self.step_seconds[1]:.2g} s"
        memory = f"{size(self.memory)} of memory{gpu}"
        disk = f"{size(self.disk)} of disk"
        return f"{self.name}: {self.steps} steps of {step}, {format_range(self.hours)}; {memory}, {disk}"

    @property
    def disk(self) -> int:
        """Peak use of the disk."""
        return self.weights + self.checkpoints


def preflight(encoders: Sequence[PlannedEncoder], pool: PretrainingSet, sources: Sources, log: Log) -> list[Forecast]:
    """Forecasts of the `encoders` that are still to be trained, each logged as it is made.

    Raises `UserError` if the disk cannot hold them, and as `pretrain` if the pool is too small.
    """
    found = []
    for encoder in encoders:
        forecast = forecast_of(encoder, encoder.pool(pool, sources))
        if forecast is not None:
            found.append(forecast)
            log(f"Preflight, {forecast}")
    if not found:
        log("Preflight: nothing is left to train.")
        return found
    log(f"Preflight: about {format_range(add_ranges([f.hours for f in found]))} for the encoders, one after the other.")
    _refuse_a_full_disk(found, encoders[0].folder)
    return found


def forecast_of(encoder: PlannedEncoder, pool: PretrainingSet) -> Forecast | None:
    """The forecast of one encoder on the pool that it is shown; None if it is finished, or needs no training."""
    planned = (encoder.backbone, encoder.method, pool, encoder.settings)
    if finished(*planned, encoder.folder) is not None:
        return None
    fingerprint = fingerprint_of(*planned)
    configure_backends(training_device())
    with torch.random.fork_rng():
        made = training_of(encoder.backbone, encoder.method, pool, encoder.settings, lambda line: None)
        if made is None:
            return None
        trainer, plan = made
        seconds = time_steps(trainer)
    epochs, steps = steps_done(encoder.folder / CHECKPOINT, fingerprint)
    left = plan.epochs * plan.steps - epochs * plan.steps - steps
    return _forecast(encoder.name, trainer, plan, left, seconds, len(pool.val))


def _forecast(
    name: str, trainer: Trainer[Batch], plan: Plan, left: int, seconds: list[float], val_images: int
) -> Forecast:
    on_gpu = torch.cuda.is_available()
    validations = math.ceil(left / plan.steps) * val_images / plan.images
    weights, checkpoint = _bytes(trainer)
    return Forecast(
        name,
        left,
        (min(seconds), max(seconds)),
        estimate_hours(seconds, left, validations),
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
    kept = sum(of[name] for name in trainer.result_networks)
    return of["encoder"] + kept, sum(of.values()) + moments + kept


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _refuse_a_full_disk(forecasts: Sequence[Forecast], folder: Path) -> None:
    """What is surely needed: all weights, and the checkpoints of the one at work."""
    needed = sum(f.weights for f in forecasts) + max(f.checkpoints for f in forecasts)
    free = shutil.disk_usage(next(parent for parent in folder.parents if parent.is_dir())).free
    if free < needed:
        raise UserError(f"Pretraining needs {size(needed)} of disk, and {size(free)} are free on its disk.")


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
