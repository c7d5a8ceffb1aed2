"""The command on the store of a finished demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    tables = dict(re.findall(r"^## (\w+): .*\n\n.*\n\n((?:\|.*\n)+)", done.stdout, re.MULTILINE))
    assert set(tables) == {"archive", "quality", "thyroid"}
    encoders = {path.parent.name for path in demo_store.glob("experiments/tiny/encoders/*/encoder.safetensors")}
    for name, table in tables.items():
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        controls = {"pixels", "none"} if name == "thyroid" else {"pixels", "brightness"}
        assert {row[0] for row in rows} == encoders | controls
        scores = [float(cell.split()[0]) for row in rows for cell in row[2:]]
        assert all(0 <= score <= 1 for score in scores)


def test_a_store_without_encoders_is_refused_in_one_sentence(tmp_path: Path, tiny_recipe: Path) -> None:
    done = run(tmp_path, tiny_recipe)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "pretrain" in done.stderr
