"""Preflight of pretraining: what the encoders that are still to be trained take, and whether the disk holds them."""

import math
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.errors import UserError
from pipeline.methods import TrainingSettings
from pipeline.pretraining.controls import Sources
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.encoder_folder import CHECKPOINT
from pipeline.pretraining.encoder_scores import scored_images
from pipeline.pretraining.plan import PlannedEncoder
from pipeline.pretraining.pretrain import fingerprint_of, finished, trainer_of
from pipeline.pretraining.start import start_is_missing
from pipeline.progress import Log
from pipeline.training.loop import is_scored, steps_done
from pipeline.training.preflight import Forecast, Unfinished, forecasts, format_range, format_size, total_hours


def preflight(encoders: Sequence[PlannedEncoder], pool: PretrainingSet, sources: Sources, log: Log) -> list[Forecast]:
    """Forecasts of the `encoders` that are still to be trained, each logged as it is made.

    Raises `UserError` if the disk cannot hold them, and as `pretrain` if the pool is too small.
    """
    found = forecasts(unfinished_encoders(encoders, pool, sources), log)
    if not found:
        log("Preflight: there is nothing to train.")
        return found
    log(f"Preflight: about {format_range(total_hours(found))} for the encoders, one after the other.")
    _refuse_a_full_disk(found, encoders[0].folder)
    return found


def unfinished_encoders(
    encoders: Sequence[PlannedEncoder], pool: PretrainingSet, sources: Sources
) -> Iterator[Unfinished]:
    """Those of `encoders` that are neither finished nor without training; raises `UserError` if the pool is small."""
    for encoder in encoders:
        shown, settings = encoder.pool(pool, sources), encoder.settings
        planned = (encoder.backbone, encoder.method, shown, settings)
        if not isinstance(settings, TrainingSettings) or finished(*planned, encoder.folder) is not None:
            continue
        if start_is_missing(settings, encoder.backbone):
            continue
        steps = shown.steps(settings.batch_size)
        epochs_done, steps_of_next = steps_done(encoder.folder / CHECKPOINT, fingerprint_of(*planned))
        left = (settings.epochs - epochs_done) * steps - steps_of_next
        forward = math.ceil(left / steps) * len(shown.val) + _scores_left(settings, epochs_done) * scored_images(shown)
        validations = forward / settings.batch_size
        yield Unfinished(encoder.name, 1, left, validations, partial(trainer_of, *planned))


def _scores_left(settings: TrainingSettings, epochs_done: int) -> int:
    epochs, every = settings.epochs, settings.score_every
    return sum(is_scored(epoch, epochs, every) for epoch in range(epochs_done + 1, epochs + 1))


def _refuse_a_full_disk(found: Sequence[Forecast], folder: Path) -> None:
    """Compare the free space with the minimum need: all weights, and the checkpoints of one training at a time."""
    needed = sum(f.weights for f in found) + max(f.checkpoints for f in found)
    free = shutil.disk_usage(next(parent for parent in folder.parents if parent.is_dir())).free
    if free < needed:
        raise UserError(f"Pretraining needs {format_size(needed)} of disk, and {format_size(free)} are free.")
