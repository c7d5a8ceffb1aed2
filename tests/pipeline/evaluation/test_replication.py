"""The committed documents hold exactly the tables computed from their published numbers."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.evaluation.publication import EXPERIMENT, Publication, write_publication
from pipeline.evaluation.replication import filled, main, replicate, tables
from pipeline.evaluation.report import compute_report
from tests.conftest import ROOT

DOCS = ROOT / "docs"
COMMITTED = ("replication", "replication-louder", "replication-resolution", "replication-search")
DOCUMENT = """# Question

<!-- table: differences -->
| numbers |
<!-- end -->

What it means.

<!-- table: data --><!-- end -->
<!-- table: collapse -->
<!-- end -->
"""


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["replication", str(folder)])
    return main()


@pytest.mark.integration
def test_the_command_fills_tables_and_draws_figures_from_the_folder_alone(
    publication: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "replication"
    write_publication(folder, publication)
    document = folder.with_suffix(".md")
    document.write_text(DOCUMENT.replace("<!-- table: data --><!-- end -->\n", ""), encoding="utf-8")
    assert run(folder, monkeypatch) == 0
    text = document.read_text(encoding="utf-8")
    assert "| numbers |" not in text and "What it means." in text
    assert "| ResNet-50 | Quality (accuracy) | CE+DCM+F − CE | +0.500" in text
    assert text.count("| ResNet-50 | CE | 1 |") == 2, "diversity, and saturation by epoch"
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == {"boxplots.png", "differences.png", "boxplots_fraction-0.05_seed-0.png"}, "of the first seed alone"
    assert str(folder / "differences.png") in capsys.readouterr().out
    assert run(folder, monkeypatch) == 0
    assert document.read_text(encoding="utf-8") == text, "a second run changes nothing"


def test_a_folder_without_numbers_fails_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none", monkeypatch) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_only_text_between_the_marks_is_replaced() -> None:
    text = filled(
        DOCUMENT.replace("--><!-- end", "-->\n<!-- end"), {"differences": "D\n", "data": "T", "collapse": "C"}
    )
    assert text.startswith("# Question\n\n<!-- table: differences -->\n\nD\n\n<!-- end -->\n\nWhat it means.\n")
    assert text.endswith("<!-- table: data -->\n\nT\n\n<!-- end -->\n<!-- table: collapse -->\n\nC\n\n<!-- end -->\n")


def test_an_unknown_table_is_refused_with_its_name() -> None:
    with pytest.raises(UserError, match=r"'data'.*differences, collapse"):
        filled(DOCUMENT.replace("--><!-- end", "-->\n<!-- end"), {"differences": "D", "collapse": "C"})


def test_a_table_without_an_end_does_not_swallow_what_follows() -> None:
    text = "<!-- table: data -->\nWhat it means.\n<!-- table: collapse -->\n<!-- end -->\n"
    with pytest.raises(UserError, match=r"'data'.*`<!-- end -->`"):
        filled(text, {"data": "T", "collapse": "C"})


@pytest.mark.integration
def test_the_document_of_a_folder_with_a_dot_in_its_name(
    publication: Publication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "replication-0.2"
    write_publication(folder, publication)
    others = tmp_path / "replication-0.md"
    others.write_text("<!-- table: data -->\n<!-- end -->\n", encoding="utf-8")
    assert run(folder, monkeypatch) == 0
    assert others.read_text(encoding="utf-8") == "<!-- table: data -->\n<!-- end -->\n"
    assert ".md" not in capsys.readouterr().out, "there is no such document"
    (tmp_path / "replication-0.2.md").write_text(others.read_text(encoding="utf-8"), encoding="utf-8")
    assert run(folder, monkeypatch) == 0
    assert "Semantic inpainting" in (tmp_path / "replication-0.2.md").read_text(encoding="utf-8")


def test_every_chapter_of_the_report_is_a_table(publication: Publication) -> None:
    found = tables(publication, compute_report(publication.evidence))
    anchors = {"detectable", "results", "differences", "metrics", "constants", "inpainting", "collapse", "cost"}
    assert set(found) == {"data"} | anchors
    assert all(text.strip() for text in found.values())


@pytest.mark.integration
@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_document_names_existing_tables(publication: Publication, name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert filled(text, tables(publication, compute_report(publication.evidence))) != text


@pytest.mark.parametrize("name", COMMITTED)
@pytest.mark.integration
def test_a_committed_document_holds_exactly_the_recomputed_tables_and_figures(name: str, tmp_path: Path) -> None:
    if not (DOCS / name / EXPERIMENT).is_file():
        pytest.skip(f"docs/{name} holds no published numbers yet")
    shutil.copytree(DOCS / name, tmp_path / name)
    shutil.copy(DOCS / f"{name}.md", tmp_path)
    replicate(tmp_path / name)
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8") == (DOCS / f"{name}.md").read_text(encoding="utf-8")
    figures = {path.name: different_pixels(path, DOCS / name / path.name) for path in tmp_path.glob(f"{name}/*.png")}
    assert len(figures) > 1 and all(share < 1e-4 for share in figures.values()), figures


def different_pixels(one: Path, other: Path) -> float:
    """The share of pixels that differ by more than rounding on another processor."""
    first, second = (np.asarray(Image.open(path).convert("L"), dtype=int) for path in (one, other))
    return 1 if first.shape != second.shape else float(np.mean(np.abs(first - second) > 32))
