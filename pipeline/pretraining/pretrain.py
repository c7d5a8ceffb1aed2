"""Pretraining one encoder by one method, into its folder.

Belongs here: early exit, which method does what, the order of a folder's files. Not here: a method's steps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.code_versions import PRETRAINING
from pipeline.errors import UserError
from pipeline.files import digest, write_json
from pipeline.images.batches import Normalization, center_patch, fit_normalization
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.encoders import (
    Encoder,
    WeightsUnavailable,
    build_encoder,
    imagenet_encoder,
    load_encoder,
    save_encoder,
)
from pipeline.pretraining import encoder_folder
from pipeline.pretraining.context_encoder import ContextEncoder, ContextEncoderTraining, inpainting_report
from pipeline.pretraining.dataset import Batch, PretrainingSet
from pipeline.pretraining.encoder_folder import ModelCard, Preprocessing, count_labels, write_curves
from pipeline.pretraining.metadata_classifier import MetadataHead, MetadataTraining, validation_logits
from pipeline.pretraining.onnx_export import export_onnx
from pipeline.progress import Log
from pipeline.recipe import INPAINTING, LABELLED, TRAINED, Backbone, EncoderSettings, Method
from pipeline.training.checkpoint import remove_checkpoints
from pipeline.training.device import Network, configure_backends, maybe_compile, to_device, training_device
from pipeline.training.distributed import barrier, group
from pipeline.training.loop import Diverged, History, OnEpoch, Plan, Trainer, fit_with_progress, seconds_done
from pipeline.training.outcome import Outcome
from pipeline.training.seeds import seeded
from pipeline.training.tensors import read_tensors, write_tensors

_EARLIER = ("2",)
"""Versions of the code whose finished encoders are not trained anew (docs/method.md says what differed)."""


def pretrain(
    backbone: Backbone,
    method: Method,
    pool: PretrainingSet,
    settings: EncoderSettings,
    folder: Path,
    log: Log,
    on_epoch: OnEpoch,
    name: str = "",
) -> Outcome:
    """Pretrain `backbone` by `method` on `pool` and fill `folder`; returns what became of it.

    `name` is what the encoder is called in what is said, where backbone and method do not tell it from others.

    Work that `folder` holds already is not done again: same images, labels (where used), settings and code; an encoder
    that an earlier version of the code has finished stays (`finished`). A run that was killed goes on where its last
    checkpoint was. `on_epoch(epoch, metrics)` hears of every epoch, from 1, of those done before, too. Outcomes: `ran`;
    `unavailable` (no ImageNet weights); `diverged` (a loss was not finite, or the discriminator stuck), without an
    encoder. Of several processes (`pipeline.training.distributed`), which all call this, each trains on the patients of
    its own shard, `batch_size` counts the images of all, and the first one writes.
    Raises `UserError` where the training images do not fill one batch, or the batch cannot be shared out evenly.
    """
    called, fingerprint = name or f"{backbone} {method}", fingerprint_of(backbone, method, pool, settings)
    done = finished(backbone, method, pool, settings, folder)
    if done is not None:
        log(f"{called}: nothing has changed, {done.status} before{_by_whom(done, fingerprint, method, folder)}")
        if group().is_main:
            remove_checkpoints(folder / encoder_folder.CHECKPOINT)  # left by a run killed between outcome and here
        encoder_folder.replay_metrics(folder, on_epoch)
        return done
    if method in TRAINED:
        _own_share(pool, settings)  # raises where there is not enough
    barrier()  # none may still be looking for the outcome that the first one clears away
    if group().is_main:
        _clear(folder)
    outcome = _outcome(_Job(called, backbone, method, pool, settings, folder, fingerprint, log, on_epoch))
    barrier()
    if group().is_main:
        outcome.write(folder)
        remove_checkpoints(folder / encoder_folder.CHECKPOINT)
    return outcome


def finished(
    backbone: Backbone, method: Method, pool: PretrainingSet, settings: EncoderSettings, folder: Path
) -> Outcome | None:
    """The outcome in `folder` if it is of the same inputs and of this code, or an encoder of an earlier version's.

    What an earlier version could not train is tried again.
    """
    done = Outcome.read(folder)
    if done is None or done.fingerprint == fingerprint_of(backbone, method, pool, settings):
        return done
    earlier = {fingerprint_of(backbone, method, pool, settings, code) for code in _EARLIER}
    return done if done.status == "ran" and done.fingerprint in earlier else None


def _by_whom(done: Outcome, fingerprint: str, method: Method, folder: Path) -> str:
    """What to add where an encoder that stays would come out otherwise today."""
    if done.fingerprint == fingerprint or method not in INPAINTING:
        return ""
    return f" by an earlier version, which selected and weighted otherwise; to train it anew, delete {folder.name}"


def fingerprint_of(
    backbone: Backbone, method: Method, pool: PretrainingSet, settings: EncoderSettings, code: str = PRETRAINING
) -> str:
    """Digest of all that decides the encoder: code, images and split, and what of labels and settings it uses."""
    split = [indices.cpu().numpy().tobytes() for indices in (pool.train, pool.val)]
    common = [code, backbone, method, pool.image_digest, pool.size, *split]
    labels = [pool.label_names, pool.label_digest] if method in LABELLED else []
    return digest(*common, *labels, _settings_used(backbone, method, settings))


def inpaint(folder: Path, images_NHW: Tensor) -> Tensor:
    """The uint8 grey images, shape (N, H, W), with their centres inpainted by the context encoder in `folder`.

    Raises `UserError` where the folder holds no context encoder, and ValueError at another size than it was trained at.
    """
    preprocessing = Preprocessing.read(folder)
    if tuple(images_NHW.shape[1:]) != (preprocessing.height, preprocessing.width):
        raise ValueError(f"images of {tuple(images_NHW.shape[1:])}, not {preprocessing.height, preprocessing.width}")
    network = to_device(_load_context_encoder(folder, preprocessing.backbone), training_device()).eval()
    painted_NHW = images_NHW.clone()
    with torch.no_grad():
        for part_NHW in torch.split(painted_NHW, 32):
            x_N1HW = preprocessing.normalization.apply(part_NHW.to(training_device()))
            patch_NHW = preprocessing.normalization.grey_levels(network(x_N1HW))
            center_patch(part_NHW).copy_(patch_NHW)
    return painted_NHW


def metadata_logits(folder: Path, pool: PretrainingSet) -> Tensor:
    """The logits, shape (N, labels), by which the method dcm in `folder` tells the labels of the N validation images.

    Computed in float32. Raises `UserError` where the folder holds no such encoder, and ValueError where the pool has
    another size or another number of labels than it was trained for.
    """
    preprocessing = Preprocessing.read(folder)
    if pool.size != (preprocessing.height, preprocessing.width):
        raise ValueError(f"images of {pool.size}, not {preprocessing.height, preprocessing.width}")
    path, device = folder / encoder_folder.METADATA_HEAD, training_device()
    if not path.is_file():
        raise UserError(f"{path} does not exist: only the method dcm predicts labels.")
    encoder = load_encoder(preprocessing.backbone, folder / encoder_folder.ENCODER)
    head, weights = MetadataHead(encoder.channels[-1], len(pool.label_names)), read_tensors(path)
    if weights["classifier.bias"].shape != head.classifier.bias.shape:
        raise ValueError(f"{len(pool.label_names)} labels, not {len(weights['classifier.bias'])}")
    head.load_state_dict(weights)
    network = to_device(nn.Sequential(encoder, head), device)
    return validation_logits(network, pool.to(device), preprocessing.normalization, 32)[0]


@dataclass(frozen=True)
class _Job:
    """One encoder to be made."""

    name: str
    backbone: Backbone
    method: Method
    pool: PretrainingSet
    settings: EncoderSettings
    folder: Path
    fingerprint: str
    log: Log
    on_epoch: OnEpoch

    @property
    def plan(self) -> Plan:
        """How long it takes; `images` are those of all processes."""
        size = self.settings.batch_size
        return Plan(self.name, self.settings.epochs, self.pool.steps(size), size)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.plan.epochs * self.plan.steps


def _outcome(job: _Job) -> Outcome:
    """Do the job; what goes wrong in a foreseen way is an outcome, too."""
    began = time.monotonic() - seconds_done(job.folder / encoder_folder.CHECKPOINT, job.fingerprint)
    try:
        _MAKERS[job.method](job, fit_normalization(job.pool.images, job.pool.train))
    except WeightsUnavailable as reason:
        return Outcome("unavailable", str(reason), job.fingerprint)
    except Diverged as reason:
        return Outcome("diverged", str(reason), job.fingerprint, time.monotonic() - began)
    return Outcome("ran", "", job.fingerprint, time.monotonic() - began)


def _make_baseline(job: _Job, normalization: Normalization) -> None:
    if group().is_main:
        _save(job, normalization, _fresh_encoder(job), History(), {})


def _make_imagenet(job: _Job, normalization: Normalization) -> None:
    encoder = imagenet_encoder(job.backbone, _weights_file(job.backbone, job.settings))
    if group().is_main:
        _save(job, normalization, encoder, History(), {})


def training_of(
    backbone: Backbone, method: Method, pool: PretrainingSet, settings: EncoderSettings, log: Log
) -> tuple[Trainer[Batch], Plan] | None:
    """The training that `pretrain` would do, as it is before its first step; None of a method that trains nothing.

    For trying how long a step takes: nothing is written, and images are normalized by a guess. Raises as `pretrain`.
    """
    if method not in TRAINED:
        return None
    name = f"{backbone} {method}"
    job = _Job(name, backbone, method, pool, settings, Path(), "", log, lambda epoch, metrics: None)
    plan, guess = job.plan, Normalization(mean=128.0, sd=64.0)
    return (_metadata_training(job, guess)[1] if method == "dcm" else _context_training(job, guess)[1]), plan


def _metadata_training(job: _Job, normalization: Normalization) -> tuple[Encoder, MetadataTraining]:
    pool, settings = _own_share(job.pool, job.settings)
    encoder = _placed(_fresh_encoder(job), settings)
    with seeded(settings.seed, "head"):
        head = _placed(MetadataHead(encoder.channels[-1], len(pool.label_names)), settings)
    encode = maybe_compile(encoder, job.steps, job.log)
    return encoder, MetadataTraining(encoder, head, pool.to(training_device()), normalization, settings, encode)


def _make_dcm(job: _Job, normalization: Normalization) -> None:
    encoder, training = _metadata_training(job, normalization)
    history = _fit(job, training)
    if group().is_main:
        report = training.report(job.pool.to(training_device()))
        write_tensors(job.folder / encoder_folder.METADATA_HEAD, training.trained.networks["head"].state_dict())
        write_json(job.folder / encoder_folder.METADATA, report)
        _save(job, normalization, encoder, history, {f"validation, {row['label']}": _told(row) for row in report})


def _told(row: dict[str, Any]) -> str:
    """One label's row of the report, as the model card says it."""
    if row["auc"] is None:
        return f"known of {row['images']} images, which do not differ in it"
    return (
        f"accuracy {row['accuracy']:.3f}, balanced accuracy {row['balanced_accuracy']:.3f}, AUC {row['auc']:.3f}; "
        f"carried by {row['base_rate']:.3f} of {row['images']} images"
    )


