"""Dagster's pages in Chromium: an archive whose headers are markup, and pages of other sites that want a job launched.

Belongs here: what a browser makes of them. Not here: the guard's rules (`tests/resources/test_ui.py`), the escaping
(`tests/pipeline/test_markdown.py`).
"""

import http.server
import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.conftest import job_environment, run_in_process
from tests.pipeline.archive.synthetic import noise, write_dicom
from tests.ui.test_pages import CHROMIUM, free_port, keep, launch, server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]

MARK = "zqmark"
"""In every address that a header names: no request may go to it."""
RECIPE = """
name: hostile
images: {height: 32, width: 64}
archive: {description_patients: 1}
labels: {missing: mask}
pretraining: {backbones: [resnet50], methods: [baseline], epochs: 1, batch_size: 2}
downstream: {arms: [baseline], tasks: {}}
"""
TAGS = {
    "Manufacturer": [f"![x](/graphql?{MARK}1)", f"<img src=/{MARK}2>", f"[x](http://{MARK}3.example)"],
    "ManufacturerModelName": [f"<img src='/{MARK}4' onerror='fetch(`/{MARK}5`)'>", f"www.{MARK}6.example", "a | b |"],
    "TransducerData": [f"<iframe src=/{MARK}7>", f"http://{MARK}8.example/`x`", "`` ` |"],
    "TransducerType": [f"<svg onload=fetch(/{MARK}9)>", f"{MARK}10@evil.example", "LINEAR"],
    "StudyDescription": [f"US ![x](/{MARK}11)", f"US <a href=/{MARK}12>x</a>", f"US https://{MARK}13.example/x"],
    "PhotometricInterpretation": [f"![x](/{MARK}14)", "MONOCHROME2", "MONOCHROME2"],
    "BodyPartExamined": [f"![x](/{MARK}15)", f"<b>{MARK}16</b>", "LIVER"],
}
PAGES = (
    *(
        f"assets/{name}?view=overview"
        for name in ("dicom_index", "weak_labels", "unmapped_descriptions", "label_changes")
    ),
    *(f"assets/{name}?view=overview" for name in ("quarantine", "pretraining_pool", "image_cache")),
    *(f"assets/{name}?view=checks" for name in ("dicom_index", "study_groups", "unmapped_descriptions")),
    "runs",
    "jobs",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has read an archive of twelve patients with such headers."""
    folder = tmp_path_factory.mktemp("hostile")
    for number in range(12):
        tags = {name: values[number % len(values)] for name, values in TAGS.items()}
        write_dicom(folder / "archive" / str(number), noise(64, 96, seed=number), PatientID=f"P{number}", **tags)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    run_in_process("ingest", folder / "store", **variables(folder))
    return folder / "store"


def variables(folder: Path) -> dict[str, str]:
    return {"SONOTAG_ARCHIVE": str(folder / "archive"), "SONOTAG_RECIPE": str(folder / "recipe.yaml")}


@pytest.fixture(scope="module")
def ui(store: Path) -> Iterator[str]:
    """What `make ui` starts."""
    port = free_port()
    command = [sys.executable, "-m", "resources.ui", "--port", str(port)]
    with server(command, port, job_environment(store, variables(store.parent))) as address:
        yield address


@pytest.fixture(scope="module")
def browser(ui: str) -> "Iterator[Browser]":
    """A browser that resolves rebound.example to this machine, as its owner's name server might."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP *.example 127.0.0.1"],
        )
        yield browser
        browser.close()


def unfold(page: "Page") -> int:
    """Open what the page shows only when it is clicked, one after the other; how much of the headers stood there."""
    shown = 0
    for button in page.get_by_text("Show Markdown").all():
        button.click()
        page.wait_for_timeout(1500)
        shown += look(page)
        page.keyboard.press("Escape")
        page.wait_for_timeout(700)
    return shown


def look(page: "Page") -> int:
    """How often the headers stand on the page; none of its elements may come from one, by address or by attribute."""
    made = page.evaluate(
        """mark => [...document.querySelectorAll('*')].filter(one => [...one.attributes].some(
            a => ['src', 'href', 'srcset', 'action', 'style'].includes(a.name) && a.value.includes(mark)
                || a.name.startsWith('on'))).map(one => one.outerHTML.slice(0, 200))""",
        MARK,
    )
    assert made == []
    assert page.locator("b", has_text=MARK).count() == 0
    return int(page.evaluate("mark => document.body.innerText.split(mark).length - 1", MARK))


