"""Encoders that are not trained here: methods baseline, imagenet and external."""

from pathlib import Path

from pipeline.images.batches import Normalization
from pipeline.methods import EncoderSettings
from pipeline.methods.external import ExternalEncoder, ExternalSettings
from pipeline.methods.imagenet import ImagenetSettings
from pipeline.networks.encoders import Encoder, WeightsUnavailable, imagenet_encoder, load_encoder
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.pretraining.job import Job, MethodRun
from pipeline.pretraining.start import encoder_in
from pipeline.settings import Backbone


class Baseline(MethodRun):
    """The initial weights."""

    def __init__(self, job: Job[EncoderSettings], normalization: Normalization) -> None:
        self.encoder = job.fresh_encoder()


class Imagenet(MethodRun):
    """ImageNet weights from the file that the settings name; raises `WeightsUnavailable` without one."""

    def __init__(self, job: Job[ImagenetSettings], normalization: Normalization) -> None:
        self.encoder = imagenet_encoder(job.backbone, job.settings.weights_file(job.backbone))


class External(MethodRun):
    """An encoder made elsewhere, with its own z-score.

    Raises `WeightsUnavailable` if its files do not exist, and `UserError` if they do not fit the backbone.
    """

    def __init__(self, job: Job[ExternalSettings], normalization: Normalization) -> None:
        named = job.settings.external.get(job.backbone)
        if named is None:
            raise WeightsUnavailable(f"pretraining.external names no encoder of {job.backbone}")
        self.encoder, self.own_normalization = _external(named, job.backbone)


def _external(named: ExternalEncoder, backbone: Backbone) -> tuple[Encoder, Normalization]:
    path, field = Path(named.weights), f"pretraining.external.{backbone}.weights"
    if named.mean is None or named.sd is None:
        return encoder_in(path, backbone, field), Preprocessing.read(path).normalization
    if not path.is_file():
        raise WeightsUnavailable(f"{field}: {path.name} does not exist")
    if named.is_onnx:
        raise WeightsUnavailable(
            f"{field}: {path.name} is an ONNX file, which the frozen evaluation scores (job `evaluate`) and nothing "
            "else uses"
        )
    return load_encoder(backbone, path), Normalization(named.mean, named.sd)
