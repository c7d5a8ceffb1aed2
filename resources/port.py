"""A check that a port is free, before a server starts."""

import socket

from pipeline.errors import UserError

LOOPBACK = "127.0.0.1"


def refuse_taken(port: int) -> None:
    """Raise `UserError` if `port` is in use."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        raise UserError(
            f"Port {port} of {LOOPBACK} is in use, perhaps by this command in another terminal: stop it first, or use "
            "another --port (make -n prints the command)."
        ) from None