def test_header_values_are_displayed_as_text_on_every_page(page: "Page", ui: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shown = 0
    for path in PAGES:
        page.goto(f"{ui}/{path}", wait_until="networkidle")
        page.wait_for_timeout(3000)
        keep(page, path.split("?")[0].replace("/", "_"))
        shown += look(page) + unfold(page)
    assert shown > 10, "the headers are shown nowhere, so that nothing was tested"
    assert [url for url in asked if MARK in url] == []


def runs(ui: str) -> int:
    query = {"query": "{ runsOrError { ... on Runs { count } } }"}
    request = urllib.request.Request(f"{ui}/graphql", json.dumps(query).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.load(answer)["data"]["runsOrError"]["count"])


LAUNCH = """mutation { launchRun(executionParams: {selector: {repositoryLocationName: "assets.definitions",
repositoryName: "__repository__", jobName: "ingest"}, runConfigData: {}}) { __typename } }"""
SITE = """<!doctype html><title>elsewhere</title>
<img src="UI/graphql?query=QUERY"><iframe src="UI/runs"></iframe>
<form id=form method=post action="UI/graphql" target=frame enctype=text/plain><input name=BODY></form>
<iframe name=frame></iframe>
<script>
window.seen = [];
const note = what => window.seen.push(what);
const body = JSON.stringify({query: LAUNCH});
for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"])
  fetch("UI/graphql", {method: "POST", mode: type == "application/json" ? "cors" : "no-cors", body,
    headers: {"Content-Type": type}}).then(answer => note(`fetch ${answer.type}`), () => note("fetch refused"));
fetch("UI/graphql?query=QUERY", {mode: "no-cors"}).then(() => note("get"), () => note("get refused"));
const socket = new WebSocket("UI/graphql".replace("http", "ws"), "graphql-ws");
socket.onopen = () => note("socket open"); socket.onerror = () => note("socket refused");
document.getElementById("form").submit();
</script>"""


@pytest.fixture(params=["http://elsewhere.example", "http://127.0.0.1", "http://localhost"])
def site(request: pytest.FixtureRequest, ui: str) -> Iterator[str]:
    """A page of another origin, another port of this machine among them, that tries what a page can."""
    text = SITE.replace("UI", ui).replace("QUERY", quote(LAUNCH)).replace("LAUNCH", json.dumps(LAUNCH))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    yield f"{request.param}:{other.server_address[1]}/"
    other.shutdown()


def test_a_page_of_another_origin_launches_nothing(page: "Page", ui: str, site: str) -> None:
    before = runs(ui)
    statuses: list[tuple[str, int]] = []
    page.on("response", lambda answer: statuses.append((answer.url, answer.status)))
    page.goto(site)
    page.wait_for_timeout(4000)
    answers = [status for url, status in statuses if url.startswith(ui)]
    assert answers and set(answers) == {403}
    heard = page.evaluate("window.seen")
    assert "socket refused" in heard and "socket open" not in heard
    assert "fetch cors" not in heard
    time.sleep(2)
    assert runs(ui) == before


def test_a_name_that_resolves_to_this_machine_is_refused(page: "Page", ui: str) -> None:
    port = ui.rsplit(":", 1)[1]
    answer = page.goto(f"http://rebound.example:{port}/runs")
    assert answer is not None and answer.status == 403
    tried = page.evaluate("body => fetch('/graphql', {method: 'POST', body}).then(a => a.status)", LAUNCH)
    assert tried == 403


def test_the_same_server_s_own_pages_launch_and_follow_a_run(page: "Page", ui: str) -> None:
    """Its log arrives while it runs, over the pages' web socket."""
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    before = runs(ui)
    launch(page, ui, "ingest")
    assert runs(ui) == before + 1
    assert any(url.startswith(ui.replace("http", "ws")) for url in sockets)
    page.get_by_text("index_archive").first.wait_for()
