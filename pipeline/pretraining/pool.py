"""Reading the pretraining pool's table and pixels into tensors (`pipeline.cohort` selects its images)."""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.images.cache import cache_folder, load_pixels
from pipeline.images.loader import ResidentLoader
from pipeline.pretraining.dataset import PretrainingSet
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import image_digest, label_digest, read_pool, refuse_incomplete


def load_pool(store: Store, recipe: Recipe) -> PretrainingSet:
    """The recipe's pretraining pool, from the table `pretraining_pool` and the image cache.

    Raises `UserError` if either is missing or another recipe's, or if the pool lacks training or validation images.
    """
    return pool_with_pixels(read_pool(store, recipe), store, recipe)


def pool_with_pixels(rows: pa.Table, store: Store, recipe: Recipe) -> PretrainingSet:
    """As `load_pool`, of the table `rows`."""
    refuse_incomplete(rows)
    pixels = load_pixels(cache_folder(store.images, recipe.images, recipe.archive), rows)
    return pretraining_set(rows, pixels, recipe.labels.names, image_digest(rows), label_digest(rows))


def pretraining_set(
    rows: pa.Table, images_NHW: NDArray[np.uint8], label_names: tuple[str, ...], image_digest: str, label_digest: str
) -> PretrainingSet:
    """The pool `rows` with its N images, in the same order.

    `rows` needs the columns sop_instance, patient, split and one per label, null if unknown.
    """
    labels = [rows[name].combine_chunks() for name in label_names]
    known = np.stack([column.is_valid().to_numpy(zero_copy_only=False) for column in labels], axis=1)
    values = np.stack([column.fill_null(0).to_numpy() for column in labels], axis=1)
    split = np.array(rows["split"].to_pylist())
    return PretrainingSet(
        images=ResidentLoader(torch.from_numpy(images_NHW)),
        labels_NL=torch.from_numpy(values.astype(np.float32)),
        known_NL=torch.from_numpy(known),
        patients_N=_codes(rows["patient"]),
        files_N=_codes(rows["sop_instance"]),
        train=torch.from_numpy(np.flatnonzero(split == "train")),
        val=torch.from_numpy(np.flatnonzero(split == "val")),
        label_names=label_names,
        image_digest=image_digest,
        label_digest=label_digest,
    )


def _codes(names: pa.ChunkedArray) -> Tensor:
    """One number per name, in the order of their first image."""
    codes = names.combine_chunks().dictionary_encode().indices
    return torch.from_numpy(codes.to_numpy().astype(np.int64))
