"""Paths in the store, and the version of its layout.

The steps from layout 3 to 4 are in `migration`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pipeline.errors import DamagedError, UserError
from pipeline.files import make_folder, make_private, read_json
from pipeline.migration import clear, copy_to_recipes, nothing_at_work
from pipeline.mirrored import read_mirrored, write_mirrored_json

SCHEMA_VERSION = 4
_SHARED_TABLES = 3
"""The layout whose tables all recipes shared."""
_WITHOUT_SEEDS = 2
"""The layout before that, in which an encoder's folder did not name its seed: there was only one."""
_VERSION, _LEFTOVERS = "schema_version", "leftovers_of"
"""Of store.json: the layout, and from which one files are still to be removed."""


class Below:
    """A path below the `root` of its owner."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, owner: "Store | Experiment", _: type) -> Path:
        return owner.root / self._path


@dataclass(frozen=True)
class Store:
    """The folder of all results."""

    root: Path

    tables = Below("tables")
    """The tables that all recipes share: the index, ledgers of files, the split. Others: `Experiment.tables`."""
    private = Below("private")
    """What must not be shared: the pseudonym key, and the path of each archive file."""
    sides = Below("private/sides.parquet")
    """The split side of every patient ever seen, also of absent patients."""
    images = Below("images")
    """Image caches, one folder per size and decoder."""
    phantom = Below("phantom")
    """The simulated clinic."""
    checks = Below("checks")
    """The last results of the blocking checks of shared tables. Those of a recipe: `Experiment.checks`."""
    locks = Below("locks")
    """Lock files; the operating system frees a lock when its holder dies."""
    mlflow = Below("mlflow")
    """MLflow's database and artifacts, unless MLFLOW_TRACKING_URI names another server."""
    _version = Below("store.json")

    def private_of(self, recipe: str) -> Path:
        """The private folder of a recipe: its worklists, and the mapping of its last run."""
        return self.private / "experiments" / recipe

    def new_predictions(self, recipe: str, model: str) -> Path:
        """A model's predictions on new images; private, because they name patients and file paths."""
        return self.private / "predictions" / recipe / model

    def experiment(self, recipe: str) -> "Experiment":
        """The folder of the recipe of that name."""
        return Experiment(self.root / "experiments" / recipe)

    def up_to_date(self) -> "Store":
        """As `open` if the store exists; creates none. Returns itself."""
        return self.open() if self._version.is_file() else self

    def open(self) -> "Store":
        """Create the store, accessible to the user alone, or migrate one of layout 2 or 3. Returns itself.

        Raises `UserError` if it has another layout, if it cannot be written, or if a process of an earlier version of
        sonotag is at work in it.
        """
        path = self._version
        try:
            make_folder(self.private).chmod(0o700)
            make_private(self.root)
            layout = read_mirrored(path, _layout_in)
            if layout is None:
                write_mirrored_json(path, {_VERSION: SCHEMA_VERSION})
            elif layout[_VERSION] not in (_WITHOUT_SEEDS, _SHARED_TABLES, SCHEMA_VERSION):
                raise UserError(
                    f"SONOTAG_STORE {self.root} has layout {layout[_VERSION]}, but this version of sonotag writes "
                    f"layout {SCHEMA_VERSION}: point SONOTAG_STORE at a new folder."
                )
            elif layout != {_VERSION: SCHEMA_VERSION}:
                self._migrate()
        except OSError as error:
            raise UserError(f"SONOTAG_STORE {self.root} cannot be written: {error.strerror}.") from None
        return self

    def _migrate(self) -> None:
        """Migrate layout 2 or 3 to this one; a killed process leaves the old or the new layout, complete.

        Files whose path changes are copied first. The version follows, then the copied files are removed.
        """
        make_folder(self.locks)
        with FileLock(self.locks / "layout.lock"):
            layout = read_mirrored(self._version, _layout_in)
            if layout and layout[_VERSION] != SCHEMA_VERSION:  # no other process has migrated it meanwhile
                with nothing_at_work(self.locks):
                    self._name_seeds()
                    copy_to_recipes(self.root)
                    write_mirrored_json(self._version, {_VERSION: SCHEMA_VERSION, _LEFTOVERS: _SHARED_TABLES})
            clear(self.root)
            write_mirrored_json(self._version, {_VERSION: SCHEMA_VERSION})

    def _name_seeds(self) -> None:
        """Rename each encoder's folder without a seed to seed 0; a killed process leaves the rest to the next."""
        for folder in self.root.glob("experiments/*/encoders/*"):
            if not re.search(r"_seed-\d+$", folder.name):
                folder.rename(folder.with_name(f"{folder.name}_seed-0"))


def _layout_in(path: Path) -> dict[str, int]:
    stated = read_json(path)
    if not isinstance(stated, dict) or not isinstance(stated.get(_VERSION), int):
        raise DamagedError(path)
    return stated


@dataclass(frozen=True)
class Experiment:
    """The folder of one recipe."""

    root: Path

    tables = Below("tables")
    """The tables that depend on the recipe."""
    checks = Below("checks")
    """The last result of every blocking check of what belongs to the recipe."""
    reports = Below("reports")
    """Tables and figures."""
    page = Below("reports/report.html")
    """All tables and figures on one page."""

    def encoder(self, backbone: str, name: str, seed: int) -> Path:
        """Folder of a pretrained encoder, by the name of its method or variant and its seed."""
        return self.root / "encoders" / f"{backbone}_{name}_seed-{seed}"

    def task_images(self, task: str) -> Path:
        """A task's images and labels at the recipe's size."""
        return self.root / "tasks" / f"{task}.parquet"

    def model(self, backbone: str, arm: str, task: str, fraction: float, seed: int) -> Path:
        """Folder of one fine-tuned model."""
        return self.root / "models" / f"{backbone}_{arm}_{task}" / f"fraction-{fraction:g}_seed-{seed}"

    def champion(self, task: str) -> Path:
        """The best encoder of a task, and its scores."""
        return self.root / "champions" / f"{task}.json"
