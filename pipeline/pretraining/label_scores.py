"""Accuracy, balanced accuracy and AUC of predicted weak labels, label by label."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.pretraining.dataset import Batch


def label_scores(logits_NL: Tensor, labels_NL: Tensor, known_NL: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Per label: `label`, number of known `images`, `base_rate`, `accuracy`, `balanced_accuracy`, `auc`.

    `labels_NL` are 0 or 1. A logit above 0 predicts 1. The base rate is the share of the images with the label;
    balanced accuracy is the mean of the accuracies on images with and without it. Undefined scores are None: all of
    them if the label is known for no image, the last two if all images have the same value.
    """
    columns = zip(names, logits_NL.double().T.cpu(), (labels_NL > 0.5).T.cpu(), known_NL.bool().T.cpu(), strict=True)
    return [
        {"label": name, **_scores(logits_N[known_N], carried_N[known_N])}
        for name, logits_N, carried_N, known_N in columns
    ]


def scores_of_batches(batches: Iterable[tuple[Batch, Tensor]], names: Sequence[str]) -> list[dict[str, Any]]:
    """`label_scores` of all images of `batches`, each with its logits."""
    parts = [(logits_NL, batch.labels_NL, batch.known_NL) for batch, logits_NL in batches]
    logits_NL, labels_NL, known_NL = (torch.cat(part) for part in zip(*parts, strict=True))
    return label_scores(logits_NL, labels_NL, known_NL, names)


def _scores(logits_N: Tensor, carried_N: Tensor) -> dict[str, Any]:
    right_N, both = (logits_N > 0) == carried_N, bool(carried_N.any() and not carried_N.all())
    return {
        "images": len(logits_N),
        "base_rate": _mean(carried_N),
        "accuracy": _mean(right_N),
        "balanced_accuracy": (_share(right_N[carried_N]) + _share(right_N[~carried_N])) / 2 if both else None,
        "auc": _auc(logits_N, carried_N) if both else None,
    }


def _mean(flags_N: Tensor) -> float | None:
    return _share(flags_N) if len(flags_N) else None


def _share(flags_N: Tensor) -> float:
    return float(flags_N.double().mean())


def _auc(scores_N: Tensor, carried_N: Tensor) -> float:
    """The chance that of two images, one with the label and one without, the former scores higher; ties are a half.

    By the ranks of the scores (Mann and Whitney's U).
    """
    _, place_N, counts = torch.unique(scores_N, return_inverse=True, return_counts=True)
    rank = counts.cumsum(0) - (counts.double() - 1) / 2
    positive, negative = int(carried_N.sum()), int((~carried_N).sum())
    above = rank[place_N][carried_N].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))
