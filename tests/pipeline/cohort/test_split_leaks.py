"""Which thumbnails of a task's images are compared between its splits."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cohort.leaks import split_leaks
from pipeline.cohort.near_duplicate_score import thumbnails
from tests.pipeline.cohort.test_near_duplicate_search import scene

WHOLES = 0, 0
"""Scenes: the same surroundings."""


def task(wholes: tuple[int, int], tissues: tuple[int, int]) -> pa.Table:
    """A training and a test image; scenes by number: the image as a whole, and its tissue."""
    pairs = zip(wholes, tissues, strict=True)
    thumbs = [thumbnails(np.stack([scene(number) for number in pair])).tobytes() for pair in pairs]
    columns = {"image_id": [0, 1], "split": ["train", "test"], "image_digest": ["a", "b"], "thumbnails": thumbs}
    return pa.table(columns)


@pytest.mark.parametrize(
    ("wholes", "tissues", "found"),
    [
        (WHOLES, (1, 2), 0),  # the surroundings of the tissue are alike, the tissue is not
        (WHOLES, (1, 1), 1),
        (WHOLES, WHOLES, 1),  # nothing is cut
        ((3, 1), (2, 1), 0),
        ((3, 1), (1, 1), 1),  # one has been cut before
        ((3, 3), (3, 2), 1),  # one of both could not be cut
    ],
)
def test_wholes_are_compared_only_if_one_of_them_is_all_tissue(
    wholes: tuple[int, int], tissues: tuple[int, int], found: int
) -> None:
    assert len(split_leaks("quality", task(wholes, tissues))) == found
