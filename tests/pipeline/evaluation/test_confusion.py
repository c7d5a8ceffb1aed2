"""Counts of confusion matrices."""

import numpy as np
import pyarrow as pa

from pipeline.downstream.predictions import PREDICTIONS, Cell, predictions_table
from pipeline.evaluation.task_metrics import confusion
from pipeline.recipe import Recipe
from tests.pipeline.evaluation.conftest import predicted


def ordinal(truth: list[int], scores: list[list[float]], seed: int = 0) -> pa.Table:
    common = {"patient": "p", "n_train": 1, "n_train_patients": 1, "kind": "ordinal"}
    rows = [
        common | {"image_id": i, "truth": t, "scores": s} for i, (t, s) in enumerate(zip(truth, scores, strict=True))
    ]
    return predictions_table(rows, Cell("tiny", "resnet50", "ce", "quality", 1.0, seed))


def test_rows_are_true_classes_and_columns_decoded_ones() -> None:
    """Decoded by hand: the number of scores above 0.5; all scores decrease."""
    table = ordinal([0, 0, 2, 2, 2], [[0.1, 0.1], [0.9, 0.2], [0.9, 0.8], [0.9, 0.2], [0.3, 0.1]])
    counts = confusion(table, 3)
    assert counts is not None
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]


def test_every_seed_counts() -> None:
    seeds = [ordinal([1], [[0.9, 0.1]], 0), ordinal([1], [[0.1, 0.1]], 1)]
    counts = confusion(pa.concat_tables(seeds), 3)
    assert counts is not None
    assert counts.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_the_diagonal_is_what_accuracy_counts(recipe: Recipe) -> None:
    counts = confusion(predicted(recipe, Cell("tiny", "resnet50", "ce", "quality", 1.0, 0), 7), 3)
    assert counts is not None
    assert (np.trace(counts), counts.sum()) == (7, 10)


def test_without_predictions_there_is_no_matrix() -> None:
    assert confusion(PREDICTIONS.empty_table(), 3) is None
