"""The archive's own labels as yes-no questions about some images of the pretraining pool."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.pretraining.dataset import PretrainingSet
from pipeline.training.patient_rounds import patient_rounds
from pipeline.training.seeds import generator


@dataclass(frozen=True)
class PoolQuestions:
    """Whether images have each of T labels: 1, 0, or -1 if unknown.

    `train` and `val` are positions of M training and N validation images in the pool. Only labels that are both present
    and absent on both sides are asked for.
    """

    train: Tensor
    val: Tensor
    train_MT: NDArray[np.int8]
    val_NT: NDArray[np.int8]
    names: tuple[str, ...]


def pool_questions(pool: PretrainingSet, max_train: int, max_val: int) -> PoolQuestions:
    """The questions about at most so many images of each side of `pool`, every patient in turn, the same each time."""
    train, val = _spread(pool, pool.train, max_train), _spread(pool, pool.val, max_val)
    targets_NL = torch.where(pool.known_NL, pool.labels_NL, -1).cpu().numpy().astype(np.int8)
    sides = targets_NL[train.numpy()], targets_NL[val.numpy()]
    asked = [column for column in range(targets_NL.shape[1]) if all({0, 1} <= set(side[:, column]) for side in sides)]
    names = tuple(pool.label_names[column] for column in asked)
    return PoolQuestions(train, val, sides[0][:, asked], sides[1][:, asked], names)


def _spread(pool: PretrainingSet, positions: Tensor, at_most: int) -> Tensor:
    random = generator(0, "frozen evaluation", "archive")
    chosen = patient_rounds(positions.tolist(), pool.patients_N.tolist(), random)[:at_most]
    return torch.tensor(sorted(chosen), dtype=torch.int64)
