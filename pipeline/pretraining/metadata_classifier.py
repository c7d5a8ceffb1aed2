"""Method dcm: training an encoder to predict the weak labels, and predicting them with one (paper section 4.3)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images.batches import Normalization
from pipeline.methods import TrainingSettings
from pipeline.methods.dcm import HEAD, SCORES
from pipeline.networks.encoders import Encoder, load_encoder
from pipeline.pretraining.dataset import Batch, PretrainingSet, training_batches, validation_batches
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.job import Job, MethodRun, compiled_for, own_share, placed, plan_of
from pipeline.pretraining.label_scores import label_scores
from pipeline.pretraining.losses import label_loss
from pipeline.training.checkpoint import Trained
from pipeline.training.device import adam, autocast, to_device, training_device
from pipeline.training.distributed import average_statistics, sum_over_processes, wrap_for_ddp
from pipeline.training.loop import VALIDATION_LOSS, History, Metrics
from pipeline.training.seeds import seeded
from pipeline.training.tensors import read_tensors, write_tensors


class MetadataHead(nn.Module):
    """Global average pooling and a fully connected layer: features to one logit per label."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, labels)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Logits, shape (N, labels)."""
        logits_NL: Tensor = self.classifier(features_NCHW.mean(dim=(2, 3)))
        return logits_NL


class MetadataTraining:
    """Training of an encoder to predict the known labels of a pool; networks and pool are on one device.

    Steps call the encoder as `encode`, if given: the encoder compiled.
    """

    result_networks: tuple[str, ...] = ("encoder", "head")
    metrics: tuple[str, ...] = ("train_loss",)
    selected_by = VALIDATION_LOSS

    def __init__(
        self,
        encoder: Encoder,
        head: MetadataHead,
        pool: PretrainingSet,
        normalization: Normalization,
        settings: TrainingSettings,
        encode: nn.Module | None = None,
    ) -> None:
        self.network = nn.Sequential(encoder, head)
        self._computing = partial(autocast, settings.precision)
        self._predict = wrap_for_ddp(nn.Sequential(encoder if encode is None else encode, head))
        self.pool, self.normalization, self.settings = pool, normalization, settings
        self.optimizer = adam(self.network.parameters(), settings.learning_rate, settings.betas)
        self.trained = Trained({"encoder": encoder, "head": head}, {"classifier": self.optimizer})

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on; the network is in training mode."""
        self.network.train()
        return training_batches(self.pool, self.normalization, self.settings, epoch, first_step)

    def step(self, batch: Batch) -> Tensor:
        """Learn from a batch; returns its loss, shape (1,), left on the device."""
        with self._computing(batch.x_N1HW.device):
            logits_NL = self._predict(batch.x_N1HW).float()
        loss = label_loss(logits_NL, batch.labels_NL, batch.known_NL)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach().unsqueeze(0)

    def validate(self) -> Metrics:
        """Cross-entropy (`val_loss`) and accuracy (`val_accuracy`) over the known labels of the validation images."""
        average_statistics(self.network)
        logits_NL, labels_NL, known_NL = self._validation_logits(self.pool)
        loss, right, count = sum_over_processes(known_label_sums(logits_NL, labels_NL, known_NL)).tolist()
        return {"val_loss": loss / max(count, 1), "val_accuracy": right / max(count, 1)}

    def check_divergence(self, curves: Sequence[Metrics]) -> None:
        """Never raises: a finite cross-entropy still has a gradient."""

    def report(self, pool: PretrainingSet) -> list[dict[str, Any]]:
        """Scores of each label (`label_scores`) on all validation images of `pool`, which is on the same device.

        Of several processes, only the one that writes calls this, with the pool of all.
        """
        return label_scores(*self._validation_logits(pool), pool.label_names)

    def _validation_logits(self, pool: PretrainingSet) -> tuple[Tensor, Tensor, Tensor]:
        with self._computing(pool.images.device):
            return validation_logits(self.network, pool, self.normalization, self.settings.batch_size)


class MetadataRun(MethodRun):
    """Trains an encoder with a head that predicts the weak labels."""

    def __init__(self, job: Job[TrainingSettings], normalization: Normalization) -> None:
        self.job = job
        pool, settings = own_share(job.pool, job.settings)
        self.encoder = placed(job.fresh_encoder(), settings)
        self.head = fresh_head(self.encoder, pool, settings)
        pool, encode = pool.to(training_device()), compiled_for(job, self.encoder)
        self.trainer = MetadataTraining(self.encoder, self.head, pool, normalization, settings, encode)
        self.training = self.trainer, plan_of(job)

    def write_results(self, history: History) -> Mapping[str, Any]:
        """Write the head, and the scores of each label on validation images."""
        return write_label_scores(self.job.folder, self.head, self.trainer.report(self.job.pool.to(training_device())))


def fresh_head(encoder: Encoder, pool: PretrainingSet, settings: TrainingSettings) -> MetadataHead:
    """The initial head of `encoder` for the labels of `pool`, on this process's device."""
    with seeded(settings.seed, "head"):
        return placed(MetadataHead(encoder.channels[-1], len(pool.label_names)), settings)


