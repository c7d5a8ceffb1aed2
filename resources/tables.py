"""Tables of the store as inputs of Dagster's assets and checks.

Not here: columns and files (`pipeline.tables`). Assets write their tables themselves, under locks.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import dagster as dg
import pyarrow as pa

from pipeline.files import file_state
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import path_of, read_table_of
from resources.store import StoreFolder

_LOADED = b"sonotag.loaded"
"""Key of a loaded table's schema metadata: its asset, and the state of its file before it was read."""

Guard = Callable[[dg.InputContext], AbstractContextManager[None]]
"""Around each loading: refuses a step that must not start, and turns errors into Dagster's."""


class TableInputs(dg.IOManager):
    """Loads the table of an upstream asset: `[name]` of an asset that all recipes share, else `[recipe, name]`."""

    def __init__(self, folder: StoreFolder, recipes: Sequence[Recipe], guard: Guard) -> None:
        self._folder, self._guard = folder, guard
        self._recipes = {recipe.name: recipe for recipe in recipes}

    def load_input(self, context: dg.InputContext) -> pa.Table:
        """The table, in which `current_table` recognizes a later change; errors as `read_table_of`."""
        *prefix, asset = context.asset_key.path
        recipe = self._recipes[prefix[0] if prefix else next(iter(self._recipes))]
        with self._guard(context):
            return load_table(asset, self._folder.open(), recipe)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> NoReturn:
        """Raise: a value would bypass the store's locks and digests."""
        raise TypeError(f"{context.step_key} returned a value; an asset writes its table and yields MaterializeResult.")


def load_table(asset: str, store: Store, recipe: Recipe) -> pa.Table:
    """The table of `asset`, in which `current_table` recognizes a later change; errors as `read_table_of`."""
    state = file_state(path_of(asset, store, recipe))  # before reading: a change meanwhile counts as a later one
    rows = read_table_of(asset, store, recipe)
    loaded = {_LOADED: json.dumps([asset, *state])}
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), **loaded})


def current_table(rows: pa.Table, store: Store, recipe: Recipe) -> pa.Table:
    """`rows`, loaded by `load_table`; read again if another process has written the table since."""
    asset, *state = json.loads(rows.schema.metadata[_LOADED])
    unchanged = tuple(state) == file_state(path_of(asset, store, recipe))
    return rows if unchanged else load_table(asset, store, recipe)
