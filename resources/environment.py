"""The environment variables a user sets, with their defaults.

Belongs here: reading SONOTAG_* and MLFLOW_TRACKING_URI once. Not here: opening what they name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.place import normalized
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
        tracking_uri=variables.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.mlflow / 'mlflow.db'}",
    )
