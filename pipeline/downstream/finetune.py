"""Fine-tuning a pretrained encoder on a downstream task: one cell of the results table, trained and tested."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.code_versions import FINETUNING, UNET
from pipeline.downstream.model_folder import DESCRIPTION, MODEL, describe, write_description
from pipeline.downstream.objectives import Objective, objective
from pipeline.downstream.predictions import ENCODER_KEY, TEST, VALIDATION, Cell, predictions_table
from pipeline.downstream.task_images import TaskImages, training_subset
from pipeline.errors import UserError
from pipeline.files import digest, write_table
from pipeline.images.batches import draw_augmentation, epoch_order
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.encoder_folder import (
    CHECKPOINT,
    CURVES,
    ENCODER,
    Preprocessing,
    encoder_digest,
    replay_metrics,
    write_curves,
)
from pipeline.progress import Log, silent
from pipeline.recipe.arms import is_frozen
from pipeline.recipe.downstream import Task
from pipeline.settings import Precision
from pipeline.training.checkpoint import Trained, remove_checkpoints
from pipeline.training.device import adam, autocast, configure_backends, maybe_compile, to_device, training_device
from pipeline.training.loop import VALIDATION_LOSS, Diverged, Metrics, OnEpoch, Plan, fit_with_progress, seconds_done
from pipeline.training.outcome import Outcome
from pipeline.training.seeds import generator, scoped_seed, seeded
from pipeline.training.tensors import write_tensors

_BETAS = (0.9, 0.999)  # of Adam, the same for every task (paper Table A2)
_EVALUATION_BATCH = 16  # images; batch norm is fixed, so that the size affects speed alone
_PREPARED = 64  # images augmented and z-scored at once: on batches of 4 a GPU would wait for kernel launches
LabelledBatch = tuple[Tensor, Tensor]
"""Images as z-scores, shape (N, 1, H, W), and their targets."""

_FILES = ("outcome.json", TEST, VALIDATION, DESCRIPTION, MODEL, CURVES)


def finetune(
    cell: Cell,
    task: Task,
    data: TaskImages,
    encoder_folder: Path,
    folder: Path,
    log: Log,
    on_epoch: OnEpoch,
    precision: Precision = "float32",
) -> Outcome:
    """Fine-tune the encoder in `encoder_folder` on a fraction of `data`'s training split, test it and fill `folder`.

    The epoch with the lowest validation loss is selected (paper section 4.4.4). Writes model.safetensors, model.json,
    curves.csv, predictions.parquet (test images), validation.parquet and, last, outcome.json into `folder`; does
    nothing if that holds the outcome of the same inputs. An encoder that did not run passes its outcome on; a loss that
    is not finite gives the outcome `diverged`. Calls `on_epoch(epoch, metrics)` with train_loss and val_loss of every
    epoch from 1, also of those done by an earlier run. Raises `UserError` if the encoder is not pretrained yet, or the
    training split is smaller than a batch.
    """
    pretrained = Outcome.read(encoder_folder)
    if pretrained is None:
        raise UserError(f"{encoder_folder} holds no finished encoder: run the job `pretrain` first.")
    fingerprint = _fingerprint(cell, task, data, encoder_folder, pretrained, precision)
    done = Outcome.read(folder)
    if done is not None and done.fingerprint == fingerprint:
        log(f"{_name(cell)}: nothing to do, {done.status} already.")
        remove_checkpoints(folder / CHECKPOINT)  # left by a run that was killed right after writing its outcome
        replay_metrics(folder, on_epoch)
        return done
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    outcome = Outcome(pretrained.status, pretrained.reason, fingerprint)
    if pretrained.status == "ran":
        outcome = _train_and_test(cell, task, data, encoder_folder, folder, fingerprint, log, on_epoch, precision)
    outcome.write(folder)
    remove_checkpoints(folder / CHECKPOINT)
    return outcome


def _fingerprint(
    cell: Cell, task: Task, data: TaskImages, encoder_folder: Path, pretrained: Outcome, precision: Precision
) -> str:
    """Digest of all inputs of the cell's result."""
    settings = {name: value for name, value in task.training.items() if name != "learning_rate"}
    encoder = encoder_digest(encoder_folder) if pretrained.status == "ran" else pretrained.reason
    rate = task.learning_rate[cell.backbone]
    repeats = task.epoch_repeats(len(training_subset(data, cell.task, cell.fraction, cell.seed, task.batch_size)))
    repeated = [repeats] if repeats > 1 else []
    network = ["unet", UNET] if task.kind == "segmentation" else []
    inputs = (asdict(cell), settings, rate, precision, data.digest, pretrained.status, encoder)
    return digest(FINETUNING, *inputs, *repeated, *network)


