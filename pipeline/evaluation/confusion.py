"""Confusion matrices of ordinal predictions."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from pipeline.downstream.ordinal import decode
from pipeline.evaluation.metrics import matrix


def confusion(predictions: pa.Table, classes: int) -> NDArray[np.int64] | None:
    """The confusion matrix of `predictions` (schema `PREDICTIONS`, one ordinal task); None without predictions.

    Shape (classes, classes): true class along the first axis, predicted class along the second. With several seeds a
    test image counts once per seed.
    """
    if not len(predictions):
        return None
    truth, predicted = predictions["truth"].to_numpy(), decode(matrix(predictions["scores"]))
    counts: NDArray[np.int64] = confusion_matrix(truth, predicted, labels=range(classes))
    return counts