def _context_training(job: _Job, normalization: Normalization) -> tuple[ContextEncoder, ContextEncoderTraining]:
    pool, settings = _own_share(job.pool, job.settings)
    encoder = _fresh_encoder(job)
    with seeded(settings.seed, "decoder", job.backbone):
        network = _placed(ContextEncoder(encoder, Decoder(encoder.channels[-1])), settings)
    with seeded(settings.seed, "discriminator"):
        labels = len(pool.label_names) if job.method in LABELLED else 0
        discriminator = _placed(Discriminator(labels, settings.discriminator_batch_norm), settings)
    pool, inpaint = pool.to(training_device()), maybe_compile(network, job.steps, job.log)
    return network, ContextEncoderTraining(network, discriminator, pool, normalization, settings, inpaint)


def _make_context_encoder(job: _Job, normalization: Normalization) -> None:
    network, training = _context_training(job, normalization)
    history = _fit(job, training)
    if group().is_main:
        val_mse = history.curves[history.best_epoch - 1]["val_mse"]
        report = inpainting_report(val_mse, job.pool.to(training_device()), normalization)
        write_tensors(job.folder / encoder_folder.DECODER, network.decoder.state_dict())
        write_json(job.folder / encoder_folder.INPAINTING, report)
        _save(
            job,
            normalization,
            network.encoder,
            history,
            {f"inpainting, {what}": value for what, value in report.items()},
        )


