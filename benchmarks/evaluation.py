"""Speed of the metrics' bootstrap compared with a loop over scikit-learn (tests compare the numbers)."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error, roc_auc_score

from benchmarks.measure import Row, compare, table
from pipeline.downstream.ordinal import decode
from pipeline.downstream.predictions import Cell, predictions_table
from pipeline.evaluation.bootstrap import resample_indices
from pipeline.evaluation.task_metrics import task_metrics
from pipeline.recipe.evaluation import Evaluation

IMAGES = 335  # of the paper's quality task, whose bootstrap draws half of them 1,000 times
CLASSES = ("0", "1", "2", "3", "4")
ScikitLearn = Callable[[NDArray[np.int64]], float]


def measure() -> list[Row]:
    """A row per kind of metric, on random predictions."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, IMAGES)
    scores = random.random((IMAGES, 4)).astype(np.float32)
    rows = [{"truth": int(t), "scores": s.tolist()} for t, s in zip(truth, scores, strict=True)]
    cell = Cell("benchmark", "resnet50", "ce", "quality", 1.0, 0)
    common = {"patient": "p", "n_train": 0, "n_train_patients": 0, "kind": "ordinal"}
    predictions = predictions_table([common | {"image_id": i} | row for i, row in enumerate(rows)], cell)
    ours = task_metrics(predictions, CLASSES)
    indices = resample_indices(IMAGES, Evaluation())
    peers = _peers(truth, decode(scores), scores[:, 0])
    return [
        compare(
            f"bootstrap of {name}, half of {IMAGES} images",
            "resamples",
            len(indices),
            partial(ours[name], indices),
            partial(_loop, peer, indices),
            "scikit-learn's metric, resample by resample",
        )
        for name, peer in peers.items()
    ]


def _peers(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], scores: NDArray[np.float32]
) -> Mapping[str, ScikitLearn]:
    return {
        "accuracy": lambda i: accuracy_score(truth[i], predicted[i]),
        "mean absolute error": lambda i: mean_absolute_error(truth[i], predicted[i]),
        "quadratic kappa": lambda i: cohen_kappa_score(truth[i], predicted[i], labels=range(5), weights="quadratic"),
        "auc at least 1": lambda i: roc_auc_score(truth[i] > 0, scores[i]),
    }


def _loop(metric: ScikitLearn, indices: NDArray[np.int64]) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return [metric(resample) for resample in indices]


if __name__ == "__main__":
    print(table(measure()))
