"""`python -m resources.port 3000` says whether a server could listen there, before one tries and half starts.

Belongs here: that command. Not here: servers (Makefile).
"""

import socket
import sys

from pipeline.command import command
from pipeline.errors import UserError

LOOPBACK = "127.0.0.1"


@command
def main(arguments: list[str]) -> None:
    """Nothing where the port is free; 1 and a sentence where something listens."""
    refuse_taken(int(arguments[0]))


def refuse_taken(port: int) -> None:
    """Raise `UserError` if something listens on `port`."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        raise UserError(
            f"Something listens on http://{LOOPBACK}:{port} already, perhaps this command in another terminal: end it "
            "first, or take another --port (make -n prints the command)."
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