def _own_share(pool: PretrainingSet, settings: EncoderSettings) -> tuple[PretrainingSet, EncoderSettings]:
    """What this process trains on, and its settings: its share of the patients and of every batch."""
    rank, world = group().rank, group().world_size
    if settings.batch_size % world:
        raise UserError(f"pretraining.batch_size {settings.batch_size} cannot be shared out among {world} processes.")
    share = pool if world == 1 else pool.shard(rank, world)
    own = settings.model_copy(update={"batch_size": settings.batch_size // world})
    share.steps(own.batch_size)  # raises where they do not fill one batch
    return share, own


def _placed(network: Network, settings: EncoderSettings) -> Network:
    """`network` on this process's device, its batch norm as the recipe wants it among several processes."""
    if group().world_size > 1 and settings.sync_batch_norm:
        if training_device().type != "cuda":
            raise UserError("pretraining.sync_batch_norm needs GPUs: PyTorch has no such batch norm on CPUs.")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return to_device(network, training_device())


_MAKERS: dict[Method, Callable[[_Job, Normalization], None]] = {
    "baseline": _make_baseline,
    "imagenet": _make_imagenet,
    "dcm": _make_dcm,
    "ce": _make_context_encoder,
    "ce_dcm": _make_context_encoder,
}


def _fresh_encoder(job: _Job) -> Encoder:
    """The initial weights: of one seed and backbone the same for every method."""
    with seeded(job.settings.seed, "encoder", job.backbone):
        return build_encoder(job.backbone)


def _fit(job: _Job, training: Trainer[Batch]) -> History:
    configure_backends(training_device())
    checkpoint = job.folder / encoder_folder.CHECKPOINT
    return fit_with_progress(training, job.plan, checkpoint, job.fingerprint, job.log, job.on_epoch)


def _save(job: _Job, normalization: Normalization, encoder: Encoder, history: History, results: dict[str, Any]) -> None:
    """Write what every method's folder has."""
    preprocessing = Preprocessing(job.backbone, *job.pool.size, normalization.mean, normalization.sd)
    save_encoder(encoder, job.folder / encoder_folder.ENCODER)
    preprocessing.write(job.folder)
    export_onnx(job.folder, job.log)
    if history.curves:
        write_curves(job.folder, history.curves)
    ModelCard(
        method=job.method,
        preprocessing=preprocessing,
        settings=_settings_used(job.backbone, job.method, job.settings),
        image_digest=job.pool.image_digest,
        train_images=len(job.pool.train),
        val_images=len(job.pool.val),
        labels=count_labels(job.pool) if job.method in LABELLED else (),
        label_digest=job.pool.label_digest,
        shown=job.pool.shown,
        history=history,
        results=tuple(results.items()),
    ).write(job.folder)


def _settings_used(backbone: Backbone, method: Method, settings: EncoderSettings) -> dict[str, Any]:
    """The settings that decide what `method` makes; of ImageNet's weights their digest."""
    if method == "imagenet":
        file = _weights_file(backbone, settings)
        return {"weights": digest(file.read_bytes()) if file is not None and file.is_file() else str(file)}
    if method == "baseline":
        return {"seed": settings.seed}
    unused = {"imagenet_weights"}
    if method == "dcm":
        unused |= {"discriminator_learning_rate", "lambda_adv", "lambda_rec"}
    if method == "dcm" or settings.discriminator_batch_norm:  # the paper's: encoders from before there was a choice
        unused.add("discriminator_batch_norm")
    return settings.model_dump(mode="json", exclude=unused)


def _weights_file(backbone: Backbone, settings: EncoderSettings) -> Path | None:
    named = settings.imagenet_weights.get(backbone)
    return None if named is None else Path(named)


def _load_context_encoder(folder: Path, backbone: Backbone) -> ContextEncoder:
    path = folder / encoder_folder.DECODER
    if not path.is_file():
        raise UserError(f"{path} does not exist: only the methods ce and ce_dcm inpaint.")
    encoder = load_encoder(backbone, folder / encoder_folder.ENCODER)
    decoder = Decoder(encoder.channels[-1])
    decoder.load_state_dict(read_tensors(path))
    return ContextEncoder(encoder, decoder)


def _clear(folder: Path) -> None:
    """Remove what an earlier run left in `folder`, its outcome first, but not a checkpoint it may go on from."""
    names = [
        "outcome.json",
        encoder_folder.ENCODER,
        encoder_folder.ONNX,
        encoder_folder.DECODER,
        encoder_folder.PREPROCESSING,
        encoder_folder.MODEL_CARD,
        encoder_folder.CURVES,
        encoder_folder.INPAINTING,
        encoder_folder.METADATA,
        encoder_folder.METADATA_HEAD,
    ]
    for path in [*(folder / name for name in names), *folder.glob(".*.tmp")]:
        path.unlink(missing_ok=True)
