"""Counts of images and patients by split."""

import pyarrow as pa

from pipeline.evaluation.dataset_table import DatasetRow, dataset_row, dataset_table
from tests.pipeline.evaluation.conftest import lines


def test_the_data_set_table_counts_images_and_patients_by_split() -> None:
    table = pa.table(
        {
            "patient": ["a", "a", "b", "c", "c", "c", "d"],
            "split": ["train", "train", "train", "val", "val", "val", "test"],
        }
    )
    row = dataset_row("thyroid", "Segmentation", table)
    assert row == DatasetRow("thyroid", "Segmentation", 7, 3, 3, 1, 4, 2, 1, 1)
    assert lines(dataset_table([row]).markdown(), "| thyroid") == [
        ["thyroid", "Segmentation", "7 (4)", "3 (2)", "3 (1)", "1 (1)"]
    ]


def test_a_pool_without_a_test_split_counts_none() -> None:
    row = dataset_row("archive", "InpaintingError", pa.table({"patient": ["a", "b"], "split": ["train", "val"]}))
    assert (row.test, row.test_patients) == (0, 0)
