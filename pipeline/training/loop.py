"""The loop over epochs of every training: checkpoints, resuming, the best epoch, divergence, curves."""

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
    tensors_under,
    write_checkpoint,
)
from pipeline.training.distributed import group, mean_over_processes

Metrics = dict[str, float]
OnEpoch = Callable[[int, Metrics], None]
Advance = Callable[[int], None]
B = TypeVar("B")

VALIDATION_LOSS = "val_loss"
"""The training's loss on validation images; most trainings select the epoch with the lowest."""

CHECKPOINT_LAYOUT = 3
"""Raised when the content of a checkpoint changes, such as its metrics: older ones are not resumed."""

CHECKPOINT_SECONDS = 60.0
"""Least time between two checkpoints: a killed training repeats at most this much work and one step."""


class Diverged(Exception):  # noqa: N818 - an outcome, not a fault
    """Training has diverged; the message has the cause and the epoch."""


class Trainer(Protocol[B]):
    """One training: its networks, batches, step and validation."""

    trained: Trained
    """The content of a checkpoint."""
    result_networks: tuple[str, ...]
    """Names of the networks of `trained` whose best epoch is the result."""
    metrics: tuple[str, ...]
    """Names of the values that a step returns."""
    selected_by: str
    """The metric of `validate` that selects the best epoch, the one with the lowest value, if no score does."""

    def batches(self, epoch: int, first_step: int) -> Iterator[B]:
        """The batches of epoch number `epoch`, from 1, from `first_step` on; puts the networks into training mode."""

    def step(self, batch: B) -> Tensor:
        """Train on a batch; returns `metrics`, shape (len(metrics),), on the device."""

    def validate(self) -> Metrics:
        """Metrics on the validation images, `val_loss` and `selected_by` among them."""

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Raise `Diverged` if the epochs so far show that the training learns nothing any more."""


@dataclass(frozen=True)
class Scoring:
    """Scores of some epochs beside the trainer's metrics, which do not affect the training."""

    every: int
    """Number of epochs from one score to the next; the last epoch is always scored."""
    scores: Callable[[], Metrics]
    """Called after `Trainer.validate`."""
    selected_by: str | None = None
    """The score whose highest value selects the best epoch in place of `Trainer.selected_by`."""


def is_scored(epoch: int, epochs: int, every: int) -> bool:
    """Whether epoch number `epoch` of `epochs` is scored: every `every`-th and the last."""
    return epoch % every == 0 or epoch == epochs


@dataclass
class History:
    """The metrics of every finished epoch, and the weights of the best one by `selected_by`.

    Epochs without that metric are never the best.
    """

    curves: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    selected_by: str = VALIDATION_LOSS
    highest: bool = False
    """Whether the best value of `selected_by` is the highest one."""

    @property
    def candidates(self) -> list[Metrics]:
        """The metrics of the epochs that may be the best."""
        return [metrics for metrics in self.curves if self.selected_by in metrics]

    def is_exhausted(self, patience: int | None) -> bool:
        """Whether the last `patience` candidates are no better than one before them."""
        values = [metrics[self.selected_by] for metrics in self.candidates]
        best = max if self.highest else min
        return patience is not None and bool(values) and len(values) - values.index(best(values)) > patience

    def record(self, trainer: Trainer[B], epoch: int, metrics: Metrics) -> None:
        """Append the metrics of `epoch`; copy the weights if it is the best one so far, the first of equals."""
        self.curves.append(metrics)
        best = max if self.highest else min
        if best(self.candidates, key=lambda past: past[self.selected_by], default=None) is metrics:
            self.best_epoch = epoch
            self.best_weights = {
                f"{name}/{key}": tensor.detach().clone()
                for name in trainer.result_networks
                for key, tensor in trainer.trained.networks[name].state_dict().items()
            }

    def restore_best(self, trainer: Trainer[B]) -> None:
        """Put the best epoch's weights into the networks of `trainer`."""
        for name in trainer.result_networks:
            trainer.trained.networks[name].load_state_dict(tensors_under(self.best_weights, f"{name}/"))


def fit(
    trainer: Trainer[B],
    epochs: int,
    checkpoint: Path,
    fingerprint: str,
    *,
    advance: Advance,
    on_epoch: OnEpoch,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    scoring: Scoring | None = None,
    patience: int | None = None,
) -> History:
    """Train until `epochs` epochs are done, and leave the best one's weights in `trainer.result_networks`.

    Training ends earlier if `patience` candidates in turn (`History.candidates`) are no better than the best one.

    A file `checkpoint` with the same `fingerprint` is resumed, within an epoch too, bit for bit on the CPU; `on_epoch`
    is first called for the epochs before it, so that a tracker has whole curves. Checkpoints are written at least
    `checkpoint_seconds` apart. `advance(1)` counts a step. Raises `Diverged` if a metric is not finite, and as
    `trainer.check_divergence` does.
    """
    state = _resume(trainer, checkpoint, fingerprint, checkpoint_seconds, scoring)
    history = state.history
    for epoch, metrics in enumerate(history.curves, start=1):
        on_epoch(epoch, metrics)
    for epoch in range(len(history.curves) + 1, epochs + 1):
        if history.is_exhausted(patience):
            break
        for batch in trainer.batches(epoch, len(state.steps)):
            state.steps.append(trainer.step(batch))
            advance(1)
            state.save_if_due(epoch)
        metrics = state.end_epoch(epoch) | trainer.validate()
        _check_finite(epoch, metrics)
        if scoring is not None and is_scored(epoch, epochs, scoring.every):
            scores = scoring.scores()
            _check_finite(epoch, scores)
            metrics |= scores
        history.record(trainer, epoch, metrics)
        trainer.check_divergence(history.curves)
        state.save_if_due(epoch + 1)
        on_epoch(epoch, metrics)
    history.restore_best(trainer)
    return history


