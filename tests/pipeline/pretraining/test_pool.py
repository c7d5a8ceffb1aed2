"""The pool's table and pixels as tensors, in the same order."""

import numpy as np
import pyarrow as pa

from pipeline.pretraining.pool import pretraining_set


def test_labels_sides_and_unknown_values_are_read_row_by_row() -> None:
    rows = pa.table(
        {
            "sop_instance": ["y", "z", "x"],
            "patient": ["b", "a", "b"],
            "split": ["train", "val", "train"],
            "liver": pa.array([1, 0, None], pa.int8()),
            "linear": pa.array([0, None, 1], pa.int8()),
        }
    )
    images = np.arange(3 * 32 * 32, dtype=np.uint8).reshape(3, 32, 32)
    pool = pretraining_set(rows, images, ("liver", "linear"), "images", "labels")
    assert pool.labels_NL.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert pool.known_NL.tolist() == [[True, True], [True, False], [False, True]]
    assert pool.patients_N.tolist() == [0, 1, 0]
    assert pool.files_N.tolist() == [0, 1, 2]
    assert pool.train.tolist() == [0, 2]
    assert pool.val.tolist() == [1]
    assert np.array_equal(pool.images.images_NHW.numpy(), images)
    assert (pool.image_digest, pool.label_digest) == ("images", "labels")
