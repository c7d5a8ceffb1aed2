"""Which classes are taken for which.

Belongs here: confusion matrices of ordinal predictions. Not here: drawing them (`figures`), metrics (`task_metrics`).
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from pipeline.downstream.ordinal import decode
from pipeline.evaluation.metrics import matrix


def confusion(predictions: pa.Table, classes: int) -> NDArray[np.int64] | None:
    """How many of `predictions` (schema `PREDICTIONS`, of one ordinal task) of each true class got each class.

    Shape (classes, classes): the true class along the first axis, the decoded one along the second. A test image counts
    once for every seed that predicted it. None where there are no predictions.
    """
    if not len(predictions):
        return None
    truth, decoded = predictions["truth"].to_numpy(), decode(matrix(predictions["scores"]))
    counts: NDArray[np.int64] = confusion_matrix(truth, decoded, labels=range(classes))
    return counts
