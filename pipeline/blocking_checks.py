"""Results of blocking checks, kept in the store, so that a later job does not build on a check that has not passed.

The checks themselves are in `assets`. Dagster stops only the steps of the same run after a failed check, and its own
records are lost with DAGSTER_HOME.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import DamagedError, UnreachableError, UserError
from pipeline.files import clear_abandoned, file_state, make_folder, write_text
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import SHARED

BEFORE_TRAINING = ("archive", "labels", "images", "review", "cohort", "tasks")
"""Groups of assets from which every encoder follows."""
POOL = "pretraining_pool"
"""Nothing is trained until this asset's checks have passed, even if no run has recorded a result."""
_UNDER_WAY = ".under_way"
_JOBS = {
    **dict.fromkeys(("archive", "labels", "images", "review", "cohort"), "ingest"),
    "pretraining": "pretrain",
    "evaluation": "evaluate",
    "reports": "report",
    "prediction": "predict",
}
_FILES_OF = {
    "image_cache": ("experiments/{recipe}/tables/images.parquet",),
    "pool_labels": ("experiments/{recipe}/tables/pretraining_pool.parquet",),
    "html_report": ("experiments/{recipe}/reports/report.html",),
}
_USUAL_FILES = (
    "tables/{asset}.parquet",
    "experiments/{recipe}/tables/{asset}.parquet",
    "experiments/{recipe}/tasks/{task}.parquet",
)


class Check(BaseModel):
    """A blocking check of an asset, of the group `group`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: str
    check: str
    group: str

    @property
    def job(self) -> str:
        """The job that makes the asset."""
        return job_of(self.group)


class Record(Check):
    """The last result of a check."""

    recipe: str
    """The recipe of the run that made the check."""
    result: Literal["passed", "failed", "unfinished"]
    description: str
    looked_at: dict[str, str]
    """The asset's files: path in the store to SHA-256; empty if it has none of its own."""
    at: str
    attempt: str
    """Which `Attempt` wrote it."""


class _UnderWay(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    checks: tuple[Check, ...]
    states: dict[str, list[int]]
    """Of the files that the checks look at, before: inode and time of the last change."""


class Attempt:
    """One step at work on some assets: it records what their checks find."""

    def __init__(self, store: Store, recipe: str, name: str, examined: Mapping[str, list[int]]) -> None:
        self._store, self._recipe, self._name, self._examined = store, recipe, name, examined

    def record(self, check: Check, passed: bool, description: str) -> None:
        """Write the result of `check`.

        Raises `UnreachableError` if another process has written the files that a check alone examines.
        """
        if any(state != list(file_state(self._store.root / file)) for file, state in self._examined.items()):
            raise UnreachableError(f"{check.asset} has changed while its check {check.check} examined it.")
        _write(self._store, self._recipe, check, "passed" if passed else "failed", description, self._name)


def job_of(group: str) -> str:
    """The job that makes the assets of `group`; a task's group has the task's name."""
    return _JOBS.get(group, "finetune")


@contextmanager
def attempt(store: Store, recipe: str, assets: Collection[str], checks: Sequence[Check]) -> Iterator[Attempt]:
    """Context in which `assets` are made, or `checks` of theirs run alone; `checks` are all blocking ones of `assets`.

    A check without a result at the end is unfinished if its asset's files were written or its process died; otherwise
    its earlier result stays.
    """
    _settle_killed(store, recipe)
    _remove_former_results(store, recipe, assets, checks)
    name = uuid4().hex
    if not checks:
        yield Attempt(store, recipe, name, {})
        return
    path = _folder(store, recipe, checks[0].asset) / _UNDER_WAY / f"{name}.json"
    files = sorted({file for check in checks for file in _files(store, recipe, check.asset)})
    states = {file: list(file_state(store.root / file)) for file in files}
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock"), thread_local=False):
        write_text(path, _UnderWay(checks=tuple(checks), states=states).model_dump_json())
        try:
            yield Attempt(store, recipe, name, {} if assets else states)
        finally:
            _settle(store, recipe, path, died=False)


def refuse(store: Store, recipe: str, assets: Collection[str]) -> None:
    """Raise `UserError` if a blocking check of one of `assets` has not passed, or if its files have changed since."""
    _settle_killed(store, recipe)
    found = _records(store, recipe, assets)
    for record in found:
        _refuse(store, recipe, record)
    if POOL in assets and _current(store, recipe, POOL) and not any(one.asset == POOL for one in found):
        folder = store.experiment(recipe).checks
        raise UserError(f"The checks of {POOL} have left no result in {folder}: run the job `ingest` again.")


def refuse_training(store: Store, recipe: Recipe) -> None:
    """Raise `UserError` as `refuse`, for everything that encoders follow from; the same as in Dagster's graph."""
    found = _records(store, recipe.name)
    former = {one.asset for one in found if one.group == "tasks"} - {
        f"{task}_images" for task in recipe.downstream.tasks
    }
    refuse(store, recipe.name, {POOL, *(one.asset for one in found if one.group in BEFORE_TRAINING)} - former)


def refuse_publication(store: Store, recipe: Recipe) -> None:
    """Raise `UserError` as `refuse_training`, and for the reports."""
    refuse_training(store, recipe)
    refuse(store, recipe.name, {one.asset for one in _records(store, recipe.name) if one.group == "reports"})


def _remove_former_results(store: Store, recipe: str, assets: Collection[str], checks: Collection[Check]) -> None:
    """Remove the results of checks that the assets do not have any more: nothing would renew them."""
    kept = {_result_file(store, recipe, check) for check in checks}
    for path in _results(store, recipe):
        if _asset_of(path) in assets and path not in kept:
            path.unlink(missing_ok=True)


def _refuse(store: Store, recipe: str, record: Record) -> None:
    """Raise unless the check is passed, on the files that there are now."""
    if record.result != "passed":
        raise _refusal(record)
    current = _current(store, recipe, record.asset)
    if current and record.looked_at != current:  # without any they may be on another machine
        raise UserError(
            f"{record.asset} has changed since its check {record.check} passed: run the job `{record.job}` with the "
            f"recipe {recipe} again."
        )


def _refusal(record: Record) -> UserError:
    what = f"The check {record.check} of {record.asset}"
    todo = (
        f"run the job `{record.job}` with the recipe {record.recipe} again; what follows from {record.asset} waits "
        "until it passes."
    )
    if record.result == "unfinished":
        return UserError(f"{what} has not finished: {todo}")
    found = record.description.rstrip(".")
    return UserError(f"{what} did not pass{found and f' ({found})'}: correct what it found, then {todo}")


def _write(
    store: Store,
    recipe: str,
    check: Check,
    result: Literal["passed", "failed", "unfinished"],
    description: str,
    attempt: str,
) -> None:
    record = Record(
        **check.model_dump(include=set(Check.model_fields)),
        recipe=recipe,
        result=result,
        description=description,
        looked_at=_current(store, recipe, check.asset),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        attempt=attempt,
    )
    write_text(_result_file(store, recipe, check), record.model_dump_json(indent=2) + "\n")


def _settle_killed(store: Store, recipe: str) -> None:
    """Settle what processes that died have left under way."""
    folders = [folder / _UNDER_WAY for folder in (store.checks, store.experiment(recipe).checks)]
    for folder in folders:
        clear_abandoned(folder)  # each record has a name of its own, which no later writer takes
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        lock = FileLock(path.with_suffix(".lock"), thread_local=False)
        try:
            with lock.acquire(timeout=0):
                _settle(store, recipe, path, died=True)
        except Timeout:  # it is at work
            continue


def _settle(store: Store, recipe: str, path: Path, died: bool) -> None:
    try:
        under_way = _UnderWay.model_validate_json(path.read_bytes())
    except FileNotFoundError:  # another process has settled it
        return
    except ValidationError:
        raise DamagedError(path) from None
    for check in under_way.checks:
        files = _files(store, recipe, check.asset)
        written = any(under_way.states.get(file) != list(file_state(store.root / file)) for file in files)
        last = _read(_result_file(store, recipe, check))
        if last is not None and (last.attempt == path.stem or _is_current(store, recipe, last, path)):
            continue
        if written or (died and not files):
            _write(store, recipe, check, "unfinished", "", path.stem)
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)


