"""What the commands of the pipeline share: how they end where the user has to mend something.

Belongs here: exit codes. Not here: arguments, any work.
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from pipeline.errors import UserError

P = ParamSpec("P")


def command(main: Callable[P, None]) -> Callable[P, int]:
    """`main` as a command that returns its exit code: 0, or 1 with its sentence on stderr for a `UserError`."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
        return 0

    return run
