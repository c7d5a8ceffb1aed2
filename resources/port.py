"""Whether a server could listen on a port, before one tries and half starts.

Belongs here: that question. Not here: servers.
"""

import socket

from pipeline.errors import UserError

LOOPBACK = "127.0.0.1"


def refuse_taken(port: int) -> None:
    """Raise `UserError` if something listens on `port`."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        raise UserError(
            f"Something listens on http://{LOOPBACK}:{port} already, perhaps this command in another terminal: end it "
            "first, or take another --port (make -n prints the command)."
        ) from None
