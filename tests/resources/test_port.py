"""A port in use is refused in a sentence, before a server starts."""

import socket
from collections.abc import Callable

import pytest

from resources import mlflow_server, ui
from resources.port import refuse_taken


def test_a_free_port_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    refuse_taken(port)


@pytest.mark.parametrize("main", [ui.main, mlflow_server.main])
def test_a_port_in_use_is_refused(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert str(port) in said and said.count("\n") == 1
