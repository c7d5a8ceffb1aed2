"""The loop over epochs that every training has in common.

Belongs here: resuming, selecting the best epoch, noticing divergence, curves. Not here: what a step does.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from pipeline.progress import Log, Progress
from pipeline.training.checkpoint import (
    SavedCheckpoint,
    Trained,
    newest_checkpoint,
    restore_checkpoint,
    write_checkpoint,
)
from pipeline.training.distributed import group, mean_over_processes

Metrics = dict[str, float]
OnEpoch = Callable[[int, Metrics], None]
Advance = Callable[[int], None]
B = TypeVar("B")

VALIDATION_LOSS = "val_loss"
"""What is learnt, measured on validation images: most trainings keep the epoch where it is lowest."""

CHECKPOINT_LAYOUT = 3
"""Raised where a checkpoint holds something else, such as another metric: older ones are not gone on with."""

CHECKPOINT_SECONDS = 60.0
"""The least time between two checkpoints, hence the most work that a killed training does again, but for one step."""


class Diverged(Exception):  # noqa: N818 - an outcome, not a fault
    """Training has gone where nothing is learnt any more; the message says what happened and when."""


class Trainer(Protocol[B]):
    """One training: what a step changes, its batches, one step, and how good it is."""

    trained: Trained
    """All that a checkpoint holds."""
    result_networks: tuple[str, ...]
    """Names of the networks of `trained` whose best epoch is the result."""
    metrics: tuple[str, ...]
    """Names of what a step returns."""
    selected_by: str
    """The metric of `validate` whose lowest epoch is kept."""

    def batches(self, epoch: int, first_step: int) -> Iterator[B]:
        """The batches of epoch number `epoch`, from 1, from `first_step` on; puts the networks into training mode."""

    def step(self, batch: B) -> Tensor:
        """Learn from a batch; returns `metrics`, shape (len(metrics),), left on the device."""

    def validate(self) -> Metrics:
        """Metrics on the validation images, `val_loss` and `selected_by` among them."""

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Raise `Diverged` where the epochs so far show that nothing is learnt any more."""


@dataclass
class History:
    """What has happened so far: the metrics of every epoch, and the weights of the best one, by `selected_by`."""

    curves: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    selected_by: str = VALIDATION_LOSS


