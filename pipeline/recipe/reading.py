"""Reading a recipe's YAML: shipped recipes by name, a user's by path."""

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.recipe.whole import Recipe
from pipeline.safe_yaml import read_yaml
from pipeline.settings import first_problem


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the project, by name."""
    folder = Path(str(files("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_file(name_or_path: str) -> Path:
    """The file of a recipe; raises `UserError` if it is neither a shipped one nor a file."""
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    if not _is_file(path):
        known = ", ".join(shipped_recipes())
        raise UserError(f"No recipe {name_or_path[:200]!r}: neither one of {known} nor a file.")
    return path


def load_recipe(name_or_path: str, environment: Mapping[str, str] = os.environ) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path.

    `${NAME}` in a manifest's path is replaced from `environment`; relative paths start at the recipe's folder.
    Values keep the type in which they are written: neither `yes` nor "3" is a number. Raises `UserError` with one
    sentence that names the file and the line or the field.
    """
    path = recipe_file(name_or_path)
    try:
        return _resolved(Recipe.model_validate(read_yaml("Recipe", path), strict=True), path, environment)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {first_problem(error)}.") from None


def existing_file(text: str, field: str) -> Path:
    """The file that a recipe's field names; raises `UserError` if a variable is not set or there is no such file."""
    unset = re.search(r"\$\{(\w+)\}", text)
    if unset:
        raise UserError(f"{field} {text} needs the environment variable {unset[1]}, which is not set.")
    if not _is_file(Path(text)):
        raise UserError(f"{field} {text} does not exist.")
    return Path(text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that cannot be entered
        return False


def _resolved(recipe: Recipe, path: Path, environment: Mapping[str, str]) -> Recipe:
    """The recipe with absolute paths; a path whose variable is not set stays as written until it is needed."""

    def absolute(text: str) -> str:
        full = re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], match[0]), text)
        return full if "${" in full else os.path.realpath(path.parent / full)

    return recipe.with_files(absolute)
