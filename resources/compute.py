"""Whose turn it is to train: one training step at a time on a machine.

Belongs here: the lock around training. Not here: devices and precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from pipeline.locks import hold_lock
from pipeline.progress import Log

POOL = "training"
"""Dagster's pool of the steps that train: dagster.postgres.yaml gives it one place, dagster.yaml no limit."""


class Compute(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The machine's one place for training, held by an operating system lock: a killed run frees it by dying.

    (A Dagster pool would keep the place taken after `kill -9` until a daemon cleans up.)
    """

    lock_file: str

    @contextmanager
    def training(self, log: Log) -> Iterator[None]:
        """Hold the place while training; say so where another step holds it, and wait."""
        with hold_lock(Path(self.lock_file), log, "Waiting for another training step on this machine to finish."):
            yield
