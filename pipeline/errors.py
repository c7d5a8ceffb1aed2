"""What a person can mend: mistakes in an archive's place, a recipe, a mapping or a manifest; and what may mend itself.

Belongs here: the exceptions that carry a sentence for the user, which faults may pass. Not here: bugs, trying again.
"""

import errno
from pathlib import Path

_PASSING = {
    *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT),  # disks, shares
    *(errno.EAGAIN, errno.EBUSY, errno.ENOLCK, errno.ENFILE, errno.EMFILE),  # others are using it
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
}


class UserError(Exception):
    """A mistake the user can mend; its message is one sentence that names the file and the field.

    An archive file is named by its file id, never by its path. Callers print the sentence and exit non-zero.
    """


class DamagedError(UserError):
    """A file of the store that does not hold what it should: cut short, overwritten, or of another kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is damaged: run the job that writes it again (`ingest` for the archive's files).")


class UnreachableError(UserError):
    """Storage or network that fails now and may work later: who can wait may try again."""


def user_error(sentence: str, cause: BaseException) -> UserError:
    """The error that says `sentence`: `UnreachableError` where its `cause` may pass."""
    return UnreachableError(sentence) if is_transient(cause) else UserError(sentence)


def is_transient(error: BaseException) -> bool:
    """Whether the same may succeed later: a fault of disk or network, not one of data, of a user or of the code."""
    if isinstance(error, UserError):
        return isinstance(error, UnreachableError)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING
