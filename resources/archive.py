"""The archive a run reads, and the key its pseudonyms are made with.

Belongs here: where the archive lies and which key belongs to it. Not here: reading DICOM.
"""

import os
from pathlib import Path

import dagster as dg

from pipeline.privacy.identity import archive_key


class Archive(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A folder of DICOM files, or a URL that fsspec opens; read only."""

    folder: str

    def key(self, private: Path) -> bytes:
        """The pseudonym key: the environment's, else the public one for the phantom, else the store's own."""
        return archive_key(self.folder, private, os.environ)
