"""Problems with a known answer."""

import numpy as np
from numpy.typing import NDArray

from pipeline.frozen.problem import Positions, Problem, Split

NO_MASKS = np.empty((0, 0, 0), np.uint8)


def questions(targets_NT: NDArray[np.int8], per_patient: int = 2, train: int = 80) -> Problem:
    """A problem of black images with these targets; the images after the first `train` are those of validation."""
    count = len(targets_NT)
    return Problem(
        "questions",
        np.zeros((count, 32, 32), np.uint8),
        targets_NT,
        NO_MASKS,
        tuple(f"question {n}" for n in range(targets_NT.shape[1])),
        tuple(str(n // per_patient) for n in range(count)),
        np.arange(train),
        {"val": np.arange(train, count)},
    )


def squares(count: int = 60, classes: int = 1) -> Problem:
    """Noise with a brighter square of each class, whose mask is its pixels; two images a patient."""
    random = np.random.default_rng(1)
    images = random.integers(0, 60, (count, 64, 64))
    masks = np.zeros((count, 64, 64), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for rank in range(classes):
            top, left = random.integers(0, 40), rank * 32 + random.integers(0, 8)
            mask[top : top + 24, left : left + 24] = rank + 1
            image[top : top + 24, left : left + 24] += 80 * (rank + 1)
    names = tuple(f"class {rank + 1}" for rank in range(classes))
    patients = tuple(str(n // 2) for n in range(count))
    train = np.arange(count * 2 // 3)
    splits: dict[Split, Positions] = {"val": np.arange(len(train), count)}
    return Problem(
        "squares", images.astype(np.uint8), np.empty((count, 0), np.int8), masks, names, patients, train, splits
    )