def _train_and_test(
    cell: Cell,
    task: Task,
    data: TaskImages,
    encoder_folder: Path,
    folder: Path,
    fingerprint: str,
    log: Log,
    on_epoch: OnEpoch,
    precision: Precision,
) -> Outcome:
    if len(data.train) < task.batch_size:
        raise UserError(
            f"Task {cell.task}: batch_size {task.batch_size} exceeds the task's {len(data.train)} training images."
        )
    began = time.monotonic() - seconds_done(folder / CHECKPOINT, fingerprint)
    with seeded(*_scope(cell, "network")):
        torch.cuda.manual_seed(scoped_seed(*_scope(cell, "network")))  # dropout draws on the device
        training = FineTuning(cell, task, data, encoder_folder, precision, log)
        try:
            history = fit_with_progress(training, training.plan, folder / CHECKPOINT, fingerprint, log, on_epoch)
        except Diverged as why:
            return Outcome("diverged", str(why), fingerprint, time.monotonic() - began)
    write_tensors(folder / MODEL, training.network.state_dict())
    write_description(folder, describe(cell, task, encoder_folder.name, training.preprocessing, data, training.train))
    write_curves(folder, history.curves)
    validated = predictions_table(training.predictions(data.val), cell)
    write_table(folder / VALIDATION, validated.replace_schema_metadata({ENCODER_KEY: encoder_digest(encoder_folder)}))
    write_table(folder / TEST, predictions_table(training.predictions(data.test), cell))
    return Outcome("ran", "", fingerprint, time.monotonic() - began)