@dataclass(frozen=True)
class Plan:
    """The length of a training, and its name in logs."""

    name: str
    epochs: int
    steps: int
    """Of an epoch."""
    images: int
    """Of a step."""
    patience: int | None = None
    """As in `fit`."""


def fit_with_progress(
    trainer: Trainer[B],
    plan: Plan,
    checkpoint: Path,
    fingerprint: str,
    log: Log,
    on_epoch: OnEpoch,
    scoring: Scoring | None = None,
) -> History:
    """`fit` with progress in images, and a log line if it resumes an earlier run."""
    epochs, steps = steps_done(checkpoint, fingerprint)
    if epochs or steps:
        log(f"{plan.name}: resumes after epoch {epochs}{f', step {steps}' if steps else ''}")
    left = (plan.epochs - epochs) * plan.steps - steps
    with Progress(plan.name, left * plan.images, "images", log) as progress:
        return fit(
            trainer,
            plan.epochs,
            checkpoint,
            fingerprint,
            advance=lambda count: progress.advance(count * plan.images),
            on_epoch=on_epoch,
            scoring=scoring,
            patience=plan.patience,
        )


def steps_done(checkpoint: Path, fingerprint: str) -> tuple[int, int]:
    """The finished epochs of a checkpoint that `fit` would resume, and the finished steps of its next epoch."""
    saved = _matching(checkpoint, fingerprint)
    return (len(saved.state["curves"]), saved.state["steps"]) if saved else (0, 0)


def seconds_done(checkpoint: Path, fingerprint: str) -> float:
    """The seconds of training behind a checkpoint that `fit` would resume, over all processes that worked on it."""
    saved = _matching(checkpoint, fingerprint)
    return float(saved.state["seconds"]) if saved else 0.0


@dataclass
class _TrainingState:
    """A training in progress: finished epochs, the steps of the present one, the time of the last checkpoint."""

    trainer: Trainer[Any]
    checkpoint: Path
    fingerprint: str
    seconds: float
    history: History
    steps: list[Tensor] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)
    """When it would have begun had it never been interrupted."""

    def end_epoch(self, epoch: int) -> Metrics:
        """The means of the epoch's steps over all processes; the next epoch starts without steps."""
        means = mean_over_processes(torch.stack(self.steps).double().mean(dim=0))
        self.steps.clear()
        metrics = dict(zip(self.trainer.metrics, means.tolist(), strict=True))
        _check_finite(epoch, metrics)
        return metrics

    def save_if_due(self, epoch: int) -> None:
        """Write a checkpoint if the last one is old enough; `epoch` is the one that the steps belong to."""
        if not group().is_main or time.monotonic() - self.saved_at < self.seconds:
            return
        rows = {"steps": torch.stack(self.steps)} if self.steps else {}
        if rows and group().world_size == 1:  # one of several processes must not leave a step that the others wait in
            _check_finite(epoch, dict(zip(self.trainer.metrics, rows["steps"][-1].tolist(), strict=True)))
        best = {f"best/{name}": tensor for name, tensor in self.history.best_weights.items()}
        state = {
            "fingerprint": self.fingerprint,
            "layout": CHECKPOINT_LAYOUT,
            "curves": self.history.curves,
            "best_epoch": self.history.best_epoch,
            "steps": len(self.steps),
            "seconds": time.monotonic() - self.began,
        }
        write_checkpoint(self.checkpoint, self.trainer.trained, state, rows | best)
        self.saved_at = time.monotonic()


def _matching(checkpoint: Path, fingerprint: str) -> SavedCheckpoint | None:
    saved = newest_checkpoint(checkpoint)
    wanted = (fingerprint, CHECKPOINT_LAYOUT)
    found = saved is not None and (saved.state["fingerprint"], saved.state.get("layout")) == wanted
    return saved if found else None


def _resume(
    trainer: Trainer[B], checkpoint: Path, fingerprint: str, seconds: float, scoring: Scoring | None
) -> _TrainingState:
    score = None if scoring is None else scoring.selected_by
    history = History(selected_by=score or trainer.selected_by, highest=score is not None)
    state = _TrainingState(trainer, checkpoint, fingerprint, seconds, history)
    saved = _matching(checkpoint, fingerprint)
    if saved is None:
        return state
    extra = restore_checkpoint(saved, trainer.trained)
    state.began -= saved.state["seconds"]
    history.curves, history.best_epoch = saved.state["curves"], saved.state["best_epoch"]
    history.best_weights = tensors_under(extra, "best/")
    parameters = next(iter(trainer.trained.networks.values())).parameters()
    if saved.state["steps"]:
        state.steps = list(extra["steps"].to(next(parameters).device))
    return state


def _check_finite(epoch: int, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} was {value} in epoch {epoch}")
