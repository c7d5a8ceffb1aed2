"""The command on the store of a finished demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.methods import METHODS
from tests.conftest import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def run(store: Path, recipe: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "SONOTAG_STORE": str(store), "SONOTAG_RECIPE": str(recipe)}
    command = [sys.executable, "-m", "pipeline.frozen", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_finished_encoder_is_scored_on_every_problem_beside_its_controls(
    demo_store: Path, tiny_recipe: Path
) -> None:
    done = run(demo_store, tiny_recipe)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^### ([\w' ]+): .*\n\n((?:\|.*\n)+)", done.stdout, re.MULTILINE))
    tables = {name: table for name, table in found.items() if " by " not in name}
    assert set(tables) == {"The archive's own labels", "Quality", "Thyroid"}
    written = demo_store.glob("experiments/tiny/encoders/*/encoder.safetensors")
    encoders = {METHODS[path.parent.name.removeprefix("resnet50_").removesuffix("_seed-0")].label for path in written}
    assert len(encoders) == 4
    more = {"The archive's own labels": {"brightness", "image size"}, "Quality": {"brightness"}, "Thyroid": {"none"}}
    for name, table in tables.items():
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        assert {row[1] for row in rows if row[0] == "ResNet-50"} == encoders
        assert {row[1] for row in rows if row[0] == "control"} == {"pixels"} | more[name]
        scores = [float(cell.split()[0]) for row in rows for cell in row[3:]]
        assert all(0 <= score <= 1 for score in scores)


def test_what_the_demo_has_scored_is_printed_and_not_scored_again(demo_store: Path, tiny_recipe: Path) -> None:
    table = demo_store / "experiments" / "tiny" / "tables" / "frozen_scores.parquet"
    before = table.read_bytes()
    for split, images in (("val", "validation"), ("test", "test")):
        done = run(demo_store, tiny_recipe, "--split", split)
        assert done.stderr == "" and f" {images} images of" in done.stdout
    assert table.read_bytes() == before


def test_an_empty_store_is_refused_in_one_sentence_that_names_the_first_job(tmp_path: Path, tiny_recipe: Path) -> None:
    done = run(tmp_path, tiny_recipe)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "`ingest`" in done.stderr
