"""Metrics against scikit-learn."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipeline.downstream.ordinal import encode
from pipeline.downstream.predictions import Cell, predictions_table
from pipeline.evaluation.metrics import dice, image_scores

RNG = np.random.default_rng(5)
CELL = Cell("r", "resnet50", "ce", "t", 1.0, 0)


def rows(kind: str, columns: list[dict[str, object]]) -> pa.Table:
    common = {"patient": "p", "n_train": 1, "n_train_patients": 1, "kind": kind}
    return predictions_table([common | {"image_id": i} | row for i, row in enumerate(columns)], CELL)


def test_dice_of_an_image_is_scikit_learns_f1_of_its_pixels_averaged_over_foreground_classes() -> None:
    truth, predicted = RNG.integers(0, 3, (2, 6, 16, 24))
    counts = [
        {
            "intersection": [int(((p == c) & (t == c)).sum()) for c in (1, 2)],
            "predicted_pixels": [int((p == c).sum()) for c in (1, 2)],
            "truth_pixels": [int((t == c).sum()) for c in (1, 2)],
        }
        for p, t in zip(predicted, truth, strict=True)
    ]
    expected = [
        f1_score(t.ravel(), p.ravel(), labels=[1, 2], average="macro") for p, t in zip(predicted, truth, strict=True)
    ]
    assert image_scores(rows("segmentation", counts)) == pytest.approx(expected, abs=1e-12)


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    assert dice(np.array([0, 0, 0]), np.array([0, 5, 0]), np.array([0, 0, 7])).tolist() == [1, 0, 0]


def test_accuracy_is_scikit_learns_on_the_decoded_classes() -> None:
    truth, predicted = RNG.integers(0, 5, (2, 40))
    scores = encode(predicted, 5) * 0.8 + 0.1
    table = rows("ordinal", [{"truth": int(t), "scores": s.tolist()} for t, s in zip(truth, scores, strict=True)])
    assert image_scores(table).mean() == pytest.approx(accuracy_score(truth, predicted))


def test_a_slice_of_a_table_gives_its_own_scores() -> None:
    table = rows("ordinal", [{"truth": t, "scores": [0.9, 0.9 * (t == 2)]} for t in (0, 1, 2, 2)])
    assert image_scores(table.slice(1)).tolist() == [1, 1, 1]
    assert image_scores(pa.concat_tables([table.slice(3), table.slice(0, 1)])).tolist() == [1, 0]
