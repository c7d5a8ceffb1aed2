"""Whether an archive is the phantom clinic, whose patients are made up.

The phantom gets a public pseudonym key and publishes every study description, so that two clones agree. Real patients
must never get either, even if a marker is beside their archive: the marker counts only if it fits every byte of the
archive.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

MARKER: Final = "phantom.json"
"""Beside the archive's folder, written by `python -m pipeline.phantom`."""

CONTENTS: Final = "contents"
"""The marker's entry that holds `contents_digest` of the archive."""

PHANTOM: Final = (
    "THE ARCHIVE IS THE PHANTOM CLINIC: its pseudonyms are made with a public key, and every study description is "
    "published. Neither is ever done for real patients."
)
NO_PHANTOM: Final = (
    f"{MARKER} is beside the archive but does not fit its files: the archive is treated as one of real patients. "
    "`python -m pipeline.phantom` makes a new phantom in an empty folder."
)


def is_phantom(archive: str) -> bool:
    """Whether `archive` is a folder that holds exactly the files that the marker beside it was written for."""
    if "://" in archive:
        return False
    folder = Path(archive)
    stated = _stated_contents(folder.parent / MARKER)
    return stated is not None and stated == contents_digest(folder)


def has_marker(archive: str) -> bool:
    """Whether a marker is beside `archive`, valid or not."""
    return "://" not in archive and (Path(archive).parent / MARKER).exists()


def contents_digest(folder: Path) -> str:
    """SHA-256 (hex) over the path and content of every file below `folder`, in the order of their paths.

    Symbolic links are not followed; one makes the digest that of no phantom, which has none.
    """
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = sorted(str(path.relative_to(folder)) for path in paths)
    total = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, content in zip(files, pool.map(lambda name: _content_digest(folder / name), files), strict=True):
            total.update(os.fsencode(name) + b"\0" + content.encode() + b"\n")
    return total.hexdigest()


def _stated_contents(marker: Path) -> str | None:
    try:
        stated = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    contents = stated.get(CONTENTS) if isinstance(stated, dict) else None
    return contents if isinstance(contents, str) else None


def _content_digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "not a regular file"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"
