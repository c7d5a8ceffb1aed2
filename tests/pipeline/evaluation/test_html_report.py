"""The HTML report holds all tables and figures and is self-contained."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evaluation.figures import EmbeddingMap, InpaintingRow, inpainting_figure, maps_figure, save_figure
from pipeline.evaluation.html_report import write_html_report
from pipeline.evaluation.report import write_results
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES
from pipeline.training.outcome import Outcome
from tests.pipeline.evaluation.conftest import everything, write_models

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Elements with their attributes, and the text of table cells, row by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        self._in_cell = tag in {"td", "th"} or (tag == "strong" and self._in_cell)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\xa0", " ")
        if self.rows and self._in_cell:
            self.rows[-1][-1] += data.replace("\xa0", " ").strip("\n")

    _in_cell = False

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def changed(recipe: Recipe, **task: object) -> Recipe:
    """The recipe with other settings of its task quality, and a file of ImageNet weights."""
    settings = recipe.model_dump()
    settings["downstream"]["tasks"]["quality"] |= task
    settings["pretraining"]["imagenet_weights"] = {"resnet50": "/home/dr_maier/weights.safetensors"}
    return Recipe.model_validate(settings)


def filled(recipe: Recipe, store: Store, reason: str = "no file") -> None:
    """Write outcomes and predictions of two arms; the third is unavailable for `reason`."""
    experiment = store.experiment(recipe.name)
    outcomes, predictions = everything(recipe, {"ce": 6, "ce_dcm_frozen": 9})
    said = {
        cell: outcome if outcome.status == "ran" else Outcome("unavailable", reason, "f")
        for cell, outcome in outcomes.items()
    }
    write_models(experiment, said, predictions)


def page_of(recipe: Recipe, store: Store) -> tuple[str, Page]:
    write_results(recipe, store.experiment(recipe.name))
    html = write_html_report(recipe, store).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


def test_the_page_needs_nothing_but_itself(three_seeds: Recipe, store: Store) -> None:
    filled(three_seeds, store)
    picture = np.zeros((16, 24), np.uint8)
    reports = store.experiment(three_seeds.name).reports
    row = InpaintingRow("liver", picture, picture, [picture])
    save_figure(inpainting_figure([row], ["CE"]), reports / "inpainting_resnet50.png")
    html, page = page_of(three_seeds, store)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    links = [attributes["href"] for attributes in page.of("a")]
    assert links and all(link and link.startswith("#") for link in links)
    assert {link[1:] for link in links if link} <= {attributes.get("id") for _, attributes in page.elements}
    (image,) = page.of("img")
    data = (image["src"] or "").removeprefix("data:image/png;base64,")
    assert base64.b64decode(data) == (reports / "inpainting_resnet50.png").read_bytes()
    assert "http" not in html.replace("http-equiv", "").replace(data, "")
    assert image["alt"] and page.of("html") == [{"lang": "en"}]


def test_the_maps_follow_the_frozen_scores_or_the_job_that_makes_them_is_named(
    three_seeds: Recipe, store: Store
) -> None:
    _, page = page_of(three_seeds, store)
    assert "No encoder has embeddings: run the job `evaluate`." in page.text and not page.of("img")
    panels = [EmbeddingMap("source", np.eye(2, dtype=np.float32), ["folder 1", "folder 2"])]
    path = store.experiment(three_seeds.name).reports / "embedding_maps_resnet50.png"
    save_figure(maps_figure({"CE": panels}), path)
    _, page = page_of(three_seeds, store)
    (image,) = page.of("img")
    assert image["src"] == f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    assert "No encoder has embeddings" not in page.text and "distances between groups" in page.text


def test_its_policy_allows_its_own_pictures_and_style_and_no_more(three_seeds: Recipe, store: Store) -> None:
    html, page = page_of(three_seeds, store)
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy is not None
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"]
    assert not [attributes for _, attributes in page.elements if "style" in attributes], "it would not be applied"


def test_every_number_of_the_markdown_report_is_on_the_page(three_seeds: Recipe, store: Store) -> None:
    filled(three_seeds, store)
    markdown = write_results(three_seeds, store.experiment(three_seeds.name)).markdown
    wanted = [
        [cell.strip().strip("*") for cell in line.strip("|").split(" | ")]
        for line in markdown.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    _, page = page_of(three_seeds, store)
    assert len(wanted) > 40
    assert [row for row in wanted if row not in page.rows] == []
    prose = [line for line in markdown.splitlines() if line and line[0] not in "#|-"]
    assert len(prose) > 8 and all(line in page.text for line in prose)
    assert "no file" in page.text and "not run" in page.text


def test_tables_have_captions_and_their_heads_a_scope(three_seeds: Recipe, store: Store) -> None:
    filled(three_seeds, store)
    _, page = page_of(three_seeds, store)
    assert len(page.of("table")) == len(page.of("caption")) > 8
    assert {attributes.get("scope") for attributes in page.of("th")} == {"col", "row"}


def test_hostile_names_and_reasons_are_text(three_seeds: Recipe, store: Store) -> None:
    recipe = changed(three_seeds, classes=[HOSTILE, '"><img src=x onerror=alert(1)>', "</pre>{{ 7 * 7 }}"])
    filled(recipe, store, reason=f"{HOSTILE} & <b>bold</b>")
    html, page = page_of(recipe, store)
    assert HOSTILE not in html and "<b>" not in html and not page.of("script") and not page.of("img")
    assert page.text.count(HOSTILE) > 3
    assert "{{ 7 * 7 }}" in page.text


@pytest.mark.integration
def test_of_files_only_the_names_are_shown(three_seeds: Recipe, store: Store, tmp_path: Path) -> None:
    recipe = changed(three_seeds, manifest="/home/dr_maier/patients/quality.csv")
    filled(recipe, store, reason="weights.safetensors does not exist: save it there")
    html, _ = page_of(recipe, store)
    assert "dr_maier" not in html and str(tmp_path) not in html
    assert "manifest: quality.csv" in html and "resnet50: weights.safetensors" in html
    assert "not run: weights.safetensors does not exist: save it there" in html


def test_a_variable_of_a_path_is_not_shown_either(three_seeds: Recipe, store: Store) -> None:
    html, _ = page_of(changed(three_seeds, manifest="${CLINIC_OF_DR_MAIER}/quality.csv"), store)
    assert "MAIER" not in html and "manifest: quality.csv" in html


def test_without_any_run_there_is_no_number_and_no_picture(three_seeds: Recipe, store: Store) -> None:
    html, page = page_of(three_seeds, store)
    assert "0 of 72 fine-tunings" in page.text and "0 of 8 declared differences" in page.text
    assert not page.of("img")
    assert not [cell for row in page.rows for cell in row if " ± " in cell]
    chapters = {part.split('"')[0]: part for part in html.split('<section id="')[1:]}
    empty = ("data", "metrics", "constants", "confusions", "overlays", "inpainting", "collapse", "cost", "curves")
    assert not [anchor for anchor in empty if "<table" in chapters[anchor] or chapters[anchor].count("<p>") != 1]
    assert "not run" in chapters["results"]


def test_images_and_patients_of_the_archive_are_counted(three_seeds: Recipe, store: Store) -> None:
    def rows(schema: pa.Schema, patients: list[str]) -> list[dict[str, object]]:
        filled = {f.name: {"string": "x", "bool": False}.get(str(f.type), 1) for f in schema}
        return [filled | {"patient": p} for p in patients]

    tables = store.experiment(three_seeds.name).tables
    for table, folder, patients in ((DICOM_INDEX, store.tables, ["a", "a", "b", "c"]), (IMAGES, tables, ["a", "b"])):
        table.write(folder, pa.Table.from_pylist(rows(table.schema, patients), schema=table.schema))
    _, page = page_of(three_seeds, store)
    counts = [count for what, count in (row for row in page.rows if len(row) == 2) if count.isdecimal()]
    assert counts[:3] == ["4", "3", "2"], "records, their patients, images; there is no table of rejections"
    assert not [row for row in page.rows if row[0].startswith("Rejected")]


@pytest.mark.integration
def test_the_same_store_gives_the_same_bytes(three_seeds: Recipe, store: Store) -> None:
    filled(three_seeds, store)
    assert page_of(three_seeds, store)[0] == page_of(three_seeds, store)[0]


@pytest.mark.parametrize(("seeds", "warned"), [(1, False), (2, True), (3, True), (5, False)])
def test_the_page_warns_about_two_to_four_pretraining_seeds(
    three_seeds: Recipe, store: Store, seeds: int, warned: bool
) -> None:
    settings = three_seeds.model_dump()
    settings["pretraining"]["seeds"] = settings["downstream"]["seeds"] = list(range(seeds))
    _, page = page_of(Recipe.model_validate(settings), store)
    assert ("apply to these models only" in page.text) == ("43 %" in page.text) == warned
