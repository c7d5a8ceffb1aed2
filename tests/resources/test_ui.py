"""Dagster's pages, served for real: what another site's page, another name and another program get of them."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import ROOT
from tests.resources.conftest import free_port

pytestmark = pytest.mark.integration

LOCATION = """
import pathlib
import dagster as dg

@dg.op
def touch():
    pathlib.Path("MARK").touch()

@dg.job
def harm():
    touch()

defs = dg.Definitions(jobs=[harm])
"""
HARM = """mutation { launchRun(executionParams: {selector: {repositoryLocationName: "harm.py", repositoryName:
"__repository__", jobName: "harm"}, runConfigData: {}}) { __typename ... on PythonError { message } } }"""
READ = "{ version }"
Answer = tuple[int, str]


class Pages:
    """The server under test."""

    def __init__(self, port: int, mark: Path) -> None:
        self.port, self.mark = port, mark
        self.host = f"127.0.0.1:{port}"

    def ask(self, method: str, path: str, headers: Mapping[str, str | None], body: object = None) -> Answer:
        """Send one request with these headers and no other, `Host` being the server's unless it is among them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = b"" if body is None else json.dumps(body).encode()
        sent = {"Host": self.host, "Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content)
        answer = connection.getresponse()
        said = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, said

    def graphql(self, query: str, **headers: str | None) -> Answer:
        return self.ask(
            "POST", "/graphql", {name.replace("_", "-"): v for name, v in headers.items()}, {"query": query}
        )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    mark = folder / "mark"
    (folder / "harm.py").write_text(LOCATION.replace("MARK", str(mark)))
    (folder / "workspace.yaml").write_text("load_from: [{python_file: harm.py}]\n")
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    port = free_port()
    arguments = ["--port", str(port), "--workspace", str(folder / "workspace.yaml")]
    process = subprocess.Popen(
        [sys.executable, "-m", "resources.ui", *arguments, "--allowed-host", "Sonotag.example.org"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(home)},
        start_new_session=True,
    )
    found = Pages(port, mark)
    for _ in range(240):
        try:
            found.ask("GET", "/server_info", {})
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.25)
    yield found
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 0


def is_marked(pages: Pages, seconds: float) -> bool:
    """Whether the job has run within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if pages.mark.exists():
            pages.mark.unlink()
            return True
        time.sleep(0.1)
    return False


def test_requests_of_the_pages_and_of_programs_are_accepted(pages: Pages) -> None:
    origin = f"http://{pages.host}"
    assert pages.graphql(READ)[0] == 200
    assert pages.graphql(READ, Origin=origin, Sec_Fetch_Site="same-origin")[0] == 200
    for name in ("localhost", "[::1]"):  # a tunnel of SSH may have another port
        assert pages.graphql(READ, Host=f"{name}:8080", Origin=f"http://{name}:8080")[0] == 200
    for path in ("/", "/runs", "/server_info"):
        assert pages.ask("GET", path, {"Sec-Fetch-Site": "none"})[0] == 200
        assert pages.ask("GET", path, {})[0] == 200


def test_a_link_from_another_page_opens(pages: Pages) -> None:
    """As MLflow's pages have, on another port of the same machine, and mails elsewhere."""
    followed = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for site in ("same-site", "cross-site"):
        assert pages.ask("GET", "/runs", {"Sec-Fetch-Site": site, **followed})[0] == 200
        framed = {"Sec-Fetch-Site": site, **followed, "Sec-Fetch-Dest": "iframe"}
        assert pages.ask("GET", "/runs", framed)[0] == 403


def test_a_reverse_proxys_name_is_accepted_if_it_was_allowed(pages: Pages) -> None:
    proxied = {"Host": "sonotag.example.org", "Origin": "https://sonotag.example.org"}
    assert pages.graphql(READ, **proxied)[0] == 200
    assert pages.graphql(READ, Host="other.example.org", Origin="https://other.example.org")[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Origin": "http://evil.example@127.0.0.1:{port}"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1@evil.example"},
        {"Host": "evil.example#@127.0.0.1"},
        {"Host": "evil.example/127.0.0.1"},
        {"Host": "127.0.0.1:port"},
        {"Host": "192.168.0.evil.example"},
        {"Host": ""},
    ],
    ids=str,
)
def test_a_page_of_another_site_launches_nothing(pages: Pages, headers: dict[str, str]) -> None:
    sent = {name: value.format(port=pages.port) for name, value in headers.items()}
    for query in (HARM, READ):
        status, said = pages.ask("POST", "/graphql", sent, {"query": query})
        assert status == 403
        assert "data" not in said
    simple = {**sent, "Content-Type": "application/x-www-form-urlencoded"}  # as a form sends, without a preflight
    assert pages.ask("POST", "/graphql?query=" + quote(HARM), simple)[0] == 403
    assert pages.ask("POST", "/report_asset_materialization/a", sent, {})[0] == 403
    assert handshake(pages, sent) == 403
    assert not is_marked(pages, 0.5)


def handshake(pages: Pages, headers: Mapping[str, str]) -> int:
    """The status with which a web socket is opened, 101, or declined."""
    wanted = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(), "Sec-WebSocket-Protocol": "graphql-ws"}
    lines = [f"{name}: {value}" for name, value in {"Host": pages.host, **wanted, **key, **headers}.items()]
    with socket.create_connection(("127.0.0.1", pages.port), timeout=60) as connection:
        connection.sendall("\r\n".join(["GET /graphql HTTP/1.1", *lines, "", ""]).encode())
        return int(connection.recv(4096).split(b" ")[1])


def test_live_logs_have_their_web_socket(pages: Pages) -> None:
    assert handshake(pages, {"Origin": f"http://{pages.host}", "Sec-Fetch-Site": "same-origin"}) == 101
    assert handshake(pages, {}) == 101


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/%67raphql", "//graphql"])
def test_graphql_by_get_is_rejected_for_every_sender(pages: Pages, method: str, path: str) -> None:
    """A picture in a description stands on the server's own page: its request is of the same origin."""
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}
    for headers in ({}, own):
        assert pages.ask(method, f"{path}?query={quote(HARM)}", headers)[0] in {403, 404, 405}
    assert not is_marked(pages, 0.5)


def test_other_sites_do_not_show_the_pages_within_theirs(pages: Pages) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=60)
    connection.request("GET", "/runs")
    assert connection.getresponse().getheader("X-Frame-Options") == "SAMEORIGIN"


def test_the_same_request_from_the_pages_launches_the_job(pages: Pages) -> None:
    """Last: that the others launched nothing means something."""
    status, said = pages.graphql(HARM, Origin=f"http://{pages.host}", Sec_Fetch_Site="same-origin")
    assert (status, "LaunchRunSuccess" in said) == (200, True), said
    assert is_marked(pages, 120)
