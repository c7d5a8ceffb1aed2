"""What Dagster calls stale after a person has edited the mapping or the recipe, before anything has run again."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from assets.definitions import build_defs
from pipeline.labels.study_groups import shipped_study_groups
from resources.environment import read_environment
from tests.conftest import run_in_process, table_path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the first test waits for the whole run


def stale(store: Path, home: Path, changes: Mapping[str, str]) -> dict[str, list[str]]:
    """The assets of a store that Dagster finds stale, each with the reasons that it gives."""
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(store), **changes}))
    graph = definitions.resolve_asset_graph()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {
            key.path[-1]: [cause.reason for cause in resolver.get_stale_causes(key)]
            for key in graph.materializable_asset_keys
            if resolver.get_status(key) == StaleStatus.STALE
        }


@pytest.fixture(scope="module")
def home(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store's Dagster instance: looking at it changes nothing of the store."""
    home = tmp_path_factory.mktemp("instance") / "dagster"
    shutil.copytree(demo_store / "dagster", home)
    return home


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    """A copy of the mapping that the store was made with."""
    return Path(shutil.copy(shipped_study_groups(), tmp_path / "groups.csv"))


def test_nothing_is_stale_after_a_run(demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path) -> None:
    changes = {"SONOTAG_RECIPE": str(tiny_recipe)}
    assert stale(demo_store, home, changes) == {}
    assert stale(demo_store, home, {**changes, "SONOTAG_STUDY_GROUPS": str(mapping)}) == {}  # its place does not count


LABELS = {"study_groups", "weak_labels", "label_changes", "pool_labels", "label_report"}
LEARN_LABELS = {"resnet50_dcm_encoder", "resnet50_ce_dcm_encoder"}
MEMBERSHIP = {"reviewed_descriptions", "labelled_records", "pretraining_pool"}
ENCODERS = {f"resnet50_{method}_encoder" for method in ("baseline", "imagenet", "dcm", "ce", "ce_dcm")}
LIVER = 'US BIOPSY LIVER FOCAL,"liver,abdomen"'


def test_other_groups_for_a_description_leave_the_images_and_ce_fresh(
    demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path
) -> None:
    text = mapping.read_text(encoding="utf-8")
    assert LIVER in text
    mapping.write_text(text.replace(LIVER, "US BIOPSY LIVER FOCAL,kidney"), encoding="utf-8")
    found = stale(demo_store, home, {"SONOTAG_RECIPE": str(tiny_recipe), "SONOTAG_STUDY_GROUPS": str(mapping)})
    assert set(found) == LABELS | LEARN_LABELS
    assert set(found["weak_labels"]) == {"has a new code version"}


def test_a_newly_mapped_description_may_change_who_trains_so_that_every_encoder_is_stale(
    demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path
) -> None:
    mapping.write_text(mapping.read_text(encoding="utf-8") + "US NEW,liver\n", encoding="utf-8")
    found = stale(demo_store, home, {"SONOTAG_RECIPE": str(tiny_recipe), "SONOTAG_STUDY_GROUPS": str(mapping)})
    assert set(found) == LABELS | MEMBERSHIP | ENCODERS


def test_a_row_of_probes_may_change_who_trains_so_that_every_encoder_is_stale(
    demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path
) -> None:
    changes = {"SONOTAG_RECIPE": str(tiny_recipe), "SONOTAG_STUDY_GROUPS": str(mapping.parent)}
    assert stale(demo_store, home, changes) == {}
    rows = mapping.parent / "probes.csv"
    rows.write_text("manufacturer,name,shape\nGE,Q9,? linear\n", encoding="utf-8")
    assert stale(demo_store, home, changes) == {}  # not reviewed
    rows.write_text("manufacturer,name,shape\nGE,Q9,linear\n", encoding="utf-8")
    assert set(stale(demo_store, home, changes)) == LABELS | MEMBERSHIP | ENCODERS | {"unmapped_probes"}


def test_a_row_for_a_study_may_change_who_trains_so_that_every_encoder_is_stale(
    demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path
) -> None:
    changes = {"SONOTAG_RECIPE": str(tiny_recipe), "SONOTAG_STUDY_GROUPS": str(mapping.parent)}
    rows = mapping.parent / "studies.csv"
    rows.write_text("study,groups\n0123,? liver\n", encoding="utf-8")
    assert stale(demo_store, home, changes) == {}  # not reviewed
    rows.write_text("study,groups\n0123,liver\n", encoding="utf-8")
    assert set(stale(demo_store, home, changes)) == LABELS | MEMBERSHIP | ENCODERS


def test_another_image_size_makes_the_cache_stale_and_leaves_the_labels_fresh(
    demo_store: Path, home: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    larger = tmp_path / "larger.yaml"
    larger.write_text(tiny_recipe.read_text(encoding="utf-8").replace("width: 64", "width: 96"), encoding="utf-8")
    found = stale(demo_store, home, {"SONOTAG_RECIPE": str(larger)})
    assert {"image_cache", "pretraining_pool"} | ENCODERS <= set(found)
    assert not {"dicom_index", "study_groups", "weak_labels", "labelled_records"} & set(found)


def test_a_mapping_that_cannot_be_read_can_still_be_looked_at(
    demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path
) -> None:
    mapping.write_text("no,table\n", encoding="utf-8")
    found = stale(demo_store, home, {"SONOTAG_RECIPE": str(tiny_recipe), "SONOTAG_STUDY_GROUPS": str(mapping)})
    assert set(found) == LABELS | MEMBERSHIP | ENCODERS | {"unmapped_probes"}


def test_after_an_ingest_with_other_groups_dcm_is_stale_and_ce_is_not(
    demo_store: Path, home: Path, tiny_recipe: Path, mapping: Path, tmp_path: Path
) -> None:
    """By the digests of what was made, whatever the code versions say: the encoders here are asked as they were."""
    text = mapping.read_text(encoding="utf-8")
    mapping.write_text(text.replace(LIVER, "US BIOPSY LIVER FOCAL,kidney"), encoding="utf-8")
    store = tmp_path / "store"
    shutil.copytree(demo_store, store, symlinks=True, ignore=shutil.ignore_patterns("models", "mlflow"))
    run_in_process("ingest", store, SONOTAG_RECIPE=str(tiny_recipe), SONOTAG_STUDY_GROUPS=str(mapping))
    changes = {"SONOTAG_RECIPE": str(tiny_recipe), "SONOTAG_STUDY_GROUPS": str(mapping)}
    assert set(stale(store, store / "dagster", changes)) == LEARN_LABELS
    changed = pq.read_table(table_path(store, "label_changes")).to_pylist()
    shared, rare = "tables/dicom_index.parquet", "private/descriptions.parquet"
    told = [row for name in (shared, rare) for row in pq.read_table(store / name).to_pylist()]
    described = [row["sop_instance"] for row in told if row["study_description"] == "US BIOPSY LIVER FOCAL"]
    assert described and {row["sop_instance"] for row in changed} == set(described)
    assert all(row["before"].startswith("liver, abdomen") for row in changed)
    assert all(row["after"].startswith("kidney") for row in changed)
