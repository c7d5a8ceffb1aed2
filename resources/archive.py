"""The archive that a run reads, and the key of its pseudonyms."""

import os
from pathlib import Path

import dagster as dg

from pipeline.privacy.identity import archive_key


class Archive(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A folder of DICOM files, or a URL that fsspec opens; never written to."""

    folder: str

    def key(self, private: Path) -> bytes:
        """The pseudonym key: from the environment, else the public key of the phantom, else the store's own."""
        return archive_key(self.folder, private, os.environ)
