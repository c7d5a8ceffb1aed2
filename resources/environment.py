"""The environment variables that a user sets, SONOTAG_* and MLFLOW_TRACKING_URI, with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from pipeline.archive.location import normalized
from pipeline.errors import UserError
from pipeline.labels.study_groups import shipped_study_groups
from pipeline.recipe import Recipe, load_recipe, shipped_recipes
from pipeline.recipe.reading import recipe_file
from pipeline.store import Store

DEMO = "demo"
"""The default recipe."""


@dataclass(frozen=True)
class Environment:
    """The store, archive, mapping, recipe and MLflow address of a run."""

    store: Store
    archive: str
    """A folder's absolute path, or a URL."""
    study_groups: Path
    recipes: tuple[Recipe, ...]
    """At least one; if several, they read the archive alike and differ in their names."""
    tracking_uri: str


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Read the variables.

    Raises `UserError` if a recipe cannot be read, if two have one name or different `archive` sections, or if no reader
    is installed for the archive's URL.
    """
    store = Store(Path(variables.get("SONOTAG_STORE") or "store").absolute())
    known = {**variables, "SONOTAG_STORE": str(store.root)}
    return Environment(
        store=store,
        archive=normalized(variables.get("SONOTAG_ARCHIVE") or str(store.phantom / "archive")),
        study_groups=Path(variables.get("SONOTAG_STUDY_GROUPS") or shipped_study_groups()).absolute(),
        recipes=_recipes(variables.get("SONOTAG_RECIPE") or DEMO, known),
        tracking_uri=variables.get("MLFLOW_TRACKING_URI") or sqlite_address(store.mlflow / "mlflow.db"),
    )


def _recipes(named: str, environment: Mapping[str, str]) -> tuple[Recipe, ...]:
    """The recipe `named`, or several, separated by commas; raises `UserError` if they cannot be loaded together."""
    alone = named in shipped_recipes() or Path(named).is_file()
    parts = [named] if alone else [part.strip() for part in named.split(",") if part.strip()] or [named]
    recipes = {recipe_file(part): load_recipe(part, environment) for part in parts}
    for one, other in combinations(recipes, 2):
        _refuse_together(one, recipes[one], other, recipes[other])
    return tuple(recipes.values())


def _refuse_together(file: Path, recipe: Recipe, other_file: Path, other: Recipe) -> None:
    """Raise `UserError` if two recipes have one name, or if they read the archive differently: the index is of all."""
    if recipe.name == other.name:
        raise UserError(f"{file} and {other_file} have the same `name`, {other.name}: give one of them another.")
    for field in type(recipe.archive).model_fields:
        if getattr(recipe.archive, field) != getattr(other.archive, field):
            raise UserError(
                f"{file} and {other_file} differ in archive.{field}: recipes that are loaded together read one archive "
                "in one way. Set it to the same value, or load one recipe at a time."
            )


def sqlite_address(database: Path) -> str:
    """SQLAlchemy's address of the SQLite file at `database`, an absolute path of any characters.

    An address with escapes names the driver, too: MLflow would create a folder of the literal text after `sqlite:///`.
    """
    escaped = URL.create("sqlite", database=str(database))
    plain = f"sqlite:///{database}"
    if make_url(plain) == escaped:
        return plain
    return escaped.set(drivername="sqlite+pysqlite").render_as_string(hide_password=False)
