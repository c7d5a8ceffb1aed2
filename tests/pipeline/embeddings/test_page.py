"""The page of maps: what it holds and what it must not hold."""

import base64
import hashlib
import io
import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from pipeline.embeddings.page import maps_of, write_map_page
from pipeline.embeddings.table import embed_recipe
from pipeline.progress import silent
from tests.pipeline.embeddings.conftest import COUNT, FOLDER, HOSTILE, PATIENTS, Made


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of every script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._last = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._last = tag

    def handle_data(self, data: str) -> None:
        if self._last == "script" and data.strip():
            self.scripts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def data_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(Parsed(path.read_text(encoding="utf-8")).scripts[0]))


def test_the_page_is_private_and_its_policy_allows_its_own_style_and_script_alone(made: Made, written: Path) -> None:
    assert written == made.store.private_of("small") / "embeddings.html"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    html = written.read_text(encoding="utf-8")
    parsed = Parsed(html)
    (policy,) = (meta["content"] for meta in parsed.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.split(maxsplit=1) for part in str(policy).split("; "))
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        assert directives.pop(name) == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert directives == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    assert not {"link", "iframe", "form", "base", "a", "object"} & {tag for tag, _ in parsed.elements}


def test_hostile_texts_are_data_and_no_folder_or_patient_is_named(written: Path) -> None:
    html = written.read_text(encoding="utf-8")
    parsed = Parsed(html)
    assert len(parsed.of("script")) == 2 and len(parsed.of("img")) == 1 and "<img src=http" not in html
    facts = {fact["name"]: fact for fact in data_of(written)["facts"]}
    machines = facts["machine"]["values"]
    assert any(HOSTILE.replace("\u202e", "\ufffd") in machine for machine in machines)
    assert facts["source"]["values"] == ["folder 1", "folder 2"]
    assert FOLDER not in html and not re.search(r'"[pi]\d+"', html)


def test_facts_and_answers_are_those_of_the_tables(written: Path) -> None:
    data = data_of(written)
    facts = {fact["name"]: [fact["values"][code] for code in fact["of"]] for fact in data["facts"]}
    numbers = range(COUNT)
    assert facts["label: liver"] == ["yes" if number % 2 else "no" for number in numbers]
    assert facts["label: kidney"][:2] == ["unknown", "no"] and facts["study groups"][:3] == [
        "unknown",
        "liver",
        "kidney",
    ]
    assert facts["source"] == [f"folder {1 if number % PATIENTS < 6 else 2}" for number in numbers]
    assert facts["split"] == ["validation" if number % PATIENTS == 0 else "training" for number in numbers]
    assert data["ids"][3] == "f_0000000000000003:0"
    assert [one["name"] for one in data["maps"]] == ["ResNet-50 Baseline", "ResNet-50 CE"]
    for one in data["maps"]:
        xy = np.array(one["xy"])
        assert xy.shape == (COUNT, 2) and xy.min() == 0 and xy.max() == data["scale"]
        assert all(number % PATIENTS != near % PATIENTS for number in numbers for near in one["others"][number][::2])
        assert all(number % PATIENTS == near % PATIENTS for number in numbers for near in one["own"][number][::2])


def test_thumbnails_are_small_and_those_that_state_text_and_are_not_cropped_are_black(written: Path) -> None:
    (sheet,) = Parsed(written.read_text(encoding="utf-8")).of("img")
    jpeg = base64.b64decode(str(sheet["src"]).removeprefix("data:image/jpeg;base64,"))
    grey = np.asarray(Image.open(io.BytesIO(jpeg)))
    tile = data_of(written)["tile"]
    assert (tile["height"], tile["width"]) == (48, 96) and grey.shape == (48, 96 * tile["across"])
    means = [grey[:, 96 * number + 8 : 96 * number + 88].mean() for number in range(COUNT)]
    assert means[0] < 5 and means[1] > 30
    assert means[1:] == pytest.approx([6 * number + 49.5 for number in range(1, COUNT)], abs=5)


def test_the_same_rows_give_the_same_bytes(made: Made, written: Path) -> None:
    before = written.read_bytes()
    rows = embed_recipe(made.recipe, made.store, made.found.pool, silent)
    assert write_map_page(made.recipe, made.store, rows, made.found).read_bytes() == before


def test_of_several_seeds_the_first_that_has_ended_is_shown(made: Made) -> None:
    rows = embed_recipe(made.recipe, made.store, made.found.pool, silent)
    pretraining = made.recipe.pretraining.model_copy(update={"seeds": (5, 0)})
    recipe = made.recipe.model_copy(update={"pretraining": pretraining})
    other = rows.set_column(rows.schema.get_field_index("seed"), rows.schema.field("seed"), [[5] * rows.num_rows])
    later = other.filter(pc.field("encoder") == "ce")  # the baseline of seed 5 has not ended
    shown = maps_of(recipe, pa.concat_tables([rows, later]))
    seeds = {name: of_encoder["seed"].unique().to_pylist() for name, of_encoder in shown.items()}
    assert seeds == {"ResNet-50 Baseline": [0], "ResNet-50 CE": [5]}


def test_without_the_list_of_files_there_are_no_sources(made: Made) -> None:
    (made.store.private / "scan.parquet").unlink()
    rows = embed_recipe(made.recipe, made.store, made.found.pool, silent)
    without = data_of(write_map_page(made.recipe, made.store, rows, made.found))
    assert "source" not in {fact["name"] for fact in without["facts"]} and without["maps"]
