"""The problems that frozen features are scored on: labelled tasks, and the archive's own labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.downstream.task_images import TaskImages
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.recipe.downstream import Task
from pipeline.training.patient_rounds import patient_rounds
from pipeline.training.seeds import generator

Positions = NDArray[np.int64]
Split = Literal["val", "test"]
ARCHIVE = "archive"
"""Name of the problem of the archive's own labels."""
MAX_IMAGES = 3000
"""Maximum number of images of a split of the archive, chosen as a task's fractions are: every patient in turn."""


@dataclass(frozen=True)
class Problem:
    """N images of H × W pixels with their truth, the patient of each, and positions for training and for scoring.

    `targets_NT` are T yes-no questions: 1, 0, or -1 if unknown; `masks_NHW` are classes by pixel. One of both is empty.
    `names` are those of the questions, or of the foreground classes. `splits` are the positions that are scored.
    `sizes` are rows and columns of each image before cropping; empty if unknown.
    """

    name: str
    images_NHW: NDArray[np.uint8]
    targets_NT: NDArray[np.int8]
    masks_NHW: NDArray[np.uint8]
    names: tuple[str, ...]
    patients: tuple[str, ...]
    train: Positions
    splits: Mapping[Split, Positions]
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def is_segmentation(self) -> bool:
        """Whether the truth is a mask."""
        return len(self.masks_NHW) > 0

    @property
    def evaluated(self) -> Positions:
        """The positions that are scored, split by split."""
        return np.concatenate([np.empty(0, np.int64), *self.splits.values()])

    def fraction(self, share: float, draw: int, at_least: int) -> Positions:
        """Positions of a `share` of the training images, at least `at_least`; larger shares of a draw include it."""
        random = generator(draw, "training_subset", self.name)
        size = max(round(share * len(self.train)), min(at_least, len(self.train)))
        return np.array(patient_rounds(self.train.tolist(), self.patients, random)[:size], np.int64)


def problem_of_task(name: str, task: Task, data: TaskImages) -> Problem:
    """The task called `name`; an ordinal one asks, from the second class on, if it is reached."""
    truth = data.truth.numpy()
    ordinal = task.kind == "ordinal"
    asked = [truth >= rank for rank in range(1, len(task.classes))] if ordinal else []
    sides: dict[Split, Tensor] = {"val": data.val, "test": data.test}
    return Problem(
        name,
        data.images_NHW.numpy(),
        np.stack(asked, axis=1).astype(np.int8) if ordinal else np.empty((len(truth), 0), np.int8),
        np.empty((0, 0, 0), np.uint8) if ordinal else truth,
        tuple(f"at least {name}" for name in task.classes[1:]) if ordinal else task.classes[1:],
        data.patients,
        data.train.numpy(),
        {split: positions.numpy() for split, positions in sides.items() if len(positions)},
    )


def problem_of_archive(pool: PretrainingSet, sizes: Sequence[tuple[int, int]] = ()) -> Problem:
    """Whether an image of `pool` has each of its labels, scored on the pool's validation patients.

    `sizes` are rows and columns of the frame behind each image. Only some images of a large pool are used
    (`MAX_IMAGES`). A label that is not both present and absent among the training and among the validation images is
    left out.
    """
    patients = np.array(pool.patients_N.tolist()).astype(str)
    train, val = (_spread(side.tolist(), patients.tolist()) for side in (pool.train, pool.val))
    kept = np.concatenate([train, val])
    targets = np.where(pool.known_NL.numpy(), pool.labels_NL.numpy(), -1).astype(np.int8)[kept]
    first, second = np.arange(len(train)), np.arange(len(train), len(kept))
    asked = [
        column for column in range(targets.shape[1]) if all(_both(targets[side, column]) for side in (first, second))
    ]
    return Problem(
        ARCHIVE,
        torch.cat(list(pool.images.batches([torch.from_numpy(kept)]))).cpu().numpy(),
        targets[:, asked],
        np.empty((0, 0, 0), np.uint8),
        tuple(pool.label_names[column] for column in asked),
        tuple(patients[kept].tolist()),
        first,
        {"val": second},
        tuple(sizes[position] for position in kept.tolist()) if sizes else (),
    )


def _both(target_N: NDArray[np.int8]) -> bool:
    return {0, 1} <= set(target_N.tolist())


def _spread(positions: list[int], patients: Sequence[str]) -> Positions:
    random = generator(0, "frozen evaluation", ARCHIVE)
    return np.sort(np.array(patient_rounds(positions, patients, random)[:MAX_IMAGES], np.int64))
