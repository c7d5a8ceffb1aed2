"""The pages a person opens after `make demo`, and README's walk: what was left out, the worklist, checks, launching
jobs, the encoder in Dagster and in MLflow's registry, the report.

Belongs here: pages in a real browser. Not here: what the job did (`tests/assets`).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resources.tracking import MLFLOW_UI
from tests.conftest import ROOT, job_environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]

CHROMIUM = shutil.which("chromium")
PICTURES = Path(os.environ.get("SONOTAG_SCREENSHOTS") or "/nonexistent")
"""Where screenshots are kept, if anywhere."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_answer(address: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(360):
        assert process.poll() is None, "the server died"
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=10)
            return
        time.sleep(0.5)
    raise AssertionError(f"{address} does not answer")


@contextmanager
def server(command: list[str], port: int, environment: dict[str, str]) -> Iterator[str]:
    """Run a server on loopback until the block ends; yields its address once it answers."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_answer(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, to the servers that it has started, too
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # it waits for a page that a failed test has left open
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def dagster_ui(demo_store: Path, tiny_recipe: Path) -> Iterator[str]:
    """What `make ui` starts: the web server and the daemon, which takes runs from the queue."""
    port = free_port()
    command = [sys.executable, "-m", "resources.ui", "--port", str(port)]
    environment = job_environment(demo_store, {"SONOTAG_RECIPE": str(tiny_recipe)})
    with server(command, port, environment) as address:
        yield address


@pytest.fixture(scope="module")
def mlflow_ui(demo_store: Path) -> Iterator[str]:
    """What `make mlflow` starts."""
    port = free_port()
    command = [sys.executable, "-m", "resources.mlflow_server", "--port", str(port)]
    with server(command, port, job_environment(demo_store)) as address:
        yield address


def keep(page: "Page", name: str) -> None:
    if PICTURES.is_dir():
        page.screenshot(path=PICTURES / f"{name}.png")


def test_the_graph_shows_every_group(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/asset-groups")
    before_training = ("archive", "labels", "images", "review", "cohort", "tasks")
    for group in (*before_training, "pretraining", "quality", "thyroid", "reports"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.wait_for_timeout(3000)
    keep(page, "graph")


def test_the_results_table_is_shown_with_its_link_to_mlflow(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/results_table?view=overview")
    page.get_by_text("MLflow run").first.wait_for()
    keep(page, "results_table")


def test_the_run_is_listed_as_a_success(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/runs")
    page.get_by_text("Success").first.wait_for()
    keep(page, "runs")


def test_a_picture_of_the_cache_opens_from_its_page(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/image_cache?view=overview")
    page.locator("tr", has_text="before and after").get_by_text("Show Markdown").click()
    picture = page.locator('img[src^="data:image/png"]').first
    picture.wait_for()
    assert picture.evaluate("picture => picture.naturalWidth") > 500
    keep(page, "image_cache")


def test_the_quarantine_page_lists_what_was_left_out_and_why(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/quarantine?view=overview")
    reasons = page.locator("tr", has=page.get_by_text("reasons", exact=True))
    reasons.get_by_text("the file's content is not DICOM").wait_for()
    page.locator("tr", has_text="which file is it").get_by_text("pipeline.archive locate").wait_for()
    keep(page, "quarantine")


def test_an_asset_s_table_fits_its_page(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/resnet50_ce_dcm_encoder?view=overview")
    table = page.locator("table", has_text="folder in the store")
    table.wait_for()
    assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth + 1")


def test_the_worklist_page_explains_the_next_step_and_names_its_owner(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/unmapped_descriptions?view=overview")
    page.get_by_text("delete the question mark").first.wait_for()
    page.get_by_text("radiology", exact=True).first.wait_for()
    page.locator("tr", has_text="groups to choose from").get_by_text("soft tissue").wait_for()
    page.locator("tr", has_text="for the radiologist").get_by_text("Show Markdown").click()  # a long table
    page.get_by_text("suggested_groups").first.wait_for()
    keep(page, "worklist")


def test_a_failed_check_shows_its_reason(page: "Page", dagster_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/study_groups?view=checks")
    page.get_by_text("Failed").first.wait_for()
    page.get_by_text("US BIOPSY KIDNEY FOCAL (LEFT)").first.wait_for()
    keep(page, "check")


def launch(page: "Page", dagster_ui: str, job: str) -> None:
    """From the job's page by the launchpad to a run that has succeeded."""
    page.goto(f"{dagster_ui}/locations/assets.definitions/jobs/{job}")
    page.get_by_role("button", name="Materialize all").locator("xpath=following::button[1]").click()
    page.get_by_text("Open launchpad").click()
    page.get_by_text("No errors").wait_for()
    keep(page, f"launchpad_{job}")
    page.get_by_text("Materialize", exact=True).last.click()
    page.wait_for_url("**/runs/*")
    page.locator("text=/^(Success|Failure)$/").first.wait_for(timeout=300_000)
    assert page.locator("text=/^Success$/").count()
    keep(page, f"run_{job}")


