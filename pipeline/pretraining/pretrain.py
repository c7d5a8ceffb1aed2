"""Pretraining one encoder by one method, into its folder: fingerprints, outcomes, the files of all methods."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.code_versions import PRETRAINING
from pipeline.files import digest
from pipeline.images.batches import Normalization, fit_normalization
from pipeline.methods import METHODS, EncoderSettings, TrainingSettings
from pipeline.networks.encoders import Encoder, WeightsUnavailable, save_encoder
from pipeline.pretraining import encoder_folder
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.encoder_folder import ModelCard, Preprocessing, count_labels, write_curves
from pipeline.pretraining.encoder_scores import scoring_of
from pipeline.pretraining.job import Job, MethodRun, own_share
from pipeline.pretraining.onnx_export import export_onnx
from pipeline.pretraining.start import inherited_digests, recorded_settings
from pipeline.progress import Log, silent
from pipeline.settings import Backbone
from pipeline.training.checkpoint import remove_checkpoints
from pipeline.training.device import configure_backends, training_device
from pipeline.training.distributed import barrier, group
from pipeline.training.loop import Diverged, History, OnEpoch, Trainer, fit_with_progress, seconds_done
from pipeline.training.outcome import Outcome

_EARLIER = ("2",)
"""Versions of the code whose finished encoders are not trained again (docs/method.md lists the differences)."""


def pretrain(
    backbone: Backbone,
    method: str,
    pool: PretrainingSet,
    settings: EncoderSettings,
    folder: Path,
    log: Log,
    on_epoch: OnEpoch,
    name: str = "",
) -> Outcome:
    """Pretrain `backbone` by `method` on `pool` and fill `folder`; returns the outcome.

    `settings` are of the method's own type. `name` is the encoder's name in the log; default: backbone and method.

    If `folder` holds the result of the same images, labels (if used), settings and code, or a finished encoder of an
    earlier version of the code (`finished`), nothing is trained. A run that was killed resumes from its last
    checkpoint. `on_epoch(epoch, metrics)` is called for every epoch, from 1, also for those of earlier runs. Outcomes:
    `ran`; `unavailable` (weights that the recipe names do not exist); `diverged` (a loss was not finite, or the
    discriminator stuck), without an encoder.

    With several processes (`pipeline.training.distributed`), all call this: each trains on the patients of its own
    shard, `batch_size` counts the images of all, and the first one writes. Raises `UserError` if the training images
    do not fill one batch, the batch cannot be divided evenly, or labels are to select the epoch and none can be scored.
    """
    name, fingerprint = name or f"{backbone} {method}", fingerprint_of(backbone, method, pool, settings)
    done = finished(backbone, method, pool, settings, folder)
    if done is not None:
        log(f"{name}: nothing has changed, {done.status} before{_by_earlier_code(done, fingerprint, method, folder)}")
        if group().is_main:
            remove_checkpoints(folder / encoder_folder.CHECKPOINT)  # left by a run killed between outcome and here
        encoder_folder.replay_metrics(folder, on_epoch)
        return done
    if isinstance(settings, TrainingSettings):
        own_share(pool, settings)  # raises if there is not enough
    barrier()  # no process may still be reading the outcome that the first one removes
    if group().is_main:
        encoder_folder.clear(folder)
    outcome = _outcome(Job(name, backbone, METHODS[method], pool, settings, folder, fingerprint, log, on_epoch))
    barrier()
    if group().is_main:
        outcome.write(folder)
        remove_checkpoints(folder / encoder_folder.CHECKPOINT)
    return outcome


def finished(
    backbone: Backbone, method: str, pool: PretrainingSet, settings: EncoderSettings, folder: Path
) -> Outcome | None:
    """The outcome in `folder` if its inputs and code are the same, or an encoder that an earlier version trained.

    Failures of an earlier version do not count: they are repeated.
    """
    done = Outcome.read(folder)
    if done is None or done.fingerprint == fingerprint_of(backbone, method, pool, settings):
        return done
    earlier = {fingerprint_of(backbone, method, pool, settings, code) for code in _EARLIER}
    return done if done.status == "ran" and done.fingerprint in earlier else None


def _by_earlier_code(done: Outcome, fingerprint: str, method: str, folder: Path) -> str:
    """For the log: whether this version would train the kept encoder differently."""
    if done.fingerprint == fingerprint or not METHODS[method].inpaints:
        return ""
    return f" by an earlier version, which selected and weighted otherwise; to train it anew, delete {folder.name}"


def fingerprint_of(
    backbone: Backbone, method: str, pool: PretrainingSet, settings: EncoderSettings, code: str = PRETRAINING
) -> str:
    """Digest of everything that determines the encoder: code, images, split; labels, pairs and settings if used."""
    split = [indices.cpu().numpy().tobytes() for indices in (pool.train, pool.val)]
    common = [code, backbone, method, pool.image_digest, pool.size, *split]
    labels = [pool.label_names, pool.label_digest] if METHODS[method].labelled else []
    groups = (
        [group_I.numpy().tobytes() for group_I in (pool.patients_N, pool.files_N)] if METHODS[method].paired else []
    )
    selected = [pool.archive.label_names, pool.archive.label_digest] if settings.selected_by_labels else []
    return digest(*common, *labels, *groups, *selected, recorded_settings(settings, backbone))


def trainer_of(backbone: Backbone, method: str, pool: PretrainingSet, settings: EncoderSettings) -> Trainer[Any]:
    """The training that `pretrain` would do, before its first step, for timing steps.

    Writes nothing and normalizes images by a guess. Raises as `pretrain`.
    """
    job = Job("", backbone, METHODS[method], pool, settings, Path(), "", silent, lambda epoch, metrics: None)
    training = _start(job, Normalization(mean=128.0, sd=64.0)).training
    assert training is not None, f"{method} has settings of training and trains nothing"
    return training[0]


def _start(job: Job[EncoderSettings], normalization: Normalization) -> MethodRun:
    run: MethodRun = job.method.load_trainer()(job, normalization)
    return run


def _outcome(job: Job[EncoderSettings]) -> Outcome:
    """Do the job; missing weights and divergence become outcomes."""
    began = time.monotonic() - seconds_done(job.folder / encoder_folder.CHECKPOINT, job.fingerprint)
    try:
        kept_epoch = _train(job)
    except WeightsUnavailable as reason:
        return Outcome("unavailable", str(reason), job.fingerprint)
    except Diverged as reason:
        return Outcome("diverged", str(reason), job.fingerprint, time.monotonic() - began)
    return Outcome("ran", "", job.fingerprint, time.monotonic() - began, kept_epoch)


def _train(job: Job[EncoderSettings]) -> int | None:
    """Train and write the files of the encoder; returns the epoch that is kept, None if nothing is trained."""
    normalization = fit_normalization(job.pool.images, job.pool.train)
    run, history = _start(job, normalization), History()
    if run.training is not None and isinstance(job.settings, TrainingSettings):
        scoring = scoring_of(job.settings, run.encoder, job.pool, normalization)
        configure_backends(training_device())
        checkpoint = job.folder / encoder_folder.CHECKPOINT
        history = fit_with_progress(*run.training, checkpoint, job.fingerprint, job.log, job.on_epoch, scoring)
    if group().is_main:
        _save(job, run.own_normalization or normalization, run.encoder, history, run.write_results(history))
    return history.best_epoch or None


def _save(
    job: Job[EncoderSettings],
    normalization: Normalization,
    encoder: Encoder,
    history: History,
    results: Mapping[str, Any],
) -> None:
    """Write the files that all methods have in common."""
    preprocessing = Preprocessing(job.backbone, *job.pool.size, normalization.mean, normalization.sd)
    save_encoder(encoder, job.folder / encoder_folder.ENCODER)
    preprocessing.write(job.folder)
    export_onnx(job.folder, job.log)
    if history.curves:
        write_curves(job.folder, history.curves)
    ModelCard(
        method=job.method.name,
        preprocessing=preprocessing,
        settings=recorded_settings(job.settings, job.backbone),
        image_digest=job.pool.image_digest,
        train_images=len(job.pool.train),
        val_images=len(job.pool.val),
        labels=count_labels(job.pool) if job.method.labelled else (),
        label_digest=job.pool.label_digest,
        shown=job.pool.shown,
        history=history,
        results=tuple(results.items()),
        inherited=inherited_digests(job.settings, job.backbone),
        without_source=job.pool.without_source,
    ).write(job.folder)
