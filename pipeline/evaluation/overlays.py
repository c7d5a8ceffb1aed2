"""The test images that show what a segmentation can and cannot do.

Belongs here: choosing them, and their outlines. Not here: drawing them (`figures`).
"""

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
    """The images on which one fine-tuned model reached its highest, its median and its lowest Dice, in this order.

    `predictions` (schema `PREDICTIONS`, at least one row) are those of one segmentation's model, `images` its task's.
    Dice is averaged over the foreground classes; of an even number the lower median is taken, equals keep the order of
    the manifest. Raises `UserError` where `predictions` are of other images or masks than `images`.
    """
    scores = image_scores(predictions)
    order = np.lexsort((predictions["image_id"].to_numpy(), -scores))
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    rows = predictions.take(list(chosen.values())).to_pylist()
    return [
        _overlay(f"{name}: Dice {score:.3f}", row, images)
        for name, score, row in zip(chosen, scores[list(chosen.values())], rows, strict=True)
    ]


def _overlay(what: str, row: Mapping[str, Any], images: TaskImages) -> Overlay:
    truth_HW, image = unpack_mask(row["truth_mask"]), row["image_id"]
    place = images.image_ids.index(image) if image in images.image_ids else None
    if place is None or not np.array_equal(images.truth[place].numpy(), truth_HW):
        raise UserError(
            f"The predictions of {row['task']} are of other images than it has now: run the job `finetune`."
        )
    return Overlay(
        f"{what} (image {image})", images.images_NHW[place].numpy(), truth_HW, unpack_mask(row["predicted_mask"])
    )
