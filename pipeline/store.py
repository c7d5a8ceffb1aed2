"""Where things lie in the store, and which layout it has.

Belongs here: paths, the schema version, the step from the version before. Not here: what is written there.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DamagedError, UserError
from pipeline.files import make_folder, make_private, read_json
from pipeline.mirrored import read_mirrored, write_mirrored_json

SCHEMA_VERSION = 3
_WITHOUT_SEEDS = 2
"""The layout in which an encoder's folder did not say its seed: there was one only."""


@dataclass(frozen=True)
class Store:
    """The folder that holds everything the project makes; archive tables are shared by all recipes."""

    root: Path

    @property
    def tables(self) -> Path:
        """Archive tables, one Parquet file each."""
        return self.root / "tables"

    @property
    def private(self) -> Path:
        """What must not be shared: the pseudonym key, and where each archive file lies."""
        return self.root / "private"

    @property
    def sides(self) -> Path:
        """The side of the split of every patient that ever had one, also of those who are absent now."""
        return self.private / "sides.parquet"

    def new_predictions(self, recipe: str, model: str) -> Path:
        """What a model has said of new images: private, since its files name patients and their files' places."""
        return self.private / "predictions" / recipe / model

    @property
    def images(self) -> Path:
        """Image caches, one folder per size and decoder."""
        return self.root / "images"

    @property
    def phantom(self) -> Path:
        """The phantom clinic, where one has been made."""
        return self.root / "phantom"

    @property
    def checks(self) -> Path:
        """The last result of every blocking check, a folder per recipe."""
        return self.root / "checks"

    @property
    def locks(self) -> Path:
        """Lock files; the operating system frees a lock when its holder dies."""
        return self.root / "locks"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts, where no other tracking server is named."""
        return self.root / "mlflow"

    def experiment(self, recipe: str) -> "Experiment":
        """Where the recipe of that name puts what it makes."""
        return Experiment(self.root / "experiments" / recipe)

    @property
    def exists(self) -> bool:
        """Whether a store has been made there."""
        return self._version.is_file()

    @property
    def _version(self) -> Path:
        return self.root / "store.json"

    def open(self) -> "Store":
        """Make the store where there is none, or bring it from layout 2 to this one, for the user alone.

        Raises `UserError` where it has another layout, or cannot be written.
        """
        path = self._version
        try:
            make_folder(self.private).chmod(0o700)
            make_private(self.root)
            version = read_mirrored(path, _version_in)
            if version is None:
                write_mirrored_json(path, {"schema_version": SCHEMA_VERSION})
                version = SCHEMA_VERSION
            if version == _WITHOUT_SEEDS:
                version = self._name_seeds()
        except OSError as error:
            raise UserError(f"SONOTAG_STORE {self.root} cannot be written: {error.strerror}.") from None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"SONOTAG_STORE {self.root} has layout {version}, this version of sonotag writes layout "
                f"{SCHEMA_VERSION}: point SONOTAG_STORE at a new folder."
            )
        return self

    def _name_seeds(self) -> int:
        """From layout 2: every encoder's folder gets its seed, 0; returns the layout that the store has then.

        One rename a folder, and the version last: a process that is killed in between leaves the rest to the next one,
        and one that does the same at the same time finds some of it done.
        """
        for folder in self.root.glob("experiments/*/encoders/*"):
            if not re.search(r"_seed-\d+$", folder.name):
                with suppress(FileNotFoundError):
                    folder.rename(folder.with_name(f"{folder.name}_seed-0"))
        write_mirrored_json(self._version, {"schema_version": SCHEMA_VERSION})
        return SCHEMA_VERSION


def _version_in(path: Path) -> int:
    stated = read_json(path)
    version = stated.get("schema_version") if isinstance(stated, dict) else None
    if not isinstance(version, int):
        raise DamagedError(path)
    return version


@dataclass(frozen=True)
class Experiment:
    """The folder of one recipe."""

    root: Path

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
        """What is remembered of the best encoder of a task."""
        return self.root / "champions" / f"{task}.json"

    @property
    def reports(self) -> Path:
        """Tables and figures."""
        return self.root / "reports"

    @property
    def page(self) -> Path:
        """All tables and figures on one page."""
        return self.reports / "report.html"
