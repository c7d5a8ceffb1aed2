"""A port that something listens on is said in a sentence, before a server is started on it."""

import socket

import pytest

from resources.port import main


def test_a_free_port_is_nothing_to_speak_of(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    assert main([str(port)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_port_that_something_listens_on_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(port)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Something listens on http://127.0.0.1:{port} already") and said.count("\n") == 1
