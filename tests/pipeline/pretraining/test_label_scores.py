"""Accuracy, balanced accuracy and AUC by label, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from pipeline.pretraining.label_scores import label_scores


def scored(logits, labels, known):
    rows = label_scores(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(known), list("abcdefgh")[: len(known[0])]
    )
    return {row["label"]: row for row in rows}


def test_scores_equal_scikit_learns_over_the_known_labels_with_ties():
    rng = np.random.default_rng(0)
    logits = rng.integers(-3, 4, (200, 4)).astype(np.float32)  # many ties, many of them at the threshold
    labels = (rng.random((200, 4)) < (0.05, 0.3, 0.5, 0.9)).astype(np.float32)
    known = rng.random((200, 4)) < 0.8
    for column, row in enumerate(scored(logits, labels, known).values()):
        here = known[:, column]
        truth, score = labels[here, column], logits[here, column]
        assert row["images"] == here.sum()
        assert row["base_rate"] == pytest.approx(truth.mean())
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, score > 0))
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, score > 0))
        assert row["auc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)


def test_undefined_scores_are_none():
    rows = scored([[1.0, 1.0, -1.0]] * 2, [[0.0, 1.0, 0.0]] * 2, [[False, True, True]] * 2)
    assert rows["a"] == {
        "label": "a",
        "images": 0,
        "base_rate": None,
        "accuracy": None,
        "balanced_accuracy": None,
        "auc": None,
    }
    assert [rows[name]["accuracy"] for name in "bc"] == [1.0, 1.0]
    assert [rows[name]["auc"] for name in "bc"] == [None, None]
    assert [rows[name]["balanced_accuracy"] for name in "bc"] == [None, None]


def test_scores_that_agree_with_the_labels_are_perfect_and_constant_ones_are_chance():
    rows = scored([[2.0, 0.5], [-2.0, 0.5], [1.0, 0.5]], [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]], [[True, True]] * 3)
    assert (rows["a"]["auc"], rows["a"]["balanced_accuracy"]) == (1.0, 1.0)
    assert (rows["b"]["auc"], rows["b"]["balanced_accuracy"]) == (0.5, 0.5)
