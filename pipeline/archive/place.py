"""Where an archive lies: a folder's path, or a URL.

Belongs here: one spelling of it, found without a library. Not here: listing and opening files (`source`).
"""

import os
from pathlib import Path
from urllib.parse import unquote

_LOCAL_SCHEMES = ("file://", "local://")


def normalized(archive: str) -> str:
    """`archive` as everything else takes it: the absolute path of a folder, or a URL of fsspec's as it was given.

    A file:// URL is the folder that it names, literally, or percent-decoded where there is no such folder. Raises
    `UserError` for a scheme that fsspec does not know, or whose package is not installed.
    """
    for scheme in _LOCAL_SCHEMES:
        if archive.startswith(scheme):
            literal = archive.removeprefix(scheme)
            return str(Path(literal if os.path.lexists(literal) else unquote(literal)).absolute())
    if is_remote(archive):
        from pipeline.archive import remote  # noqa: PLC0415 - the definitions are loaded without fsspec

        remote.check(archive)
        return archive
    return str(Path(archive).absolute())


def is_remote(archive: str) -> bool:
    """Whether a normalized `archive` is a URL rather than a folder."""
    return "://" in archive
