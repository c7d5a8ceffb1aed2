"""Where an archive lies: a folder's path, or a URL.

Belongs here: one spelling of it, and how it is printed, without a library. Not here: listing and opening files
(`source`).
"""

import os
from urllib.parse import unquote

LINK = "symbolic link"
SPECIAL = "special file"
"""Instead of the version of an entry that is neither a file nor a folder, and that is never opened."""

_LOCAL_SCHEMES = ("file://", "local://")


def normalized(archive: str) -> str:
    """`archive` as everything else takes it: the path of a folder, or a URL of fsspec's as it was given.

    However a folder is named, through links or `..`, its path is the same: what is known of it is found again. A file://
    URL is the folder that it names, literally, or percent-decoded where there is no such folder. Raises
    `UserError` for a scheme that fsspec does not know, or whose package is not installed.
    """
    for scheme in _LOCAL_SCHEMES:
        if archive.startswith(scheme):
            literal = archive.removeprefix(scheme)
            return os.path.realpath(literal if os.path.lexists(literal) else unquote(literal))
    if is_remote(archive):
        from pipeline.archive import remote  # noqa: PLC0415 - the definitions are loaded without fsspec

        remote.check(archive)
        return archive
    return os.path.realpath(archive)


def is_remote(archive: str) -> bool:
    """Whether a normalized `archive` is a URL rather than a folder."""
    return "://" in archive


def shown(address: str) -> str:
    """`address` as it may be printed: of a URL neither user, password nor query, which can be credentials.

    Everything before the last @ is left out, since a password may hold any sign that its writer has not encoded.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    place = rest if rest.startswith("/") else rest.rpartition("@")[2]
    return f"{scheme}://{place.partition('?')[0]}"
