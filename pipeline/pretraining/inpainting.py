"""Training a context encoder against a discriminator into its folder (methods ce and ce_dcm), and inpainting."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images.batches import Normalization, center_patch, mean_center_patch
from pipeline.methods import TrainingSettings
from pipeline.methods.ce import DECODER, INPAINTING, ContextEncoderSettings
from pipeline.networks.decoder import Decoder
from pipeline.networks.discriminator import Discriminator
from pipeline.networks.encoders import load_encoder
from pipeline.pretraining.context_encoder import ContextEncoder, ContextEncoderTraining
from pipeline.pretraining.curves import RECONSTRUCTION
from pipeline.pretraining.dataset import PretrainingSet, validation_batches
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.pretraining.job import Job, MethodRun, T, compiled_for, own_share, placed, plan_of
from pipeline.settings import Backbone
from pipeline.training.device import to_device, training_device
from pipeline.training.loop import History
from pipeline.training.seeds import seeded
from pipeline.training.tensors import read_tensors, write_tensors


class ContextEncoderRun(MethodRun):
    """Trains a context encoder against a discriminator, which sees labels if the method does."""

    def __init__(self, job: Job[ContextEncoderSettings], normalization: Normalization) -> None:
        self.job, self.normalization = job, normalization
        pool, settings = own_share(job.pool, job.settings)
        network = fresh_context_encoder(job, settings)
        with seeded(settings.seed, "discriminator"):
            labels = len(pool.label_names) if job.method.labelled else 0
            norms = settings.discriminator_batch_norm, settings.discriminator_spectral_norm
            discriminator = placed(Discriminator(labels, *norms), settings)
        pool, inpaint = pool.to(training_device()), compiled_for(job, network)
        self.encoder, self.decoder = network.encoder, network.decoder
        trainer = ContextEncoderTraining(network, discriminator, pool, normalization, settings, inpaint)
        self.training = trainer, plan_of(job)

    def write_results(self, history: History) -> Mapping[str, Any]:
        """Write the decoder, and the inpainting error of the epoch kept."""
        pool = self.job.pool.to(training_device())
        return write_inpainting(self.job.folder, self.decoder, history, pool, self.normalization)


def fresh_context_encoder(job: Job[T], settings: TrainingSettings) -> ContextEncoder:
    """The initial context encoder, the same for every method of one seed and backbone, on this process's device."""
    encoder = job.fresh_encoder()
    with seeded(settings.seed, "decoder", job.backbone):
        return placed(ContextEncoder(encoder, Decoder(encoder.channels[-1])), settings)


def write_inpainting(
    folder: Path, decoder: Decoder, history: History, pool: PretrainingSet, normalization: Normalization
) -> Mapping[str, Any]:
    """Write the decoder, and the inpainting error of the epoch kept, into `folder`; returns it for the model card."""
    report = inpainting_report(history.curves[history.best_epoch - 1][RECONSTRUCTION], pool, normalization)
    write_tensors(folder / DECODER, decoder.state_dict())
    write_json(folder / INPAINTING, report)
    return {f"inpainting, {what}": value for what, value in report.items()}


def inpainting_report(val_mse: float, pool: PretrainingSet, normalization: Normalization) -> Mapping[str, float | str]:
    """The validation error of the inpainted centre beside that of the training images' mean centre, in z-scores²."""
    mean_patch = (mean_center_patch(pool.images, pool.train) - normalization.mean) / normalization.sd
    errors = [
        (center_patch(batch.x_N1HW) - mean_patch).square().mean(dim=(1, 2, 3)).double().sum()
        for batch in validation_batches(pool, normalization, batch_size=256)
    ]
    mean_patch_mse = torch.stack(errors).sum().item() / len(pool.val)
    return {"validation_mse": val_mse, "mean_patch_mse": mean_patch_mse, "unit": "squared z-scores"}


def inpaint(folder: Path, images_NHW: Tensor) -> Tensor:
    """The uint8 grey images, shape (N, H, W), with their centres inpainted by the context encoder in `folder`.

    Raises `UserError` if the folder holds no context encoder, and ValueError at another size than it was trained at.
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


def _load_context_encoder(folder: Path, backbone: Backbone) -> ContextEncoder:
    path = folder / DECODER
    if not path.is_file():
        raise UserError(f"{path} does not exist: the encoder was trained by a method that does not inpaint.")
    encoder = load_encoder(backbone, folder / ENCODER)
    decoder = Decoder(encoder.channels[-1])
    decoder.load_state_dict(read_tensors(path))
    return ContextEncoder(encoder, decoder)
