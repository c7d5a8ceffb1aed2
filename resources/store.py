"""The store as a Dagster resource.

Not here: its layout (`pipeline.store`).
"""

from pathlib import Path

import dagster as dg

from pipeline.store import Store


class StoreFolder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder with all results."""

    root: str

    def open(self) -> Store:
        """The store, created if missing; raises `UserError` if another version wrote its layout."""
        return Store(Path(self.root)).open()