class FineTuning:
    """The training of one cell on the training device; steps compute in `precision`, all else in float32."""

    result_networks: tuple[str, ...] = ("network",)
    metrics: tuple[str, ...] = ("train_loss",)
    selected_by = VALIDATION_LOSS

    def __init__(
        self,
        cell: Cell,
        task: Task,
        data: TaskImages,
        encoder_folder: Path,
        precision: Precision = "float32",
        log: Log = silent,
    ) -> None:
        device = training_device()
        configure_backends(device)
        self.cell, self.task, self.data = cell, task, data
        self.train = training_subset(data, cell.task, cell.fraction, cell.seed, task.batch_size)
        self.images_NHW = data.images_NHW.to(device)
        self.objective: Objective = objective(task, data, self.train, device)
        self.preprocessing = Preprocessing.read(encoder_folder)
        self.normalization = self.preprocessing.normalization
        encoder = load_encoder(cell.backbone, encoder_folder / ENCODER)
        self.network = to_device(self.objective.network(encoder), device)
        self.frozen = encoder if is_frozen(cell.arm) else None
        if self.frozen is not None:
            self.frozen.requires_grad_(False)
        trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        plan = self.plan
        self._logits = maybe_compile(self.network, plan.epochs * plan.steps, log, as_graph=True)
        self._computing = partial(autocast, precision, device)
        self.optimizer = adam(trainable, task.learning_rate[cell.backbone], _BETAS)
        self.trained = Trained({"network": self.network}, {"network": self.optimizer})

    @property
    def plan(self) -> Plan:
        """The length of the training."""
        size = self.task.batch_size
        return Plan(_name(self.cell), self.task.epochs, self._repeats * (len(self.train) // size), size)

    @property
    def _repeats(self) -> int:
        return self.task.epoch_repeats(len(self.train))

    def batches(self, epoch: int, first_step: int) -> Iterator[LabelledBatch]:
        """The batches of an epoch from `first_step` on; puts the network into training mode.

        A frozen encoder stays in evaluation mode, which keeps its batch-norm statistics.
        """
        self.network.train()
        if self.frozen is not None:
            self.frozen.eval()
        passes = range((epoch - 1) * self._repeats + 1, epoch * self._repeats + 1)
        return islice(chain.from_iterable(map(self._training_batches, passes)), first_step, None)

    def step(self, batch: LabelledBatch) -> Tensor:
        """Train on a batch; returns its loss, shape (1,), on the device."""
        x_N1HW, targets = batch
        self.optimizer.zero_grad()
        with self._computing():
            logits = self._logits(x_N1HW)
        loss = self.objective.loss(logits.to(x_N1HW.dtype), targets)
        loss.backward()
        self.optimizer.step()
        return loss.detach().unsqueeze(0)

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """No check: training with a finite loss always goes on."""

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The mean loss over the validation images (`val_loss`), in evaluation mode."""
        sums = [
            self.objective.loss(logits, self.objective.targets[index_N]) * len(index_N)
            for index_N, logits in self._evaluated(self.data.val)
        ]
        return {"val_loss": torch.stack(sums).double().sum().item() / len(self.data.val)}

    @torch.no_grad()
    def predictions(self, positions: Tensor) -> list[dict[str, Any]]:
        """The prediction of each image at `positions`, in that order, without the columns of the cell."""
        rows = [
            row
            for index_N, logits in self._evaluated(positions)
            for row in self.objective.prediction_rows(logits, self.objective.targets[index_N])
        ]
        patients = {self.data.patients[position] for position in self.train.tolist()}
        trained_on = {"n_train": len(self.train), "n_train_patients": len(patients)}
        return [
            {"image_id": self.data.image_ids[position], "patient": self.data.patients[position], **trained_on, **row}
            for position, row in zip(positions.tolist(), rows, strict=True)
        ]

    def _training_batches(self, number: int) -> Iterator[LabelledBatch]:
        """Shuffled, augmented batches of pass number `number` through the images, from 1 over all epochs.

        They depend on seed, task, fraction and that number alone, so that every arm sees the same.
        """
        device, (height, width) = self.images_NHW.device, self.images_NHW.shape[1:]
        size = self.task.batch_size
        order_SN = epoch_order(self.train, size, generator(*_scope(self.cell, "order", number))).to(device)
        draws = generator(*_scope(self.cell, "moves", number))
        augmentation = draw_augmentation(order_SN.numel(), height, width, self.task.augmentation, draws).to(device)
        steps = max(1, _PREPARED // size)
        for part_SN, augmentation_N in zip(order_SN.split(steps), augmentation.batches(steps * size), strict=True):
            index_N = part_SN.flatten()
            x_N1HW = self.normalization.apply(augmentation_N.apply(self.images_NHW[index_N]))
            targets = self.objective.augment_targets(self.objective.targets[index_N], augmentation_N)
            yield from zip(x_N1HW.split(size), targets.split(size), strict=True)

    def _evaluated(self, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions and logits, batch by batch, in evaluation mode."""
        self.network.eval()
        for index_N in torch.split(positions.to(self.images_NHW.device), _EVALUATION_BATCH):
            yield index_N, self.network(self.normalization.apply(self.images_NHW[index_N]))


def _scope(cell: Cell, purpose: str, *more: int) -> tuple[Any, ...]:
    """Seed and scope of random numbers that all arms of a cell's task and fraction share."""
    return (cell.seed, "finetune", purpose, cell.task, cell.fraction, *more)


def _name(cell: Cell) -> str:
    return f"{cell.backbone}_{cell.arm}_{cell.task}, fraction {cell.fraction:g}, seed {cell.seed}"
