"""User-correctable errors, and which errors are transient."""

import errno
from pathlib import Path

_TRANSIENT = {
    *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT),  # disks, shares
    *(errno.EAGAIN, errno.EBUSY, errno.ENOLCK, errno.ENFILE, errno.EMFILE),  # in use by others
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
}


class UserError(Exception):
    """An error that the user can correct; its message is one sentence that names the file and the field.

    It names an archive file by its file id, never by its path. Commands print it and exit with 1.
    """


class DamagedError(UserError):
    """A file of the store is truncated, overwritten, or of another kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is damaged: run the job that writes it again (`ingest` for the archive's files).")


class UnreachableError(UserError):
    """Storage or network is unavailable; a later attempt may succeed."""


def user_error(sentence: str, cause: BaseException) -> UserError:
    """An error with the message `sentence`: `UnreachableError` if its `cause` is transient."""
    return UnreachableError(sentence) if is_transient(cause) else UserError(sentence)


def is_transient(error: BaseException) -> bool:
    """Whether a later attempt may succeed: faults of disk or network, not of data, user or code."""
    if isinstance(error, UserError):
        return isinstance(error, UnreachableError)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT
