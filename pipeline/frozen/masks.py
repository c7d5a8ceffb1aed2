"""Masks from feature maps by one linear layer: ridge regression on every fourth pixel, fitted in closed form."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from pipeline.evaluation.constant import best_mask
from pipeline.evaluation.metrics import dice
from pipeline.frozen.problem import Positions, Problem
from pipeline.representation.features import STRIDE

RIDGES: Final = tuple(10.0**power for power in range(-1, 7))
"""Candidates for the ridge parameter, in ascending order."""
THRESHOLDS: Final = tuple(round(0.05 * step, 2) for step in range(1, 19))
"""Candidates for the share of a class above which a pixel is of that class."""
FOLDS: Final = 4

_BLOCK = 32  # images at a time
Doubles = NDArray[np.float64]


class LinearMasks:
    """One linear layer from standardized maps to the share of each foreground class around a position.

    Ridge parameter (by squared error) and threshold (by Dice) are chosen in `FOLDS` folds of patients.
    """

    def __init__(self, maps_NCHW: NDArray[np.float16], problem: Problem, train: Positions) -> None:
        self._maps, self._size = maps_NCHW, problem.masks_NHW.shape[1:]
        sample = maps_NCHW[train[:256]].astype(np.float32)
        self._mean, self._sd = sample.mean((0, 2, 3)), np.maximum(sample.std((0, 2, 3)), 1e-6)
        self._shares = _shares(problem.masks_NHW, len(problem.names))
        folds = _folds([problem.patients[position] for position in train.tolist()])
        sums = [self._sums(train[folds == fold]) for fold in range(folds.max() + 1)]
        total = _total(sums)
        weights = [_solutions(_without(total, part) if len(sums) > 1 else total) for part in sums]
        errors = [self._errors(train[folds == fold], weights[fold]) for fold in range(len(sums))]
        best = int(np.sum(errors, axis=0).argmin())
        held_out = np.concatenate(
            [self._predicted(train[folds == fold], weights[fold][best]) for fold in range(len(sums))]
        )
        order = np.concatenate([train[folds == fold] for fold in range(len(sums))])
        self._weights = _solutions(total)[best]
        self._thresholds = _best_thresholds(held_out, self._shares[order])

    def classes(self, positions: Positions) -> NDArray[np.uint8]:
        """The predicted class of each pixel of the images at `positions`, shape (n, H, W)."""
        shares = torch.from_numpy(self._predicted(positions, self._weights))
        resized = interpolate(shares, tuple(self._size), mode="bilinear", align_corners=False).numpy()
        above = resized - self._thresholds[None, :, None, None]
        return np.where(above.max(1) > 0, above.argmax(1) + 1, 0).astype(np.uint8)

    def _rows(self, positions: Positions) -> Doubles:
        """Standardized features of every position of the images, with a constant: (n · h · w, C + 1)."""
        maps = (self._maps[positions].astype(np.float32) - self._mean[:, None, None]) / self._sd[:, None, None]
        flat = maps.transpose(0, 2, 3, 1).reshape(-1, maps.shape[1])
        return np.column_stack([flat, np.ones(len(flat), np.float32)]).astype(np.float64)

    def _sums(self, positions: Positions) -> tuple[Doubles, Doubles]:
        """X'X and X'Y over the images."""
        columns, classes = self._maps.shape[1] + 1, self._shares.shape[1]
        gram, moment = np.zeros((columns, columns)), np.zeros((columns, classes))
        for block in np.array_split(positions, max(1, len(positions) // _BLOCK)):
            x = self._rows(block)
            y = self._shares[block].transpose(0, 2, 3, 1).reshape(len(x), -1)
            gram += x.T @ x
            moment += x.T @ y
        return gram, moment

    def _predicted(self, positions: Positions, weights: Doubles) -> Doubles:
        """The predicted share of each foreground class, shape (n, K, h, w)."""
        _, _, height, width = self._maps.shape
        blocks = np.array_split(positions, max(1, len(positions) // _BLOCK))
        found = np.concatenate([self._rows(block) @ weights for block in blocks])
        return found.reshape(len(positions), height, width, -1).transpose(0, 3, 1, 2)

    def _errors(self, positions: Positions, weights: Sequence[Doubles]) -> Doubles:
        """The squared error over the images for each ridge parameter."""
        together, found = np.concatenate(weights, axis=1), np.zeros(len(weights))
        for block in np.array_split(positions, max(1, len(positions) // _BLOCK)):
            truth_NKHW = self._shares[block]
            predicted = self._predicted(block, together).reshape(len(block), len(weights), *truth_NKHW.shape[1:])
            found += np.square(predicted - truth_NKHW[:, None]).sum((0, 2, 3, 4))
        return found


def mean_masks(problem: Problem, train: Positions, positions: Positions) -> NDArray[np.uint8]:
    """The control "mean mask": for each class the constant mask that fits the training masks best (`best_mask`).

    It is the same for every image; a pixel in several classes is of the last one.
    """
    one = np.zeros(problem.masks_NHW.shape[1:], np.uint8)
    for rank in range(len(problem.names)):
        one[best_mask(problem.masks_NHW[train] == rank + 1)] = rank + 1
    return np.broadcast_to(one, (len(positions), *one.shape))


def _shares(masks_NHW: NDArray[np.uint8], classes: int) -> Doubles:
    """The share of each foreground class around every fourth pixel, shape (N, K, h, w)."""
    one_hot = np.stack([masks_NHW == rank + 1 for rank in range(classes)], axis=1).astype(np.float32)
    height, width = (side // STRIDE for side in masks_NHW.shape[1:])
    return adaptive_avg_pool2d(torch.from_numpy(one_hot), (height, width)).double().numpy()


def _folds(patients: Sequence[str]) -> Positions:
    """A fold for each image, whole patients, about equally many images each."""
    folds = min(FOLDS, len(set(patients)))
    found = np.zeros(len(patients), np.int64)
    for number, (_, out) in enumerate(GroupKFold(folds).split(found, groups=patients) if folds > 1 else ()):
        found[out] = number
    return found


def _total(sums: Sequence[tuple[Doubles, Doubles]]) -> tuple[Doubles, Doubles]:
    return sum(gram for gram, _ in sums), sum(moment for _, moment in sums)  # type: ignore[return-value]


def _without(total: tuple[Doubles, Doubles], part: tuple[Doubles, Doubles]) -> tuple[Doubles, Doubles]:
    return total[0] - part[0], total[1] - part[1]


def _solutions(sums: tuple[Doubles, Doubles]) -> list[Doubles]:
    """The ridge solution for each of `RIDGES`, the constant penalized with the rest."""
    values, vectors = np.linalg.eigh(sums[0])
    rotated = vectors.T @ sums[1]
    return [vectors @ (rotated / (np.maximum(values, 0) + ridge)[:, None]) for ridge in RIDGES]


def _best_thresholds(predicted_NKHW: Doubles, shares_NKHW: Doubles) -> Doubles:
    """For each foreground class the threshold with the highest mean Dice against shares of at least one half."""
    best = []
    for rank in range(shares_NKHW.shape[1]):
        truth = shares_NKHW[:, rank] >= 0.5
        means = [_dice(predicted_NKHW[:, rank] > threshold, truth).mean() for threshold in THRESHOLDS]
        best.append(THRESHOLDS[int(np.argmax(means))])
    return np.array(best)


def _dice(predicted_NHW: NDArray[np.bool_], truth_NHW: NDArray[np.bool_]) -> Doubles:
    """Dice of each image; 1 if both are empty."""
    both = predicted_NHW & truth_NHW
    return dice(*(masks.sum((1, 2)) for masks in (both, predicted_NHW, truth_NHW)))


def mean_dice(predicted_NHW: NDArray[np.uint8], truth_NHW: NDArray[np.uint8], classes: int) -> Doubles:
    """Dice of each image, averaged over the foreground classes; 1 for a class that is in neither."""
    found: Doubles = np.mean(
        [_dice(predicted_NHW == rank + 1, truth_NHW == rank + 1) for rank in range(classes)], axis=0
    )
    return found