def _is_current(store: Store, recipe: str, last: Record, under_way: Path) -> bool:
    """Whether another attempt has checked what is there now, after the one `under_way` started: two runs at once."""
    since = file_state(_result_file(store, recipe, last))[1] > file_state(under_way)[1]
    return since and bool(last.looked_at) and last.looked_at == _current(store, recipe, last.asset)


def _records(store: Store, recipe: str, assets: Collection[str] | None = None) -> list[Record]:
    """The results of the checks of `assets`, or of all that the recipe has; raises `UserError` for a damaged one."""
    paths = (path for path in _results(store, recipe) if assets is None or _asset_of(path) in assets)
    found = (_read(path) for path in paths)
    return [one for one in found if one is not None]


def _read(path: Path) -> Record | None:
    try:
        return Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise UserError(f"{path} is damaged: remove it, and run the job that makes {_asset_of(path)} again.") from None


def _asset_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _results(store: Store, recipe: str) -> list[Path]:
    """The files of the results of the checks of shared assets, and of the recipe's."""
    return sorted((*store.checks.glob("*.json"), *store.experiment(recipe).checks.glob("*.json")))


def _folder(store: Store, recipe: str, asset: str) -> Path:
    return store.checks if asset in SHARED else store.experiment(recipe).checks


def _result_file(store: Store, recipe: str, check: Check) -> Path:
    return _folder(store, recipe, check.asset) / f"{check.asset}.{check.check}.json"


def _files(store: Store, recipe: str, asset: str) -> list[str]:
    """Paths in the store of the files that `asset` has of its own, whether they exist or not."""
    names = {"asset": asset, "recipe": recipe, "task": asset.removesuffix("_images")}
    found = [pattern.format(**names) for pattern in _FILES_OF.get(asset, _USUAL_FILES)]
    return found if asset in _FILES_OF else [file for file in found if (store.root / file).is_file()]


def _current(store: Store, recipe: str, asset: str) -> dict[str, str]:
    """The asset's files that exist, with their digests."""
    paths = {file: store.root / file for file in _files(store, recipe, asset)}
    return {file: _digest(path, *file_state(path)) for file, path in paths.items() if path.is_file()}


@lru_cache(maxsize=256)
def _digest(path: Path, inode: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
