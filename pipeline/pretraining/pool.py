"""The pretraining pool's table and pixels as the tensors that training takes.

Belongs here: that step between Parquet and PyTorch. Not here: which images are in the pool (`pipeline.cohort`).
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.pretraining.dataset import PretrainingSet


def pretraining_set(
    rows: pa.Table,
    images_NHW: NDArray[np.uint8],
    label_names: tuple[str, ...],
    image_digest: str,
    label_digest: str,
) -> PretrainingSet:
    """The pool `rows` (columns split and one per label, null where not known) with its N images, in the same order."""
    labels = [rows[name].combine_chunks() for name in label_names]
    known = np.stack([column.is_valid().to_numpy(zero_copy_only=False) for column in labels], axis=1)
    values = np.stack([column.fill_null(0).to_numpy() for column in labels], axis=1)
    split = np.array(rows["split"].to_pylist())
    return PretrainingSet(
        images_NHW=torch.from_numpy(images_NHW),
        labels_NL=torch.from_numpy(values.astype(np.float32)),
        known_NL=torch.from_numpy(known),
        train=_positions(split == "train"),
        val=_positions(split == "val"),
        label_names=label_names,
        image_digest=image_digest,
        label_digest=label_digest,
    )


def _positions(chosen: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen))
