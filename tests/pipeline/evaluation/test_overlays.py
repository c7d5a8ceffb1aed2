"""The test images shown of a segmentation."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.downstream.predictions import Cell, pack_mask, predictions_table
from pipeline.downstream.task_images import TaskImages
from pipeline.errors import UserError
from pipeline.evaluation.report_figures import best_median_worst

CELL = Cell("tiny", "resnet50", "ce", "liver", 1.0, 0)
IDS = (7, 3, 11, 5)


def masks() -> np.ndarray:
    """Four images of 4 x 6 pixels, each with liver in its upper half."""
    truth_NHW = np.zeros((4, 4, 6), np.uint8)
    truth_NHW[:, :2] = 1
    return truth_NHW


@pytest.fixture
def images() -> TaskImages:
    grey = torch.arange(4, dtype=torch.uint8)[:, None, None].expand(4, 4, 6) * 10
    nothing = torch.zeros(0, dtype=torch.int64)
    names, read = ("a", "b", "c", "d"), ("whole",) * 4
    truth = torch.tensor(masks())
    return TaskImages(grey, truth, IDS, names, read, (None,) * 4, nothing, nothing, torch.arange(4), "digest")


def predictions(right: tuple[int, ...]) -> pa.Table:
    """Predictions that find `right` of each image's 12 liver pixels and nothing else: Dice 2 n / (n + 12)."""
    rows = []
    for image, found, truth in zip(IDS, right, masks(), strict=True):
        predicted = np.zeros_like(truth)
        predicted.reshape(-1)[:found] = 1
        common = {"image_id": image, "patient": "p", "n_train": 1, "n_train_patients": 1, "kind": "segmentation"}
        pixels = {"intersection": [found], "predicted_pixels": [found], "truth_pixels": [12]}
        rows.append(
            common | pixels | {"predicted_mask": pack_mask(predicted), "truth_mask": pack_mask(truth)},
        )
    return predictions_table(rows, CELL)


def test_best_median_and_worst_are_shown_in_this_order(images: TaskImages) -> None:
    """6, 12, 3 and 0 pixels of 12: Dice 0.667, 1, 0.4 and 0; the lower of the two in the middle is 0.4."""
    shown = best_median_worst(predictions((6, 12, 3, 0)), images)
    assert [overlay.title for overlay in shown] == [
        "best: Dice 1.000 (image 3)",
        "median: Dice 0.400 (image 11)",
        "worst: Dice 0.000 (image 5)",
    ]
    assert [int(overlay.image[0, 0]) for overlay in shown] == [10, 20, 30]
    assert [int(overlay.predicted.sum()) for overlay in shown] == [12, 3, 0]
    assert all(overlay.truth.tolist() == masks()[0].tolist() for overlay in shown)


def test_equals_keep_the_order_of_the_manifest(images: TaskImages) -> None:
    shown = best_median_worst(predictions((6, 6, 6, 6)), images)
    assert [overlay.title.split(" ", 3)[3] for overlay in shown] == ["(image 3)", "(image 7)", "(image 11)"]


def test_a_single_image_is_best_and_worst(images: TaskImages) -> None:
    assert (
        len({overlay.title.split(": ")[1] for overlay in best_median_worst(predictions((3, 3, 3, 3))[:1], images)}) == 1
    )


@pytest.mark.parametrize("change", ["an image gone", "another mask"])
def test_predictions_of_other_images_are_refused(images: TaskImages, change: str) -> None:
    truth = images.truth.clone()
    truth[:, 0, 0] = 0
    other = replace(images, image_ids=(70, 30, 110, 50)) if change == "an image gone" else replace(images, truth=truth)
    with pytest.raises(UserError, match=r"liver .*`finetune`"):
        best_median_worst(predictions((6, 12, 3, 0)), other)