def fit(
    trainer: Trainer[B],
    epochs: int,
    checkpoint: Path,
    fingerprint: str,
    *,
    advance: Advance,
    on_epoch: OnEpoch,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> History:
    """Train until `epochs` epochs are done, and leave the best one's weights in the networks that `trainer` keeps.

    A file `checkpoint` with the same `fingerprint` is resumed, in the middle of an epoch too, bit for bit on the CPU;
    `on_epoch` hears of its epochs again first, so that a tracker has whole curves. Checkpoints are written at least
    `checkpoint_seconds` apart. `advance(1)` counts a step. Raises `Diverged` where a metric is not finite, or where
    `trainer.check_divergence` does.
    """
    course = _resume(trainer, checkpoint, fingerprint, checkpoint_seconds)
    history = course.history
    for epoch, metrics in enumerate(history.curves, start=1):
        on_epoch(epoch, metrics)
    for epoch in range(len(history.curves) + 1, epochs + 1):
        for batch in trainer.batches(epoch, len(course.steps)):
            course.steps.append(trainer.step(batch))
            advance(1)
            course.save_if_due(epoch)
        metrics = course.means(epoch) | trainer.validate()
        _check_finite(epoch, metrics)
        _record_epoch(history, trainer, epoch, metrics)
        trainer.check_divergence(history.curves)
        course.save_if_due(epoch + 1)
        on_epoch(epoch, metrics)
    _restore_best(trainer, history.best_weights)
    return history


@dataclass(frozen=True)
class Plan:
    """How long a training is, and what it is called where people read of it."""

    name: str
    epochs: int
    steps: int
    """Of an epoch."""
    images: int
    """Of a step."""


def fit_with_progress(
    trainer: Trainer[B], plan: Plan, checkpoint: Path, fingerprint: str, log: Log, on_epoch: OnEpoch
) -> History:
    """`fit`, with progress in images and a line where an earlier run is gone on with."""
    epochs, steps = steps_done(checkpoint, fingerprint)
    if epochs or steps:
        log(f"{plan.name}: goes on after epoch {epochs}{f', step {steps}' if steps else ''}")
    left = (plan.epochs - epochs) * plan.steps - steps
    with Progress(plan.name, left * plan.images, "images", log) as progress:
        return fit(
            trainer,
            plan.epochs,
            checkpoint,
            fingerprint,
            advance=lambda count: progress.advance(count * plan.images),
            on_epoch=on_epoch,
        )


def steps_done(checkpoint: Path, fingerprint: str) -> tuple[int, int]:
    """How many whole epochs, and how many steps of the next one, `fit` would find done already."""
    saved = _matching(checkpoint, fingerprint)
    return (len(saved.state["curves"]), saved.state["steps"]) if saved else (0, 0)


def seconds_done(checkpoint: Path, fingerprint: str) -> float:
    """How many seconds `fit` took for what it would find done already, in all processes that worked on it."""
    saved = _matching(checkpoint, fingerprint)
    return float(saved.state["seconds"]) if saved else 0.0


@dataclass
class _TrainingState:
    """A training on its way: what is done, of the present epoch too, and when that was last written down."""

    trainer: Trainer[Any]
    checkpoint: Path
    fingerprint: str
    seconds: float
    history: History = field(default_factory=History)
    steps: list[Tensor] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)
    """When it would have begun, had it never been stopped."""

    def means(self, epoch: int) -> Metrics:
        """The means of the epoch's steps over all processes; the next epoch has no steps yet."""
        means = mean_over_processes(torch.stack(self.steps).double().mean(dim=0))
        self.steps.clear()
        metrics = dict(zip(self.trainer.metrics, means.tolist(), strict=True))
        _check_finite(epoch, metrics)
        return metrics

    def save_if_due(self, epoch: int) -> None:
        """Write a checkpoint where the last one is long enough ago; `epoch` is the one the steps belong to."""
        if not group().is_main or time.monotonic() - self.saved_at < self.seconds:
            return
        rows = {"steps": torch.stack(self.steps)} if self.steps else {}
        if rows and group().world == 1:  # of several processes none may leave the others behind in a step
            _check_finite(epoch, dict(zip(self.trainer.metrics, rows["steps"][-1].tolist(), strict=True)))
        best = {f"best/{name}": tensor for name, tensor in self.history.best_weights.items()}
        write_checkpoint(self.checkpoint, self.trainer.trained, self._state(), rows | best)
        self.saved_at = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "layout": CHECKPOINT_LAYOUT,
            "curves": self.history.curves,
            "best_epoch": self.history.best_epoch,
            "steps": len(self.steps),
            "seconds": time.monotonic() - self.began,
        }


def _matching(checkpoint: Path, fingerprint: str) -> SavedCheckpoint | None:
    saved = newest_checkpoint(checkpoint)
    wanted = (fingerprint, CHECKPOINT_LAYOUT)
    found = saved is not None and (saved.state["fingerprint"], saved.state.get("layout")) == wanted
    return saved if found else None


def _resume(trainer: Trainer[B], checkpoint: Path, fingerprint: str, seconds: float) -> _TrainingState:
    course = _TrainingState(trainer, checkpoint, fingerprint, seconds, History(selected_by=trainer.selected_by))
    saved = _matching(checkpoint, fingerprint)
    if saved is None:
        return course
    extra = restore_checkpoint(saved, trainer.trained)
    best = {name.removeprefix("best/"): tensor for name, tensor in extra.items() if name.startswith("best/")}
    course.began -= saved.state["seconds"]
    course.history = History(saved.state["curves"], saved.state["best_epoch"], best, trainer.selected_by)
    device = next(iter(trainer.trained.networks.values())).parameters()
    if saved.state["steps"]:
        course.steps = list(extra["steps"].to(next(device).device))
    return course


def _record_epoch(history: History, trainer: Trainer[B], epoch: int, metrics: Metrics) -> None:
    history.curves.append(metrics)
    best = min(history.curves, key=lambda past: past[trainer.selected_by])
    if best is metrics:  # `min` names the first of equals
        history.best_epoch = epoch
        history.best_weights = {
            f"{name}/{key}": tensor.detach().clone()
            for name in trainer.result_networks
            for key, tensor in trainer.trained.networks[name].state_dict().items()
        }


def _restore_best(trainer: Trainer[B], weights: Mapping[str, Tensor]) -> None:
    for name in trainer.result_networks:
        own = {key.removeprefix(f"{name}/"): value for key, value in weights.items() if key.startswith(f"{name}/")}
        trainer.trained.networks[name].load_state_dict(own)


def _check_finite(epoch: int, metrics: Metrics) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} was {value} in epoch {epoch}")
