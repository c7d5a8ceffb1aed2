"""Files of the store that are damaged: what can be made again is made again, the rest is kept twice.

The copy lies beside the file and holds the same: `forgotten.json` has `forgotten.copy.json`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import DamagedError, UserError
from pipeline.files import atomic_replace, write_json, write_table

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


def read_if_intact(path: Path, read: Callable[[Path], T]) -> T | None:
    """What `read` gives of the file at `path`; None if there is none, or if it is damaged, which is logged.

    Of files that are made again.
    """
    if not path.is_file():
        return None
    try:
        return read(path)
    except DamagedError:
        _LOG.warning("%s is damaged. What it held is made again.", path)
        return None


def read_mirrored(path: Path, read: Callable[[Path], T]) -> T | None:
    """What `read` gives of the file at `path`, of which a copy is kept; None if there is neither.

    If one of the two is missing or damaged, it is restored from the other one; that the file itself was is logged.
    Raises `UserError` if both are damaged.
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
        f"{path} is damaged, and so is its copy {copy.name}, or there is none: restore one of them from a backup, or "
        "remove both to do without what they held."
    )


def write_mirrored_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, and to its copy."""
    for each in (path, copy_of(path)):
        write_json(each, value)


def write_mirrored_table(path: Path, table: "pa.Table") -> None:
    """Write `table` to `path` as Parquet, and to its copy."""
    for each in (path, copy_of(path)):
        write_table(each, table)


def copy_of(path: Path) -> Path:
    """Where the copy of the file at `path` lies."""
    return path.with_name(f"{path.stem}.copy{path.suffix}")


def _restore(sound: Path, path: Path, copy: Path) -> None:
    other = path if sound == copy else copy
    content = sound.read_bytes()
    if other.is_file() and other.read_bytes() == content:
        return
    with atomic_replace(other) as temporary:
        temporary.write_bytes(content)
    if other == path:
        _LOG.warning("%s was missing or damaged. It is restored from its copy, %s.", path, copy.name)
