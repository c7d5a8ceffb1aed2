"""A downstream task's images in memory, and fractions of its training split."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.files import digest
from pipeline.recipe.downstream import Task
from pipeline.recipe.images import Images
from pipeline.training.patient_rounds import patient_rounds
from pipeline.training.seeds import generator


@dataclass(frozen=True)
class TaskImages:
    """All images of a task, on the CPU, in the order of its table.

    `images_NHW` are uint8 grey levels. `truth` is the class of each image (ordinal: int64, shape (N,)) or of each
    pixel (segmentation: uint8, shape (N, H, W)). `train`, `val` and `test` are positions along N. `cropped_by` is how
    the crop region of each image was found, `modalities` its DICOM modality.
    """

    images_NHW: Tensor
    truth: Tensor
    image_ids: tuple[int, ...]
    patients: tuple[str, ...]
    cropped_by: tuple[str, ...]
    modalities: tuple[str | None, ...]
    train: Tensor
    val: Tensor
    test: Tensor
    digest: str


def task_images(table: pa.Table, task: Task, size: Images) -> TaskImages:
    """The images of a task's `table`, as `pipeline.tasks.manifests.read_manifest` returns it, at `size`."""
    images_NHW = _pixels(table["image"], size)
    truth = torch.tensor(table["quality"].to_numpy()) if task.kind == "ordinal" else _pixels(table["mask"], size)
    patients, splits = table["patient"].to_pylist(), table["split"].to_pylist()
    train, val, test = (_positions(splits, side) for side in ("train", "val", "test"))
    read = tuple(table["cropped_by"].to_pylist()), tuple(table["modality"].to_pylist())
    content = digest(images_NHW.numpy().tobytes(), truth.numpy().tobytes(), patients, splits, read)
    image_ids = tuple(table["image_id"].to_pylist())
    return TaskImages(images_NHW, truth, image_ids, tuple(patients), *read, train, val, test, content)


def training_subset(data: TaskImages, name: str, fraction: float, seed: int, batch_size: int) -> Tensor:
    """Positions of the images in a `fraction` of the training split of the task called `name`, the same for all arms.

    Patients and their images are shuffled by `seed`; images are then taken patient by patient, one each per round. So a
    fraction covers as many patients as possible and lies within every larger one. It has at least one batch, or the
    whole split if that is smaller.
    """
    order = patient_rounds(data.train.tolist(), data.patients, generator(seed, "training_subset", name))
    return torch.tensor(order[: max(round(fraction * len(data.train)), min(batch_size, len(data.train)))])


def _positions(splits: list[str], side: str) -> Tensor:
    return torch.tensor([i for i, split in enumerate(splits) if split == side], dtype=torch.int64)


def _pixels(column: pa.ChunkedArray, size: Images) -> Tensor:
    """A column of H·W bytes per row as uint8, shape (N, H, W)."""
    flat = np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint8)
    return torch.tensor(flat.reshape(len(column), size.height, size.width))
