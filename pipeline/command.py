"""Shared parts of the pipeline's commands: exit codes, and the recipe and store that the environment names."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from pipeline.errors import UserError
from pipeline.files import restrict_umask
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store

P = ParamSpec("P")


def command(main: Callable[P, None]) -> Callable[P, int]:
    """`main` as a command that returns its exit code: 0, or 1 after printing a `UserError` to stderr.

    Files that it writes are accessible to the user alone.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        restrict_umask()
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
        return 0

    return run


def recipe_and_store() -> tuple[Recipe, Store]:
    """The recipe SONOTAG_RECIPE (or demo) and the store SONOTAG_STORE (or ./store); creates no store.

    Raises `UserError` as `load_recipe` and, for an existing store, as `Store.open`.
    """
    store = Store(Path(os.environ.get("SONOTAG_STORE") or "store").absolute()).up_to_date()
    recipe = load_recipe(os.environ.get("SONOTAG_RECIPE") or "demo", {**os.environ, "SONOTAG_STORE": str(store.root)})
    return recipe, store