def known_label_sums(logits_NL: Tensor, labels_NL: Tensor, known_NL: Tensor) -> Tensor:
    """Over the known labels: the sum of the cross-entropies, the number predicted right, and their number; float64."""
    right_NL, known = ((logits_NL > 0) == (labels_NL > 0.5)) & known_NL, known_NL.sum()
    return torch.stack([label_loss(logits_NL, labels_NL, known_NL).double() * known, right_NL.sum(), known])


def write_label_scores(folder: Path, head: MetadataHead, scores: Sequence[dict[str, Any]]) -> Mapping[str, Any]:
    """Write the head and the scores of each label into `folder`; returns the scores for the model card."""
    write_tensors(folder / HEAD, head.state_dict())
    write_json(folder / SCORES, scores)
    return {f"validation, {row['label']}": _summary(row) for row in scores}


def _summary(row: dict[str, Any]) -> str:
    """One label's scores in the model card."""
    if row["auc"] is None:
        return f"known of {row['images']} images, which do not differ in it"
    return (
        f"accuracy {row['accuracy']:.3f}, balanced accuracy {row['balanced_accuracy']:.3f}, AUC {row['auc']:.3f}; "
        f"carried by {row['base_rate']:.3f} of {row['images']} images"
    )


def metadata_logits(folder: Path, pool: PretrainingSet) -> Tensor:
    """The logits, shape (N, labels), that the encoder of method dcm in `folder` predicts for N validation images.

    Computed in float32. Raises `UserError` if the folder holds no such encoder, and ValueError if the pool has another
    size or another number of labels than it was trained for.
    """
    preprocessing = Preprocessing.read(folder)
    if pool.size != (preprocessing.height, preprocessing.width):
        raise ValueError(f"images of {pool.size}, not {preprocessing.height, preprocessing.width}")
    path, device = folder / HEAD, training_device()
    if not path.is_file():
        raise UserError(f"{path} does not exist: the encoder was trained by a method that predicts no labels.")
    encoder = load_encoder(preprocessing.backbone, folder / ENCODER)
    head, weights = MetadataHead(encoder.channels[-1], len(pool.label_names)), read_tensors(path)
    if weights["classifier.bias"].shape != head.classifier.bias.shape:
        raise ValueError(f"{len(pool.label_names)} labels, not {len(weights['classifier.bias'])}")
    head.load_state_dict(weights)
    network = to_device(nn.Sequential(encoder, head), device)
    return validation_logits(network, pool.to(device), preprocessing.normalization, 32)[0]


@torch.no_grad()
def validation_logits(
    network: nn.Module, pool: PretrainingSet, normalization: Normalization, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of an encoder and its head, labels and which are known, each (N, labels), of all validation images."""
    network.eval()
    batches = validation_batches(pool, normalization, batch_size)
    parts = [(network(batch.x_N1HW).float(), batch.labels_NL, batch.known_NL) for batch in batches]
    logits_NL, labels_NL, known_NL = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits_NL, labels_NL, known_NL
