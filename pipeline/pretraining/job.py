"""One encoder to be trained, and the base of the classes that train one by a method (`Method.trainer`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from torch import nn

from pipeline.errors import UserError
from pipeline.images.batches import Normalization
from pipeline.methods import EncoderSettings, Method, TrainingSettings
from pipeline.methods.method import RANDOM
from pipeline.networks.encoders import Encoder, build_encoder, synchronized
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.start import start_encoder
from pipeline.progress import Log
from pipeline.settings import Backbone
from pipeline.training.device import Network, maybe_compile, to_device, training_device
from pipeline.training.distributed import group
from pipeline.training.loop import History, OnEpoch, Plan, Trainer
from pipeline.training.seeds import seeded

S = TypeVar("S", bound=EncoderSettings)
T = TypeVar("T", bound=TrainingSettings)


@dataclass(frozen=True)
class Job(Generic[S]):
    """An encoder to be trained by `method` on `pool` into `folder`; of several processes, each holds the whole job."""

    name: str
    backbone: Backbone
    method: Method
    pool: PretrainingSet
    settings: S
    folder: Path
    fingerprint: str
    log: Log
    on_epoch: OnEpoch

    def fresh_encoder(self) -> Encoder:
        """The initial encoder: the same for every method of one seed, backbone and `start_from`.

        Raises `WeightsUnavailable` and `UserError` as `pipeline.pretraining.start.start_encoder`.
        """
        if isinstance(self.settings, TrainingSettings) and self.settings.start_from != RANDOM:
            return start_encoder(self.settings, self.backbone)
        with seeded(self.settings.seed, "encoder", self.backbone):
            return build_encoder(self.backbone)


class MethodRun:
    """Base of the classes that train an encoder by a method, made from a job and the normalization of its images."""

    encoder: Encoder
    own_normalization: Normalization | None = None
    """The encoder's own z-score; None if it is that of the pool."""
    training: tuple[Trainer[Any], Plan] | None = None
    """None if nothing is trained."""

    def write_results(self, history: History) -> Mapping[str, Any]:
        """Write the method's own files (`Method.files`); returns results for the model card."""
        return {}


def plan_of(job: Job[T]) -> Plan:
    """Name and length of the training; its images are those of all processes."""
    size = job.settings.batch_size
    return Plan(job.name, job.settings.epochs, job.pool.steps(size), size, job.settings.patience)


def own_share(pool: PretrainingSet, settings: T) -> tuple[PretrainingSet, T]:
    """The patients on which this process trains, and the settings with its share of every batch.

    Raises `UserError` if a batch cannot be divided evenly, or the images do not fill one.
    """
    rank, world = group().rank, group().world_size
    if settings.batch_size % world:
        raise UserError(f"pretraining.batch_size {settings.batch_size} cannot be shared out among {world} processes.")
    share = pool if world == 1 else pool.shard(rank, world)
    own = settings.model_copy(update={"batch_size": settings.batch_size // world})
    share.steps(own.batch_size)  # raises if they do not fill one batch
    return share, own


def placed(network: Network, settings: TrainingSettings) -> Network:
    """`network` on this process's device, with the recipe's batch norm across processes."""
    if group().world_size > 1 and settings.sync_batch_norm:
        if training_device().type != "cuda":
            raise UserError("pretraining.sync_batch_norm needs GPUs: PyTorch has no such batch norm on CPUs.")
        network = cast("Network", synchronized(network))
    return to_device(network, training_device())


def compiled_for(job: Job[T], network: nn.Module) -> nn.Module:
    """`network`, compiled if the job is long enough to pay for it."""
    plan = plan_of(job)
    return maybe_compile(network, plan.epochs * plan.steps, job.log)
