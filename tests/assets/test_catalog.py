"""What Dagster's catalog says of every asset."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.catalog import ENGINEERING, LOOK_BACKS, RADIOLOGY
from assets.definitions import build_defs
from pipeline.errors import UserError
from pipeline.recipe import Recipe, load_recipe
from pipeline.tables import (
    DICOM_INDEX,
    DOUBTFUL_LABELS,
    FROZEN_SCORES,
    IMAGES,
    LABEL_CHANGES,
    LABEL_REPORT,
    PATIENT_SPLITS,
    QUARANTINE,
    REJECTED_FILES,
    REJECTED_FRAMES,
    UNMAPPED_DESCRIPTIONS,
    UNMAPPED_PROBES,
    pretraining_pool_table,
    weak_labels_table,
)
from resources.environment import read_environment
from tests.conftest import ROOT


def specs(folder: Path, recipe: str) -> dict[str, dg.AssetSpec]:
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(folder), "SONOTAG_RECIPE": recipe}))
    return {spec.key.path[-1]: spec for spec in definitions.resolve_all_asset_specs()}


def columns(recipe: Recipe) -> dict[str, set[str]]:
    """The columns of every table, by the asset that a lineage names."""
    names = recipe.labels.names
    tables = {
        **{
            spec.name: spec
            for spec in (
                DICOM_INDEX,
                REJECTED_FILES,
                REJECTED_FRAMES,
                QUARANTINE,
                PATIENT_SPLITS,
                UNMAPPED_DESCRIPTIONS,
                UNMAPPED_PROBES,
                DOUBTFUL_LABELS,
                LABEL_CHANGES,
                LABEL_REPORT,
                FROZEN_SCORES,
            )
        },
        "image_cache": IMAGES,
        "weak_labels": weak_labels_table(names),
        "pretraining_pool": pretraining_pool_table(names),
        "pool_labels": pretraining_pool_table(names),
    }
    return {name: set(spec.schema.names) for name, spec in tables.items()}


@pytest.mark.parametrize("recipe", ["demo", "paper", "ct_mr"])
def test_every_asset_says_whose_it_is_what_a_row_is_and_where_to_read_on(recipe: str, tmp_path: Path) -> None:
    for name, spec in specs(tmp_path, recipe).items():
        assert spec.owners in ([ENGINEERING], [RADIOLOGY]), name
        assert spec.group_name and spec.kinds and spec.description and spec.code_version, name
        assert (ROOT / str(spec.metadata["documentation"])).is_file(), name


@pytest.mark.parametrize("recipe", ["demo", "paper", "ct_mr"])
def test_the_graph_of_groups_has_no_way_back(recipe: str, tmp_path: Path) -> None:
    above: dict[str, set[str]] = {}
    assets = specs(tmp_path, recipe)
    for spec in assets.values():
        groups = {str(assets[dep.asset_key.path[-1]].group_name) for dep in spec.deps}
        above.setdefault(str(spec.group_name), set()).update(groups - {spec.group_name})
    order = list(TopologicalSorter(above).static_order())  # raises CycleError
    assert order.index("archive") < order.index("cohort") < order.index("pretraining")


def test_the_radiologist_owns_what_asks_for_a_radiologist(tmp_path: Path) -> None:
    owners = {name: spec.owners for name, spec in specs(tmp_path, "demo").items()}
    assert owners["unmapped_descriptions"] == owners["study_groups"] == [RADIOLOGY]
    assert owners["dicom_index"] == owners["resnet18_ce_dcm_encoder"] == [ENGINEERING]


@pytest.mark.parametrize("recipe", ["demo", "ct_mr"])
def test_column_lineage_names_columns_that_there_are_of_assets_above(recipe: str, tmp_path: Path) -> None:
    known, assets = columns(load_recipe(recipe)), specs(tmp_path, recipe)
    told = {
        name: spec.metadata["dagster/column_lineage"]
        for name, spec in assets.items()
        if "dagster/column_lineage" in spec.metadata
    }
    assert {"quarantine", "weak_labels", "pretraining_pool", "pool_labels"} <= set(told)
    assert set(told["quarantine"].deps_by_column) == known["quarantine"]
    for name, lineage in told.items():
        assert set(lineage.deps_by_column) <= known[name], name
        for sources in lineage.deps_by_column.values():
            for source in sources:
                assert source.column_name in known[source.asset_key.path[-1]], (name, source)
                assert source.asset_key in {dep.asset_key for dep in assets[name].deps}, (name, source)


def test_a_label_comes_from_the_tags_that_its_source_reads(tmp_path: Path) -> None:
    lineage = specs(tmp_path, "demo")["weak_labels"].metadata["dagster/column_lineage"].deps_by_column
    read = {label: sorted(source.column_name for source in lineage[label]) for label in ("thyroid", "linear")}
    assert read == {"thyroid": ["study_description"], "linear": ["manufacturer", "transducer_data", "transducer_type"]}


@pytest.mark.parametrize("name", ["archive", "cohort", "tasks", "reports"])
def test_a_task_cannot_be_called_as_a_group_of_other_assets(name: str, tmp_path: Path) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
    recipe["downstream"]["tasks"] = {name: recipe["downstream"]["tasks"]["quality"]}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(UserError, match=f"^Recipe demo: no task can be called {name}, "):
        specs(tmp_path, str(path))


def test_every_look_back_is_in_the_asset_s_description_and_in_the_documentation(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = dict(
        re.findall(
            r"^\| `([^`]+)` \| (.+) \|$", page.split("| asset | looks back at |")[1].split("\n## ")[0], re.MULTILINE
        )
    )
    assert rows == LOOK_BACKS
    described = {name: spec.description or "" for name, spec in specs(tmp_path, "demo").items()}
    found = {text.split("Looks back at ")[1].removesuffix(".") for text in described.values() if "Looks back" in text}
    assert found == set(LOOK_BACKS.values())
    assert LOOK_BACKS["image_cache"] in described["image_cache"]
