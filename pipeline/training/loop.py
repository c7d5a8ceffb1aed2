"""The loop over epochs that every training has in common.

Belongs here: resuming, selecting the best epoch, noticing divergence, curves. Not here: what a step does.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pipeline.training.checkpoint import Trained, checkpoint_state, restore_checkpoint, write_checkpoint

Metrics = dict[str, float]
OnEpoch = Callable[[int, Metrics], None]
Advance = Callable[[int], None]

SELECTED_BY = "val_loss"  # the metric whose lowest epoch is kept


class Diverged(Exception):  # noqa: N818 - an outcome, not a fault
    """A metric is not a finite number any more; the message says which and when."""


class Trainer(Protocol):
    """One training: what a step changes, and one epoch of it."""

    trained: Trained
    """All that a checkpoint holds."""
    kept: tuple[str, ...]
    """Names of the networks of `trained` whose best epoch is the result."""

    def train_epoch(self, epoch: int, advance: Advance) -> Metrics:
        """Train for epoch number `epoch`, from 1; all randomness comes from it and the seed."""

    def validate(self) -> Metrics:
        """Metrics on the validation images, `val_loss` among them, in evaluation mode."""


@dataclass
class History:
    """What has happened so far: the metrics of every epoch, and the weights of the best one."""

    curves: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    trainer: Trainer, epochs: int, checkpoint: Path | None, fingerprint: str, *, advance: Advance, on_epoch: OnEpoch
) -> History:
    """Train until `epochs` epochs are done, and leave the best one's weights in the networks that `trainer` keeps.

    A file `checkpoint` with the same `fingerprint` is resumed, bit for bit on the CPU, and `on_epoch` hears of its
    epochs again first, so that a tracker has whole curves. `on_epoch(epoch, metrics)` is called after each epoch's
    checkpoint lies on disk. Without a `checkpoint`, as for a training of minutes, a killed run starts over. Raises
    `Diverged` where a metric is not finite.
    """
    history = _resumed(trainer, checkpoint, fingerprint) if checkpoint is not None else History()
    for epoch, metrics in enumerate(history.curves, start=1):
        on_epoch(epoch, metrics)
    for epoch in range(len(history.curves) + 1, epochs + 1):
        metrics = trainer.train_epoch(epoch, advance)
        _check_finite(epoch, metrics)
        metrics |= trainer.validate()
        _check_finite(epoch, metrics)
        _take_note(history, trainer, epoch, metrics)
        if checkpoint is not None:
            state = {"fingerprint": fingerprint, "curves": history.curves, "best_epoch": history.best_epoch}
            write_checkpoint(checkpoint, trainer.trained, state, history.best_weights)
        on_epoch(epoch, metrics)
    _put_back(trainer, history.best_weights)
    return history


def epochs_done(checkpoint: Path, fingerprint: str) -> int:
    """How many epochs `fit` would find done already."""
    state = checkpoint_state(checkpoint)
    return len(state["curves"]) if state is not None and state["fingerprint"] == fingerprint else 0


def _resumed(trainer: Trainer, checkpoint: Path, fingerprint: str) -> History:
    if epochs_done(checkpoint, fingerprint) == 0:
        return History()
    state, best_weights = restore_checkpoint(checkpoint, trainer.trained)
    return History(state["curves"], state["best_epoch"], best_weights)


def _take_note(history: History, trainer: Trainer, epoch: int, metrics: Metrics) -> None:
    history.curves.append(metrics)
    best = min(history.curves, key=lambda past: past[SELECTED_BY])
    if best is metrics:  # `min` names the first of equals
        history.best_epoch = epoch
        history.best_weights = {
            f"{name}/{key}": tensor.detach().clone()
            for name in trainer.kept
            for key, tensor in trainer.trained.networks[name].state_dict().items()
        }


def _put_back(trainer: Trainer, weights: Mapping[str, Tensor]) -> None:
    for name in trainer.kept:
        own = {key.removeprefix(f"{name}/"): value for key, value in weights.items() if key.startswith(f"{name}/")}
        trainer.trained.networks[name].load_state_dict(own)


def _check_finite(epoch: int, metrics: Metrics) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} was {value} in epoch {epoch}")
