"""Links, commands, options, files, variables and make targets in README, CONTRIBUTING, CHANGELOG and docs exist."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
CODE = ("pipeline", "assets", "resources", "tests")
EARLIER = ("pipeline.cohort.thyroid_set", "pipeline.downstream")
"""Commands that CHANGELOG.md names as renamed."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> list[str]:
    """The relative links of `page` that lead to no file, or to no heading in it."""
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        known = anchors(target.read_text(encoding="utf-8")) if anchor and target.suffix == ".md" else {anchor}
        if not target.exists() or anchor not in known:
            broken.append(link)
    return broken


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert not broken_links(page)


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("## Does it `work` (3.1)?\n```sh\n# no heading\n```\n", encoding="utf-8")
    page = tmp_path / "page.md"
    good = "[a](other.md) [b](other.md#does-it-work-31) [c](#title) [d](https://example.org/x#y)"
    page.write_text(f"# Title\n{good} [e](none.md) [f](other.md#no-heading) [g](#other)\n", encoding="utf-8")
    assert broken_links(page) == ["none.md", "other.md#no-heading", "#other"]


COMMAND = re.compile(r"-m ((?:pipeline|resources|benchmarks|tests)[\w.]*\w)([^`\n#]*)")


def entry_point(module: str) -> str:
    """The source of `python -m module`."""
    spec = find_spec(module)
    assert spec is not None, module
    spec = find_spec(f"{module}.__main__") if spec.submodule_search_locations else spec
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin).read_text("utf-8")


@each_page
def test_commands_run_and_have_the_named_options(page: Path) -> None:
    for module, arguments in COMMAND.findall(page.read_text("utf-8").replace("\\\n", "")):
        if module not in EARLIER:
            source = entry_point(module)
            assert source.startswith('"""`python -m') or "__main__" in source, module
            missing = [option for option in re.findall(r"--[a-z-]+", arguments) if f'"{option}"' not in source]
            assert not missing, (module, missing)


@each_page
def test_files_and_variables_in_the_text_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    files = set(re.findall(r"`((?:pipeline|assets|resources|tests|recipes|benchmarks)/[\w./-]*\w)/?`", text))
    if page.name != "CHANGELOG.md":  # names what moved
        assert [file for file in files if not (ROOT / file).exists()] == []
    code = "".join(path.read_text("utf-8") for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")))
    assert [name for name in re.findall(r"SONOTAG_[A-Z_]+[A-Z]", text) if name not in code] == []


def test_the_steps_of_reading_an_archive_are_files() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = text.split("## Reading an archive")[1].split("| --- | --- |\n")[1].split("\n\n")[0].splitlines()
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    rooms = [ROOT / "pipeline" / room for room in ("archive", "dicom", "privacy")]
    assert len(named) > 15 and {name for name in named if not any((r / f"{name}.py").is_file() for r in rooms)} == set()


@each_page
def test_make_targets_exist(page: Path) -> None:
    defined = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    text = page.read_text("utf-8")
    named = re.findall(r"`make ([a-z][a-z-]*)[ `]", text) + re.findall(r"^make ([a-z][a-z-]*)", text, re.M)
    assert set(named) <= defined


def test_readme_links_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", readme))
    followed = {
        link for name in linked for link in re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / name).read_text("utf-8"))
    }
    assert {page.name for page in PAGES if page.parent.name == "docs"} <= linked | followed
