"""The archive a run reads, and the key its pseudonyms are made with.

Belongs here: where the archive lies and which key belongs to it. Not here: reading DICOM.
"""

import os
from pathlib import Path

import dagster as dg

from pipeline.archive.identity import PUBLIC_DEMO_KEY, load_key

PHANTOM_MARKER = "phantom.json"
"""Beside the archive's folder, written by `python -m pipeline.phantom`."""


class Archive(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A folder of DICOM files, read only."""

    folder: str

    @property
    def path(self) -> Path:
        """The archive's folder."""
        return Path(self.folder)

    def key(self, private: Path) -> bytes:
        """The pseudonym key: the environment's, else the public one for the phantom, else the store's own."""
        if (self.path.parent / PHANTOM_MARKER).is_file() and not os.environ.get("SONOTAG_PSEUDONYM_KEY"):
            return PUBLIC_DEMO_KEY
        return load_key(private, os.environ)
