"""Where things lie in the store, and which layout it has.

Belongs here: paths and the schema version. Not here: what is written there.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import read_json, write_json

SCHEMA_VERSION = 2


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

    def open(self) -> "Store":
        """Make the store where there is none; raises `UserError` where it has another layout than this code."""
        path = self.root / "store.json"
        try:
            self.private.mkdir(parents=True, exist_ok=True)
            self.private.chmod(0o700)
            if not path.exists():
                write_json(path, {"schema_version": SCHEMA_VERSION})
        except OSError as error:
            raise UserError(f"SONOTAG_STORE {self.root} cannot be written: {error.strerror}.") from None
        version = read_json(path).get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"SONOTAG_STORE {self.root} has layout {version}, this version of sonotag writes layout "
                f"{SCHEMA_VERSION}: point SONOTAG_STORE at a new folder."
            )
        return self


@dataclass(frozen=True)
class Experiment:
    """The folder of one recipe."""

    root: Path

    def encoder(self, backbone: str, method: str) -> Path:
        """Folder of a pretrained encoder."""
        return self.root / "encoders" / f"{backbone}_{method}"

    def task_images(self, task: str) -> Path:
        """A task's images and labels at the recipe's size."""
        return self.root / "tasks" / f"{task}.parquet"

    def model(self, backbone: str, arm: str, task: str, fraction: float, seed: int) -> Path:
        """Folder of one fine-tuned model."""
        return self.root / "models" / f"{backbone}_{arm}_{task}" / f"fraction-{fraction:g}_seed-{seed}"

    def predictions(self, backbone: str, arm: str, task: str) -> Path:
        """Predictions of every fraction and seed of an arm on a task's test images."""
        return self.root / "predictions" / f"{backbone}_{arm}_{task}.parquet"

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