def test_ingest_is_launched_from_the_launchpad_and_succeeds(page: "Page", dagster_ui: str) -> None:
    launch(page, dagster_ui, "ingest")


def test_an_encoder_links_to_its_run_in_mlflow(page: "Page", dagster_ui: str, mlflow_ui: str) -> None:
    page.goto(f"{dagster_ui}/assets/tiny/resnet50_ce_dcm_encoder?view=overview")
    link = page.locator("tr", has_text="MLflow run").get_by_role("link").first
    link.wait_for()
    address = link.get_attribute("href") or ""
    assert address.startswith(MLFLOW_UI)
    page.goto(address.replace(MLFLOW_UI, mlflow_ui))  # another port here
    page.get_by_text("resnet50_ce_dcm_encoder").first.wait_for()
    page.get_by_text("val_loss").first.wait_for()
    keep(page, "mlflow_run")


def test_mlflow_lists_the_encoders_runs(page: "Page", demo_store: Path, mlflow_ui: str) -> None:
    from mlflow import MlflowClient

    page.goto(mlflow_ui)
    page.get_by_text("tiny").first.wait_for()
    client = MlflowClient(tracking_uri=f"sqlite:///{demo_store / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    page.goto(f"{mlflow_ui}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning")
    page.get_by_text("resnet50_ce_dcm_encoder").first.wait_for()
    keep(page, "mlflow_runs")


def test_pretraining_is_launched_and_its_encoder_is_in_mlflows_registry(
    page: "Page", dagster_ui: str, mlflow_ui: str, demo_store: Path
) -> None:
    encoder = demo_store / "experiments" / "tiny" / "encoders" / "resnet50_ce_seed-0"
    shutil.rmtree(encoder)  # so that there is something to train
    launch(page, dagster_ui, "pretrain")
    assert (encoder / "encoder.safetensors").is_file()
    page.goto(f"{dagster_ui}/assets/tiny/resnet50_ce_encoder?view=overview")
    link = page.locator("tr", has_text="MLflow registry").get_by_role("link")
    link.wait_for()
    keep(page, "encoder")
    page.goto((link.get_attribute("href") or "").replace(MLFLOW_UI, mlflow_ui))
    page.get_by_text("tiny.resnet50_ce_encoder").first.wait_for()
    page.get_by_text("Version 1", exact=True).first.wait_for()
    keep(page, "registry")


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_the_report_is_read_without_a_network_and_without_scrolling_sideways(
    page: "Page", demo_store: Path, width: int
) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 850})
    address = (demo_store / "experiments" / "tiny" / "reports" / "report.html").resolve().as_uri()
    page.goto(address)
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert said == [], "the browser complains of what the page's own policy forbids"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(picture => picture.naturalWidth > 0)")
    assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
    keep(page, f"report_{width}")


def test_the_report_is_printed_with_its_recipe_unfolded(page: "Page", demo_store: Path) -> None:
    page.goto((demo_store / "experiments" / "tiny" / "reports" / "report.html").resolve().as_uri())
    height = "document.querySelector('details').getBoundingClientRect().height"
    folded = page.evaluate(height)
    page.emulate_media(media="print")
    assert page.evaluate(height) > 10 * folded
    page.emulate_media(media="screen")
