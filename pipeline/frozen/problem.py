"""The problems that frozen features are scored on: labelled tasks, and the archive's own labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.downstream.task_images import TaskImages
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.pretraining.pool_questions import pool_questions
from pipeline.recipe.downstream import Task
from pipeline.tables import ARCHIVE
from pipeline.training.patient_rounds import patient_rounds
from pipeline.training.seeds import generator

Positions = NDArray[np.int64]
Split = Literal["val", "test"]
Groups = Mapping[str, tuple[str, ...]]
MAX_IMAGES = 3000
"""Maximum number of images of a split of the archive, chosen as a task's fractions are: every patient in turn."""


@dataclass(frozen=True)
class Problem:
    """N images of H × W pixels with their truth, the patient of each, and positions for training and for scoring.

    `targets_NT` are T yes-no questions: 1, 0, or -1 if unknown; `masks_NHW` are classes by pixel. One of both is empty.
    `names` are those of the questions, or of the foreground classes. `splits` are the positions that are scored.
    `sizes` are rows and columns of each image before cropping; empty if unknown. `groups` names the group of each
    image, by "machine" and by "source", if these are known; `leave_one_source_out` asks for the scores on each source
    after training on all others.
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
    groups: Groups = field(default_factory=dict)
    leave_one_source_out: bool = False

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


def problem_of_task(name: str, task: Task, data: TaskImages, groups: Groups | None = None) -> Problem:
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
        groups=groups or {},
    )


def problem_of_archive(
    pool: PretrainingSet, sizes: Sequence[tuple[int, int]] = (), groups: Groups | None = None
) -> Problem:
    """Whether an image of `pool` has each of its labels, scored on the pool's validation patients.

    `sizes` are rows and columns of the frame behind each image, `groups` the groups of each. Only some images of a
    large pool are used (`MAX_IMAGES`). A label that is not both present and absent among the training and among the
    validation images is left out.
    """
    questions = pool_questions(pool, MAX_IMAGES, MAX_IMAGES)
    kept = torch.cat([questions.train, questions.val])
    return Problem(
        ARCHIVE,
        torch.cat(list(pool.images.batches([kept]))).cpu().numpy(),
        np.concatenate([questions.train_MT, questions.val_NT]),
        np.empty((0, 0, 0), np.uint8),
        questions.names,
        tuple(map(str, pool.patients_N[kept].tolist())),
        np.arange(len(questions.train)),
        {"val": np.arange(len(questions.train), len(kept))},
        tuple(sizes[position] for position in kept.tolist()) if sizes else (),
        {kind: tuple(names[position] for position in kept.tolist()) for kind, names in (groups or {}).items()},
    )
