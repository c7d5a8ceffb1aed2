"""The location of an archive: a folder's path or a URL, normalized, and without credentials for printing."""

import os
from urllib.parse import unquote

from pipeline.errors import UserError

LINK = "symbolic link"
SPECIAL = "special file"
"""In place of the version of an entry that is neither a file nor a folder, and that is never opened."""

_LOCAL_SCHEMES = ("file://", "local://")


def normalized(archive: str) -> str:
    """`archive` as the other functions take it: the real path of a folder, or a URL of fsspec's as given.

    A file:// URL is the folder that it names, literally, or percent-decoded if there is no such folder. Raises
    `UserError` for a scheme that is unknown to fsspec or whose package is not installed.
    """
    for scheme in _LOCAL_SCHEMES:
        if archive.startswith(scheme):
            literal = archive.removeprefix(scheme)
            return os.path.realpath(literal if os.path.lexists(literal) else unquote(literal))
    if is_remote(archive):
        _check_scheme(archive)
        return archive
    return os.path.realpath(archive)


def _check_scheme(url: str) -> None:
    import fsspec  # noqa: PLC0415 - loading the definitions does not import it
    from fsspec.registry import known_implementations  # noqa: PLC0415

    scheme, printed = fsspec.utils.get_protocol(url), without_credentials(url)
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        needed = known_implementations.get(scheme, {}).get("err", "its fsspec package is missing")
        raise UserError(f"SONOTAG_ARCHIVE {printed} cannot be opened: {needed}.") from None
    except ValueError:
        raise UserError(f"SONOTAG_ARCHIVE {printed} has a scheme that fsspec does not support.") from None


def is_remote(archive: str) -> bool:
    """Whether a normalized `archive` is a URL rather than a folder."""
    return "://" in archive


def without_credentials(address: str) -> str:
    """`address` for printing: a URL without user, password and query, which can be credentials.

    Removes everything before the last @, since a password may contain any character that its writer did not encode.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host_and_path = rest if rest.startswith("/") else rest.rpartition("@")[2]
    return f"{scheme}://{host_and_path.partition('?')[0]}"
