"""The environment variables a user sets, with their defaults.

Belongs here: reading SONOTAG_* and MLFLOW_TRACKING_URI once. Not here: opening what they name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from pipeline.archive.location import normalized
from pipeline.labels.study_groups import shipped_study_groups
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store

DEMO = "demo"
"""The recipe where none is named."""


@dataclass(frozen=True)
class Environment:
    """What a run works on."""

    store: Store
    archive: str
    """A folder's absolute path, or a URL."""
    study_groups: Path
    recipe: Recipe
    tracking_uri: str


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Read the variables; raises `UserError` for a recipe that cannot be read, and an archive's URL that none can."""
    store = Store(Path(variables.get("SONOTAG_STORE") or "store").absolute())
    known = {**variables, "SONOTAG_STORE": str(store.root)}
    return Environment(
        store=store,
        archive=normalized(variables.get("SONOTAG_ARCHIVE") or str(store.phantom / "archive")),
        study_groups=Path(variables.get("SONOTAG_STUDY_GROUPS") or shipped_study_groups()).absolute(),
        recipe=load_recipe(variables.get("SONOTAG_RECIPE") or DEMO, known),
        tracking_uri=variables.get("MLFLOW_TRACKING_URI") or sqlite_address(store.mlflow / "mlflow.db"),
    )


def sqlite_address(database: Path) -> str:
    """SQLAlchemy's address of the SQLite file `database`, an absolute path of any characters.

    One with escapes names the driver, too: MLflow takes what follows sqlite:/// for a path as it is, and makes its
    folder.
    """
    escaped = URL.create("sqlite", database=str(database))
    plain = f"sqlite:///{database}"
    if make_url(plain) == escaped:
        return plain
    return escaped.set(drivername="sqlite+pysqlite").render_as_string(hide_password=False)
