"""Studies whose pixels contradict the groups of their tags, by out-of-fold predictions of models that share no patient.

Confident learning (Northcutt, Jiang and Chuang, JAIR 2021) for each label: a study's probability of a value counts
relative to the mean probability that studies tagged with that value have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

FOLDS: Final = 5
_INVERSE_PENALTY = 0.01
"""C of the logistic regressions on standardized features, chosen with a phantom of a seed that no figure is from."""
_SURE = 1e-4
"""Probabilities are kept this far from 0 and 1, so that one image cannot outweigh the others of its study."""

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Doubts:
    """What pixels say of `studies` (N) and of L labels.

    `probability` (N x L) that a study has the label, NaN if unknown; `margin` (N x L), -2 to 2, by which the pixels
    contradict the tag if positive; `listed` (N), whether a reviewer should look.
    """

    studies: list[str]
    probability: Floats
    margin: Floats
    listed: Bits

    @property
    def score(self) -> Floats:
        """The sum of a study's positive margins, by which studies are ranked."""
        return np.asarray(np.nansum(np.clip(self.margin, 0, None), axis=1))


def out_of_fold(features: npt.NDArray[np.float32], labels: Floats, persons: Sequence[str]) -> Floats:
    """The probability of each of L labels by models that saw no image of the same person: N x L, NaN if there is none.

    `features` is N x F; `labels` is N x L: 1, 0, or NaN if unknown. There is no model of a label without images of both
    values in the other folds, and none at all of one person.
    """
    probabilities, folds = np.full(labels.shape, np.nan), min(FOLDS, len(set(persons)))
    if folds < 2:
        return probabilities
    for train, test in GroupKFold(folds).split(features, groups=persons):
        scaler = StandardScaler().fit(features[train])
        seen, unseen = scaler.transform(features[train]), scaler.transform(features[test])
        for label, values in enumerate(labels[train].T):
            known = ~np.isnan(values)
            if len(np.unique(values[known])) == 2:
                model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500).fit(seen[known], values[known])
                probabilities[test, label] = model.predict_proba(unseen)[:, 1]
    return probabilities


def doubts(probabilities: Floats, labels: Floats, studies: Sequence[str]) -> Doubts:
    """The doubts about the labels (images x L, 1, 0 or NaN) of each study, from `probabilities` of its images.

    A study's probability p of a value is that of the mean log-odds of its images with the same tag. The threshold t of
    a value is the mean p of the studies tagged with it. With the tag's value and the other one, the margin is
    (p - t) of the other value less (p - t) of the tag's. A study is listed if the margin of a label is positive and p
    of the other value reaches its threshold: it is off the diagonal of the confident joint.
    """
    names, study_of = np.unique(np.asarray(studies, str), return_inverse=True)
    shape = len(names), labels.shape[1]
    probability, margin, listed = np.empty(shape), np.empty(shape), np.zeros(len(names), bool)
    for label in range(labels.shape[1]):
        found = _of_label(probabilities[:, label], labels[:, label], study_of, len(names))
        probability[:, label], margin[:, label], off_diagonal = found
        listed |= off_diagonal
    return Doubts(names.tolist(), probability, margin, listed)


def _of_label(chances: Floats, values: Floats, study_of: Numbers, count: int) -> tuple[Floats, Floats, Bits]:
    """Each study's probability of a label, its margin, and whether it is off the diagonal.

    If its images have both tags, those of the tag with the greater margin count.
    """
    known = ~np.isnan(chances) & ~np.isnan(values)
    cell = study_of[known] * 2 + values[known].astype(int)
    odds = np.clip(chances[known], _SURE, 1 - _SURE)
    images = np.bincount(cell, minlength=2 * count)
    total = np.bincount(cell, np.log(odds / (1 - odds)), minlength=2 * count)
    with np.errstate(invalid="ignore"):
        has = (1 / (1 + np.exp(-total / images))).reshape(count, 2)  # by tag, 0 and 1; NaN without such images
    own, other = np.stack([1 - has[:, 0], has[:, 1]], 1), np.stack([has[:, 0], 1 - has[:, 1]], 1)
    thresholds = _means(own)
    margin = (other - thresholds[::-1]) - (own - thresholds)
    off_diagonal = (margin > 0) & (other >= thresholds[::-1])
    tag = np.nan_to_num(margin, nan=-np.inf).argmax(axis=1)[:, None]
    return _at(has, tag), _at(margin, tag), _at(off_diagonal, tag)


def _at(values: npt.NDArray[Value], tag: Numbers) -> npt.NDArray[Value]:
    """The value of each row in its column `tag` (N x 1)."""
    return np.take_along_axis(values, tag, axis=1)[:, 0]


def _means(columns: Floats) -> Floats:
    """The means of columns without NaN; NaN of a column that has no other value."""
    known = ~np.isnan(columns)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(columns, axis=0) / known.sum(axis=0))
