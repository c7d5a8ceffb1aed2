"""Encoders that are not trained here: methods baseline and imagenet."""

from pipeline.images.batches import Normalization
from pipeline.methods import EncoderSettings
from pipeline.methods.imagenet import ImagenetSettings
from pipeline.networks.encoders import imagenet_encoder
from pipeline.pretraining.job import Job, MethodRun


class Baseline(MethodRun):
    """The initial weights."""

    def __init__(self, job: Job[EncoderSettings], normalization: Normalization) -> None:
        self.encoder = job.fresh_encoder()


class Imagenet(MethodRun):
    """ImageNet weights from the file that the settings name; raises `WeightsUnavailable` without one."""

    def __init__(self, job: Job[ImagenetSettings], normalization: Normalization) -> None:
        self.encoder = imagenet_encoder(job.backbone, job.settings.weights_file(job.backbone))
