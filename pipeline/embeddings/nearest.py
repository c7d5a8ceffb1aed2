"""The nearest neighbours of images by cosine similarity."""

from collections.abc import Sequence

import numpy as np

from pipeline.representation.features import Floats, unit

Neighbours = list[tuple[int, float]]
"""Positions of images with their cosine similarity, the most similar first."""


def nearest(vectors_NK: Floats, patients: Sequence[str], count: int, same_patient: bool) -> list[Neighbours]:
    """For each of N images, up to `count` nearest others of the same patient, or of all other patients."""
    similar_NN = unit(vectors_NK) @ unit(vectors_NK).T
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    excluded_NN = (codes[:, None] == codes) != same_patient
    np.fill_diagonal(excluded_NN, True)
    similar_NN[excluded_NN] = -np.inf
    order_NC = np.argsort(-similar_NN, axis=1, kind="stable")[:, :count]
    return [
        [(other, float(row[other])) for other in order.tolist() if np.isfinite(row[other])]
        for row, order in zip(similar_NN, order_NC, strict=True)
    ]
