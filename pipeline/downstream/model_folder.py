"""A fine-tuned model's folder: weights and description, enough to apply it without recipe, task and encoder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from pipeline.checked_json import read_checked
from pipeline.code_versions import UNET
from pipeline.downstream.predictions import Cell
from pipeline.downstream.task_images import TaskImages
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.images.batches import Normalization
from pipeline.networks.classifier import Classifier
from pipeline.networks.encoders import build_encoder
from pipeline.networks.unet import UNet, UNetVersion
from pipeline.pretraining.encoder_folder import Preprocessing
from pipeline.recipe.arms import Arm
from pipeline.recipe.downstream import Task
from pipeline.settings import Backbone, GreyLevel, GreySpread, Share, Side
from pipeline.training.tensors import read_tensors, require_finite

MODEL = "model.safetensors"
DESCRIPTION = "model.json"

CroppedBy = Literal["regions", "detected", "whole"]


class ModelDescription(BaseModel):
    """model.json: the network, the meaning of its outputs, and the preparation of its input.

    An image is resized to `height` x `width` grey pixels and normalized as (grey − `mean`) / `sd`, in grey levels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    layout: Literal[1] = 1
    """Of this file."""
    recipe: str
    task: str
    arm: Arm
    encoder: str = ""
    """Folder of the encoder that was fine-tuned; empty in older files."""
    fraction: Share
    seed: int
    kind: Literal["ordinal", "segmentation"]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    """In the order of their values; a segmentation's first is the background."""
    backbone: Backbone
    height: Side
    width: Side
    mean: GreyLevel
    sd: GreySpread
    cropped_by: Annotated[tuple[CroppedBy, ...], Field(min_length=1)]
    """How the crop regions of the training images were found; `whole` images were not cropped."""
    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of the training images; US if they were pictures without a modality."""
    unet: UNetVersion = 1
    """Version of a segmentation's network (`pipeline.networks.unet`); absent from files of version 1."""

    @property
    def name(self) -> str:
        """The model in one line."""
        return f"{self.recipe}, {self.backbone}_{self.arm}_{self.task}, fraction {self.fraction:g}, seed {self.seed}"

    @property
    def normalization(self) -> Normalization:
        """The z-score."""
        return Normalization(self.mean, self.sd)


def describe(
    cell: Cell, task: Task, encoder: str, preprocessing: Preprocessing, data: TaskImages, train: torch.Tensor
) -> ModelDescription:
    """The description of `cell`'s model, fine-tuned from the encoder folder named `encoder` on `data` at `train`."""
    positions = train.tolist()
    stated = {modality for position in positions if (modality := data.modalities[position])}
    return ModelDescription(
        **asdict(cell),
        encoder=encoder,
        kind=task.kind,
        classes=task.classes,
        height=preprocessing.height,
        width=preprocessing.width,
        mean=preprocessing.mean,
        sd=preprocessing.sd,
        cropped_by=tuple(sorted({data.cropped_by[position] for position in positions})),
        modalities=tuple(sorted(stated)) or ("US",),
        unet=UNET,
    )


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write model.json into `folder`."""
    write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def read_description(folder: Path) -> ModelDescription:
    """The description in `folder`; raises `UserError` if it is missing or does not fit its schema."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} holds no fine-tuned model: {DESCRIPTION} is missing (the job `finetune` writes it).")
    return read_checked(ModelDescription, path)


def load_network(folder: Path, description: ModelDescription) -> nn.Module:
    """The network in `folder`, on the CPU, in evaluation mode.

    Raises `UserError` if the weights are missing or do not fit `description`.
    """
    path = folder / MODEL
    if not path.is_file():
        raise UserError(f"{folder} holds no fine-tuned model: {MODEL} is missing.")
    with torch.device("meta"):  # without allocating random weights
        network = _network(description)
    network.to_empty(device="cpu")
    try:
        network.load_state_dict(require_finite(path, read_tensors(path)))
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {DESCRIPTION}: {' '.join(str(error).split())[:300]}.") from None
    return network.eval()


def _network(description: ModelDescription) -> nn.Module:
    encoder, classes = build_encoder(description.backbone), len(description.classes)
    if description.kind == "ordinal":
        return Classifier(encoder, classes, dropout=0.0)  # used in training only
    return UNet(encoder, classes, description.unet)
