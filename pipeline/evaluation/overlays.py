"""The best, median and worst test image of a segmentation, as overlays to draw."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.downstream.predictions import unpack_mask
from pipeline.downstream.task_images import TaskImages
from pipeline.errors import UserError
from pipeline.evaluation.figures import Overlay
from pipeline.evaluation.metrics import image_scores


def best_median_worst(predictions: pa.Table, images: TaskImages) -> list[Overlay]:
    """Overlays of the images with a model's highest, median and lowest Dice, in this order.

    `predictions` (schema `PREDICTIONS`, at least one row) belong to one segmentation model, `images` to its task. Dice
    is averaged over the foreground classes. For an even number of images the lower median is chosen; ties keep the
    order of the manifest. Raises `UserError` if `predictions` do not match `images`.
    """
    scores = image_scores(predictions)
    order = np.lexsort((predictions["image_id"].to_numpy(), -scores))
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    rows = predictions.take(list(chosen.values())).to_pylist()
    return [
        _overlay(f"{name}: Dice {score:.3f}", row, images)
        for name, score, row in zip(chosen, scores[list(chosen.values())], rows, strict=True)
    ]


def _overlay(title: str, row: Mapping[str, Any], images: TaskImages) -> Overlay:
    truth_HW, image = unpack_mask(row["truth_mask"]), row["image_id"]
    index = images.image_ids.index(image) if image in images.image_ids else None
    if index is None or not np.array_equal(images.truth[index].numpy(), truth_HW):
        raise UserError(f"The images of {row['task']} have changed since its predictions: run the job `finetune`.")
    pixels_HW, predicted_HW = images.images_NHW[index].numpy(), unpack_mask(row["predicted_mask"])
    return Overlay(f"{title} (image {image})", pixels_HW, truth_HW, predicted_HW)
