"""An installed wheel finds its recipes and Table A1, away from the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_an_installed_wheel_finds_its_recipes_and_table_a1(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("sonotag-*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    assert {"pipeline/evaluation/html_report.html", "pipeline/pages/page.html", "pipeline/pages/style.css"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
    probe = (
        "import pipeline, assets.definitions as d\n"
        "from pipeline.recipe import load_recipe, shipped_recipes\n"
        "from pipeline.labels.study_groups import read_study_groups, shipped_study_groups\n"
        "recipe = load_recipe('paper', {})\n"
        "print(pipeline.__file__, sorted(shipped_recipes()), "
        "len(read_study_groups(shipped_study_groups(), recipe.labels.groups).mapping))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "SONOTAG_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", probe], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert "'demo'" in done.stdout
    assert "'paper'" in done.stdout
    assert done.stdout.strip().endswith(" 44")
