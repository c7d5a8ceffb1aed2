"""The data sets of an experiment (paper Table 1): images and patients by split."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.display_names import KIND_LABELS, task_label
from pipeline.evaluation.document import TextTable
from pipeline.evaluation.results import write_rows
from pipeline.files import read_table, write_text
from pipeline.recipe import Recipe
from pipeline.store import Experiment


@dataclass(frozen=True)
class DatasetRow:
    """One data set; the fields, in order, are the columns of dataset_table.csv."""

    dataset: str
    task: str
    images: int
    train: int
    val: int
    test: int
    patients: int
    train_patients: int
    val_patients: int
    test_patients: int


def write_dataset_table(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> str:
    """Write dataset_table.csv and dataset_table.md; returns the table as Markdown."""
    rows = dataset_rows(recipe, experiment, pool)
    write_rows(experiment.reports / "dataset_table.csv", DatasetRow, rows)
    markdown = dataset_table(rows).markdown()
    write_text(experiment.reports / "dataset_table.md", f"# Data sets of the recipe {recipe.name}\n\n{markdown}\n")
    return markdown


def dataset_rows(recipe: Recipe, experiment: Experiment, pool: pa.Table) -> list[DatasetRow]:
    """One row for the pretraining pool and one for each task whose images are prepared."""
    tasks = [(name, task.kind, experiment.task_images(name)) for name, task in recipe.downstream.tasks.items()]
    return [
        dataset_row("Archive", "Semantic inpainting", pool),
        *(
            dataset_row(task_label(name), KIND_LABELS[kind], read_table(path, ["patient", "split"]))
            for name, kind, path in tasks
            if path.is_file()
        ),
    ]


def dataset_row(dataset: str, task: str, images: pa.Table) -> DatasetRow:
    """Count the rows of `images` (columns `patient` and `split`) and their patients by split."""
    splits = [images.filter(pc.equal(images["split"], split)) for split in ("train", "val", "test")]
    patients, *by_split = (pc.count_distinct(part["patient"]).as_py() for part in (images, *splits))
    train, val, test = map(len, splits)
    return DatasetRow(dataset, task, len(images), train, val, test, patients, *by_split)


def dataset_table(rows: Sequence[DatasetRow]) -> TextTable:
    """The data sets in the layout of the paper's Table 1, patients in parentheses."""
    return TextTable.of(
        rows,
        {
            "Data set": lambda row: row.dataset,
            "Task": lambda row: row.task,
            "images (patients)": lambda row: f"{row.images} ({row.patients})",
            "train": lambda row: f"{row.train} ({row.train_patients})",
            "val": lambda row: f"{row.val} ({row.val_patients})",
            "test": lambda row: f"{row.test} ({row.test_patients})",
        },
        numbers_from=2,
    )
