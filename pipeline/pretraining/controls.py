"""The pool as a variant is shown it: with the labels of a control, or without the images of a source."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.methods import ShownLabels
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.source_numbers import source_numbers
from pipeline.training.seeds import generator

Sources = Callable[[], Sequence[bytes]]
"""Returns the source of each image of the pool, in its order; called only if a control needs it."""


def with_label_variant(shown: ShownLabels, pool: PretrainingSet, seed: int, sources: Sources) -> PretrainingSet:
    """The pool with the labels that an encoder of that seed is shown."""
    if shown == "shuffled":
        return with_shuffled_labels(pool, seed)
    return with_sources_as_labels(pool, sources()) if shown == "source" else pool


def without_source(pool: PretrainingSet, sources: Sequence[bytes], number: int) -> PretrainingSet:
    """The pool without the training and validation images of the source `number` (`source_numbers`).

    The digest stays that of all images, so that a patient of that source still counts as one of the training set.
    Raises `UserError` if there is no such source, or if no training or no validation image is left.
    """
    numbers_N = torch.tensor(source_numbers(sources, pool.patients_N.tolist()))
    if number > (count := int(numbers_N.max())):
        raise UserError(
            f"pretraining.variants: without_source is {number}, but the pool has {count} sources, numbered from 1."
        )
    train, val = (index_M[numbers_N[index_M] != number] for index_M in (pool.train, pool.val))
    for side, index_M in (("training", train), ("validation", val)):
        if not len(index_M):
            raise UserError(f"pretraining.variants: without_source {number} leaves the pool no {side} image.")
    return replace(pool, train=train, val=val, without_source=number)


def with_shuffled_labels(pool: PretrainingSet, seed: int) -> PretrainingSet:
    """The pool with labels shuffled across patients, separately for training and validation images.

    The images are ordered twice, patient by patient, with the patients in two random orders of `seed`; an image gets
    the labels of the image at its position in the second order. Each label is thus carried by as many images as
    before, mostly in runs of one patient's images, and is independent of the image that carries it.
    """
    giver_N = torch.arange(pool.images.count)
    for side, index_M in (("train", pool.train), ("val", pool.val)):
        first, second = (
            _patient_after_patient(index_M, pool.patients_N, generator(seed, "shuffled labels", side, line))
            for line in ("receives", "gives")
        )
        giver_N[first] = second
    return _relabelled(pool, pool.label_names, pool.labels_NL[giver_N], pool.known_NL[giver_N], "shuffled")


def with_sources_as_labels(pool: PretrainingSet, sources: Sequence[bytes]) -> PretrainingSet:
    """The pool with one label per source, one-hot by `sources`, which lists the source of each image.

    Labels are named `source 1` and so on, in the order of the sources' names, since a folder can have a person's name.
    Raises ValueError if `sources` and images differ in number.
    """
    if len(sources) != pool.images.count:
        raise ValueError(f"{len(sources)} sources of {pool.images.count} images")
    names, of_image = np.unique(np.array(sources, dtype=object), return_inverse=True)
    labels_NL = torch.nn.functional.one_hot(torch.from_numpy(of_image), len(names)).float()
    called = tuple(f"source {number}" for number in range(1, len(names) + 1))
    return _relabelled(pool, called, labels_NL, torch.ones_like(labels_NL, dtype=torch.bool), "source")


def _patient_after_patient(index_M: Tensor, patients_N: Tensor, random: torch.Generator) -> Tensor:
    """The images `index_M` patient by patient, each patient's in their order, the patients in a random order."""
    patients, of_image_M = torch.unique(patients_N[index_M], return_inverse=True)
    place_P = torch.randperm(len(patients), generator=random)
    return index_M[torch.argsort(place_P[of_image_M], stable=True)]


def _relabelled(
    pool: PretrainingSet, names: tuple[str, ...], labels_NL: Tensor, known_NL: Tensor, shown: ShownLabels
) -> PretrainingSet:
    seen = digest(names, labels_NL.numpy().tobytes(), known_NL.numpy().tobytes())
    other = replace(pool, label_names=names, labels_NL=labels_NL, known_NL=known_NL, label_digest=seen, shown=shown)
    return replace(other, relabelled=pool.archive)
