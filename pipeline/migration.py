"""Migrate a store of layout 3, in which all recipes shared one set of tables and check results, to layout 4.

A table's metadata (`sonotag.made_by`) names the recipe that wrote it; a table without it belongs to the recipe of the
table that the same step wrote. Tables without a known recipe are not copied: `ingest` makes them again from the image
cache.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import DamagedError, UserError
from pipeline.files import atomic_replace, read_json, read_table, write_json

_Result = dict[str, Any]
"""A check's result, the content of its file."""
_MADE_BY, _NAME = b"sonotag.made_by", re.compile("[a-z][a-z0-9_]*")
_BY_STEP = {
    "images": ("images", "rejected_frames", "near_duplicates"),
    "weak_labels": ("weak_labels", "label_changes"),
    "pretraining_pool": ("pretraining_pool",),
}
"""The tables that one step wrote, by the one of them whose metadata names the recipe."""
_OF_ALL = ("quarantine", "unmapped_descriptions")
"""Tables that derive from all of those: they belong to a recipe only if it wrote all of those."""
_SHARED = "dicom_index"
"""The one shared table with a blocking check."""
_WORKLIST, _MAPPING, _PAIRS = "unmapped_descriptions.csv", "study_groups.json", "near_duplicates"


@contextmanager
def nothing_at_work(locks: Path) -> Iterator[None]:
    """Hold the locks of training, archive and tables; raises `UserError` if another process holds one of them."""
    with ExitStack() as held:
        for name in ("training", "archive", "tables"):
            try:
                held.enter_context(FileLock(locks / f"{name}.lock").acquire(timeout=0))
            except Timeout:
                raise UserError(
                    f"The store {locks.parent} has the layout of an earlier version of sonotag, and a process of that "
                    f"version is at work in it ({name}.lock): wait until it ends, then start again."
                ) from None
        yield


def copy_to_recipes(root: Path) -> None:
    """Copy the tables, check results and worklists of the store at `root` to their paths in layout 4."""
    owners = _owners(root / "tables")
    for table, recipe in owners.items():
        _copy(root / "tables" / f"{table}.parquet", root / "experiments" / recipe / "tables" / f"{table}.parquet")
    private = root / "private"
    for table, name in (("weak_labels", _MAPPING), ("unmapped_descriptions", _WORKLIST), ("images", _PAIRS)):
        if table in owners:
            _copy(private / name, private / "experiments" / owners[table] / name)
    shared = []
    for folder in sorted(path for path in (root / "checks").glob("*") if path.is_dir()):
        checks = root / "experiments" / folder.name / "checks"
        for name, record in _results(folder):
            if record is None:  # damaged: its reader reports it
                _copy(folder / name, checks / name)
            elif name.startswith(f"{_SHARED}."):
                shared.append((name, record))
            else:
                write_json(checks / name, _moved(record, folder.name))
    for name, record in _that_count(root, shared):
        write_json(root / "checks" / name, record)


def clear(root: Path) -> None:
    """Remove the files of layout 3 that were copied, also those that a killed process did not remove."""
    for table in (*(name for names in _BY_STEP.values() for name in names), *_OF_ALL):
        (root / "tables" / f"{table}.parquet").unlink(missing_ok=True)
    for name in (_WORKLIST, _MAPPING):
        (root / "private" / name).unlink(missing_ok=True)
    recipes = (path for path in (root / "checks").glob("[a-z]*") if path.is_dir())
    for folder in (root / "private" / _PAIRS, *recipes):
        shutil.rmtree(folder, ignore_errors=True)


def _owners(tables: Path) -> dict[str, str]:
    """The recipe of each table that has one."""
    named = {table: _recipe_of(tables / f"{table}.parquet") for table in _BY_STEP}
    owners = {name: recipe for table, recipe in named.items() if recipe for name in _BY_STEP[table]}
    (of_all,) = {*named.values()} if len({*named.values()}) == 1 else {None}
    return owners | (dict.fromkeys(_OF_ALL, of_all) if of_all else {})


def _recipe_of(path: Path) -> str | None:
    with suppress(DamagedError, FileNotFoundError, KeyError, TypeError, ValueError):
        recipe = str(json.loads((read_table(path, []).schema.metadata or {})[_MADE_BY])["recipe"])
        return recipe if _NAME.fullmatch(recipe) else None
    return None


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            _copy(file, to / file.name)
    elif path.is_file():
        with atomic_replace(to) as temporary:
            temporary.write_bytes(path.read_bytes())


def _results(folder: Path) -> Iterator[tuple[str, _Result | None]]:
    """File name and content of each result of a check in `folder`, None if damaged.

    A check that was under way when its process died is unfinished.
    """
    found = {path.name: _read(path) for path in sorted(folder.glob("*.json"))}
    for path in folder.glob("under_way/*.json"):
        for check in read_json(path)["checks"]:
            name = f"{check['asset']}.{check['check']}.json"
            last = found.get(name) or {"recipe": folder.name, "description": "", "looked_at": {}, "at": ""}
            if last.get("attempt") != path.stem:
                found[name] = {**last, **check, "result": "unfinished", "attempt": path.stem}
    yield from found.items()


def _read(path: Path) -> _Result | None:
    with suppress(DamagedError):
        record = read_json(path)
        if isinstance(record, dict) and {"looked_at", "result", "at"} <= record.keys():
            return record
    return None


def _moved(record: _Result, recipe: str) -> _Result:
    looked_at = {
        f"experiments/{recipe}/{file}" if file.startswith("tables/") else file: value
        for file, value in record["looked_at"].items()
    }
    return {**record, "looked_at": looked_at}


def _that_count(root: Path, results: Iterable[tuple[str, _Result]]) -> Iterable[tuple[str, _Result]]:
    """One result for each check of the shared table, out of those of all recipes, with its file name.

    It is one that did not pass on the present table, else one that passed on it, else the latest.
    """
    path = root / "tables" / f"{_SHARED}.parquet"
    now = {f"tables/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
    ranked = sorted(results, key=lambda one: (one[1]["looked_at"] == now, one[1]["result"] != "passed", one[1]["at"]))
    return dict(ranked).items()
