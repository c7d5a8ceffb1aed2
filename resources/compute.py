"""Machine-wide training lock: one training step at a time.

Not here: devices and precision (`pipeline.training.device`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from pipeline.locks import hold_lock
from pipeline.progress import Log

POOL = "training"
"""Dagster's pool of the steps that train: limited to one step in dagster.postgres.yaml, unlimited in dagster.yaml."""


class Compute(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Holds a lock of the operating system, which is freed when the process dies.

    (A Dagster pool would stay blocked after `kill -9` until a daemon cleans up.)
    """

    lock_file: str

    @contextmanager
    def training(self, log: Log) -> Iterator[None]:
        """Hold the lock in the block; log and wait if another step holds it."""
        with hold_lock(Path(self.lock_file), log, "Waiting for another training step on this machine to finish."):
            yield
