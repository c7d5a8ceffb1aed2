"""The store as a Dagster resource.

Belongs here: handing the store to assets. Not here: its layout, which `pipeline.store` knows.
"""

from pathlib import Path

import dagster as dg

from pipeline.store import Store


class StoreFolder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder in which everything is kept."""

    root: str

    def open(self) -> Store:
        """The store, made where there is none; raises `UserError` where its layout is another."""
        return Store(Path(self.root)).open()
