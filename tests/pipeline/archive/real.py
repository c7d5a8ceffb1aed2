"""Real files that are not part of the repository.

Belongs here: finding them. Not here: what is expected of them.
"""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def shared_data() -> Path:
    """The folder of real data; skips the calling test if it is absent."""
    folder = Path(os.environ.get("SONOTAG_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: SONOTAG_SHARED_DATA names their folder")
    return folder
