"""Identifiers that a sample of the archive's headers does not hold: rare descriptions, files given to `predict`.

Each is read from where it is kept in private; what is missing or unreadable there has nothing to look for.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.files import read_table


def rare_descriptions(private: Path) -> frozenset[str]:
    """The study descriptions that too few patients share to be published."""
    return frozenset(_texts(private / "descriptions.parquet", "study_description"))


def predicted_files(private: Path) -> Iterator[tuple[str, list[str]]]:
    """Per table of predictions: the folder that holds all of its input files, and their paths relative to it."""
    for table in sorted((private / "predictions").rglob("predictions.parquet")):
        files = sorted(_texts(table, "file"))
        if files:
            folder = os.path.commonpath([str(Path(file).parent) for file in files])
            yield folder, [os.path.relpath(file, folder) for file in files]


def _texts(table: Path, column: str) -> set[str]:
    try:
        return set(read_table(table, [column])[column].drop_null().to_pylist())
    except (OSError, DamagedError):
        return set()
