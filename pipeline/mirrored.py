"""Files that survive damage: reproducible ones are made again, the others are mirrored.

The copy is beside the file: that of `forgotten.json` is `forgotten.copy.json`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import DamagedError, UserError
from pipeline.files import atomic_replace, write_json, write_table

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


def read_if_intact(path: Path, read: Callable[[Path], T]) -> T | None:
    """The reproducible file at `path`, read by `read`; None if it is missing or damaged, which is logged."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except DamagedError:
        _LOG.warning("%s is damaged; its content is made again.", path)
        return None


def read_mirrored(path: Path, read: Callable[[Path], T]) -> T | None:
    """The mirrored file at `path`, read by `read`; None if file and copy are missing.

    If one of them is missing or damaged, it is restored from the other; a restored file is logged, a restored copy is
    not. Raises `UserError` if neither is intact.
    """
    copy = copy_of(path)
    there = [each for each in (path, copy) if each.exists()]
    for each in there:
        try:
            found = read(each)
        except DamagedError:
            continue
        _restore(each, path, copy)
        return found
    if not there:
        return None
    raise UserError(
        f"{path} and its copy {copy.name} are damaged or missing: restore one of them from a backup, or remove both "
        "and lose their content."
    )


def write_mirrored_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, and to its copy."""
    for each in (path, copy_of(path)):
        write_json(each, value)


def write_mirrored_table(path: Path, table: pa.Table) -> None:
    """Write `table` to `path` as Parquet, and to its copy."""
    for each in (path, copy_of(path)):
        write_table(each, table)


def copy_of(path: Path) -> Path:
    """The path of the copy of the file at `path`."""
    return path.with_name(f"{path.stem}.copy{path.suffix}")


def _restore(sound: Path, path: Path, copy: Path) -> None:
    other = path if sound == copy else copy
    content = sound.read_bytes()
    if other.is_file() and other.read_bytes() == content:
        return
    with atomic_replace(other) as temporary:
        temporary.write_bytes(content)
    if other == path:
        _LOG.warning("%s was missing or damaged; restored from its copy %s.", path, copy.name)
