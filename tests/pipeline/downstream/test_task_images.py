"""A task's images and fractions of its training split."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.downstream.task_images import TaskImages, task_images, training_subset
from tests.pipeline.downstream.conftest import SIZE, data, table, task


@pytest.fixture(scope="module")
def many() -> TaskImages:
    """200 training images of 25 patients, 8 each."""
    return task_images(table("ordinal", ["train"] * 200 + ["val", "test"], per_patient=8), task("ordinal"), SIZE)


def subset(many: TaskImages, fraction: float, seed: int = 0, batch_size: int = 4) -> list[int]:
    return training_subset(many, "quality", fraction, seed, batch_size).tolist()


def test_pixels_truth_and_splits_are_the_tables() -> None:
    rows = table("segmentation")
    images = task_images(rows, task("segmentation"), SIZE)
    assert images.images_NHW.shape == images.truth.shape == (20, 32, 64)
    assert images.images_NHW[5].numpy().tobytes() == rows["image"][5].as_py()
    assert images.truth[19].numpy().tobytes() == rows["mask"][19].as_py()
    assert [side.tolist() for side in (images.train, images.val, images.test)] == [
        list(range(12)),
        list(range(12, 16)),
        list(range(16, 20)),
    ]


def test_the_digest_notices_another_mask_and_another_split() -> None:
    rows = table("segmentation")
    masks = [np.zeros(32 * 64, np.uint8).tobytes(), *rows["mask"].to_pylist()[1:]]
    other_mask = rows.set_column(rows.column_names.index("mask"), "mask", pa.array(masks, pa.binary(32 * 64)))
    other_split = table("segmentation", ["train"] * 11 + ["val"] * 5 + ["test"] * 4)
    digests = {task_images(t, task("segmentation"), SIZE).digest for t in (rows, other_mask, other_split)}
    assert len(digests) == 3
    assert data("segmentation").digest in digests


def test_a_smaller_fraction_is_a_subset_of_a_larger_one(many: TaskImages) -> None:
    five, ten, all_images = subset(many, 0.05), subset(many, 0.1), subset(many, 1.0)
    assert (len(five), len(ten), len(all_images)) == (10, 20, 200)
    assert set(five) < set(ten) < set(all_images) == set(range(200))


def test_images_come_from_as_many_patients_as_there_are(many: TaskImages) -> None:
    twenty, thirty = subset(many, 0.1), subset(many, 0.15)
    assert len({many.patients[p] for p in twenty}) == 20
    images_per_patient = np.unique([many.patients[p] for p in thirty], return_counts=True)[1]
    assert sorted(images_per_patient) == [1] * 20 + [2] * 5


def test_at_least_one_batch_is_taken(many: TaskImages) -> None:
    assert len(subset(many, 0.01, batch_size=8)) == 8
    assert set(subset(many, 0.01, batch_size=8)) < set(subset(many, 0.1, batch_size=8))


def test_another_seed_draws_other_images_and_the_same_seed_the_same(many: TaskImages) -> None:
    assert subset(many, 0.1, seed=1) != subset(many, 0.1)
    assert subset(many, 0.1) == subset(many, 0.1)


def test_validation_and_test_images_are_never_trained_on(many: TaskImages) -> None:
    assert {200, 201}.isdisjoint(subset(many, 1.0))
