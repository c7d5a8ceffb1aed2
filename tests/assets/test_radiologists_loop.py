"""The worklist leaves the store as a CSV, is filled in, and comes back through the mapping's folder."""

import csv
import re
import shutil
import stat
from html import escape
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from pipeline.labels.study_groups import (
    describe_disagreements,
    printed_descriptions,
    read_study_groups,
    shipped_study_groups,
)
from pipeline.recipe.labels import Labels
from tests.conftest import run_in_process, table_path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the first test waits for the whole run
WORKLIST = "private/experiments/tiny/unmapped_descriptions.csv"


def table(store: Path, name: str) -> list[dict]:
    return pq.read_table(table_path(store, name)).to_pylist()


def copied(store: Path, folder: Path) -> Path:
    """A copy of a store, without what `ingest` does not need."""
    ignored = shutil.ignore_patterns("models", "mlflow", "encoders", "reports")
    return Path(shutil.copytree(store, folder, symlinks=True, ignore=ignored))


@pytest.fixture(scope="module")
def published(demo_store: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store after an `ingest` that publishes every description, as the demo does: nobody is real."""
    folder = tmp_path_factory.mktemp("published")
    recipe = folder / "recipe.yaml"
    text = tiny_recipe.read_text(encoding="utf-8") + "archive: {description_patients: 1}\n"
    recipe.write_text(text, encoding="utf-8")
    store = copied(demo_store, folder / "store")
    run_in_process("ingest", store, SONOTAG_RECIPE=str(recipe))
    return store


@pytest.fixture(scope="module")
def returned(demo_store: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store after an `ingest` with its worklist filled in: every description on it means the chest."""
    folder = tmp_path_factory.mktemp("loop")
    mapping = folder / "mapping"
    store = copied(demo_store, folder / "store")
    mapping.mkdir()
    shutil.copy(shipped_study_groups(), mapping / "table_a1.csv")
    with open(store / WORKLIST, encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    with open(mapping / "reviewed.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "groups": "chest", "reviewer": "R", "reviewed_on": "2026-11-23"} for row in rows)
    run_in_process("ingest", store, SONOTAG_RECIPE=str(tiny_recipe), SONOTAG_STUDY_GROUPS=str(mapping))
    return store


def test_the_worklist_as_it_is_written_says_nothing_yet(demo_store: Path) -> None:
    with open(demo_store / WORKLIST, encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert rows and list(rows[0]) == ["study_description", "groups", "reviewer", "reviewed_on", "notes"]
    assert all(row["groups"].startswith("?") for row in rows)
    assert read_study_groups(demo_store / WORKLIST, Labels().groups).mapping == {}


def test_the_private_page_has_the_rows_of_the_csv_and_pictures(demo_store: Path) -> None:
    page = (demo_store / WORKLIST).with_suffix(".html")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    with open(demo_store / WORKLIST, encoding="utf-8-sig") as file:
        described = [row["study_description"] for row in csv.DictReader(file)]
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h2[^>]*>(.*)</h2>", text) == [escape(name.removeprefix("'")) for name in described]
    assert len(described) <= text.count("<img ") <= 9 * len(described)


def test_the_label_report_has_a_row_per_label_and_counts_the_pool(demo_store: Path) -> None:
    rows, pool = table(demo_store, "label_report"), table(demo_store, "pretraining_pool")
    assert [row["label"] for row in rows] == list(Labels().names)
    assert [row["images"] for row in rows] == [sum(image[name] or 0 for image in pool) for name in Labels().names]


def test_the_worklist_of_probes_counts_images_without_a_name_and_has_none_to_map(demo_store: Path) -> None:
    rows = table(demo_store, "unmapped_probes")  # one for each maker
    assert {(row["name"], row["suggested_shape"]) for row in rows} == {("", None)}
    unknown = [row for row in table(demo_store, "weak_labels") if row["linear"] is None]
    assert 0 < sum(row["images"] for row in rows) <= len(unknown)  # the phased arrays among them are known
    written = (demo_store / WORKLIST).with_name("unmapped_probes.csv").read_text(encoding="utf-8-sig")
    assert written == "manufacturer,name,shape,model,images,patients,why\n"


def test_the_worklist_in_dagster_shows_pictures_and_what_is_suggested(published: Path) -> None:
    with dg.DagsterInstance.from_config(str(published / "dagster")) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["tiny", "unmapped_descriptions"]))
    assert event is not None and event.asset_materialization is not None
    lines = str(event.asset_materialization.metadata["for the radiologist"].value).splitlines()[2:]
    rows = table(published, "unmapped_descriptions")
    assert any(row["suggested_groups"] for row in rows) and len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert row["study_description"] in line
        assert ("data:image/png;base64," in line) == bool(row["study_description"]), line[:80]
        assert not row["suggested_groups"] or row["reason"] in line


def test_what_was_filled_in_is_labelled_and_no_longer_on_the_list(demo_store: Path, returned: Path) -> None:
    before = {row["sop_instance"]: row for row in table(demo_store, "weak_labels")}
    described = {row["sop_instance"] for row in before.values() if row["status"] == "unmapped_description"}
    assert described
    after = {row["sop_instance"]: row for row in table(returned, "weak_labels")}
    mapped = {instance for instance in described if after[instance]["status"] != "unmapped_description"}
    assert mapped and all(after[instance]["chest"] == 1 for instance in mapped)
    assert {row["sop_instance"] for row in table(returned, "label_changes")} == mapped
    left = [row["study_description"] for row in table(returned, "unmapped_descriptions")]
    assert left in ([], [""])  # what has no description cannot be mapped


def test_a_run_with_the_same_mapping_keeps_what_the_last_change_was(returned: Path, tiny_recipe: Path) -> None:
    changes = table_path(returned, "label_changes").read_bytes()
    mapping = returned.parent / "mapping"
    run_in_process("ingest", returned, SONOTAG_RECIPE=str(tiny_recipe), SONOTAG_STUDY_GROUPS=str(mapping))
    assert table_path(returned, "label_changes").read_bytes() == changes


def test_a_recipe_with_groups_of_its_own_has_its_worklist(demo_store: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    """Table A1 knows none of these groups, and what is suggested comes from the mapping at hand."""
    recipe, mapping = tmp_path / "recipe.yaml", tmp_path / "groups.csv"
    labels = "labels: {sources: [{kind: study_groups, groups: [belly]}, {kind: probe}]}\n"
    recipe.write_text(tiny_recipe.read_text(encoding="utf-8") + labels, encoding="utf-8")
    rows = [
        f"{name},{'belly' if 'LIVER' in name or 'KIDNEY' in name else ''}" for name in sorted(printed_descriptions())
    ]
    mapping.write_text("\n".join(["study_description,groups", *rows]), encoding="utf-8")
    store = copied(demo_store, tmp_path / "store")
    run_in_process("ingest", store, SONOTAG_RECIPE=str(recipe), SONOTAG_STUDY_GROUPS=str(mapping))
    with open(store / WORKLIST, encoding="utf-8-sig") as file:
        assert {row["groups"] for row in csv.DictReader(file)} <= {"?", "? belly"}


def test_a_pair_that_differs_left_and_right_is_named_only_where_table_a1_prints_it() -> None:
    rare = ("US LIVER LEFT MRS MILLER", "US LIVER RIGHT MRS MILLER")
    printed = ("US BIOPSY KIDNEY FOCAL (LEFT)", "US BIOPSY KIDNEY FOCAL (RIGHT)")
    differ = "other groups on the left than on the right:"
    assert describe_disagreements([]) == "no pair differs"
    assert describe_disagreements([printed]) == f"{differ} {' and '.join(printed)}"
    assert describe_disagreements([printed, rare]) == f"{differ} {' and '.join(printed)}; 1 more pairs of the mapping"
