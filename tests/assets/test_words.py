"""What a person reads on Dagster's pages after a run: sentences and tables, no raw data."""

from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.tables import counts_table
from pipeline.dicom.rejections import Reason
from tests.conftest import table_path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the first test waits for the whole run


@pytest.fixture(scope="module")
def materializations(demo_store: Path) -> dict[str, dg.AssetMaterialization]:
    with dg.DagsterInstance.from_config(str(demo_store / "dagster")) as instance:
        events = {key: instance.get_latest_materialization_event(key) for key in instance.all_asset_keys()}
    return {
        key.path[-1]: event.asset_materialization
        for key, event in events.items()
        if event is not None and event.asset_materialization is not None
    }


@pytest.fixture(scope="module")
def evaluations(demo_store: Path) -> list[dg.AssetCheckEvaluation]:
    with dg.DagsterInstance.from_config(str(demo_store / "dagster")) as instance:
        *_, run = instance.get_runs(filters=dg.RunsFilter(job_name="demo"))  # the first: other tests run the job again
        logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [entry.get_dagster_event().asset_check_evaluation_data for entry in logs]


def test_every_check_says_in_words_what_it_found(evaluations: list[dg.AssetCheckEvaluation]) -> None:
    assert len({(check.asset_key, check.check_name) for check in evaluations}) > 20
    for check in evaluations:
        assert check.description and check.description[0] not in "{[", check.check_name
        raw = [name for name, value in check.metadata.items() if isinstance(value, dg.JsonMetadataValue)]
        assert not raw, (check.check_name, raw)


def test_no_asset_shows_raw_data(materializations: dict[str, dg.AssetMaterialization]) -> None:
    assert "quarantine" in materializations and "resnet50_ce_dcm_encoder" in materializations
    for name, made in materializations.items():
        raw = [key for key, value in made.metadata.items() if isinstance(value, dg.JsonMetadataValue)]
        assert not raw, (name, raw)


def test_the_quarantine_says_what_each_reason_means(materializations: dict[str, dg.AssetMaterialization]) -> None:
    shown = str(materializations["quarantine"].metadata["reasons"].value)
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines()[2:]]
    assert "not_dicom" in {reason for reason, *_ in rows}
    assert all(meaning == Reason(reason).meaning for reason, _, meaning in rows)
    counted = materializations["quarantine"].metadata["dagster/row_count"].value
    assert sum(int(count) for _, count, _ in rows) == counted


def test_the_quarantine_shows_ids_and_why_in_two_columns_which_is_what_the_page_has_room_for(
    demo_store: Path, materializations: dict[str, dg.AssetMaterialization]
) -> None:
    head, _, *lines = str(materializations["quarantine"].metadata["first rows"].value).splitlines()
    assert head == "| id | why |"
    table = pq.read_table(table_path(demo_store, "quarantine")).to_pylist()
    said = {row["id"]: (row["reason"], row["detail"]) for row in table}
    assert len(lines) > 3
    for line in lines:
        name, why = line.strip("| ").split(" | ")
        assert why.startswith(said[name][0]) and why.replace("\\|", "|").endswith(said[name][1])


def test_an_encoder_s_page_leads_to_its_folder_its_run_and_the_registry(
    demo_store: Path, materializations: dict[str, dg.AssetMaterialization]
) -> None:
    shown = materializations["resnet50_ce_dcm_encoder"].metadata
    folder = demo_store / str(shown["folder in the store"].value)
    assert (folder / "encoder.safetensors").is_file()
    assert str(shown["MLflow registry"].value).endswith("/#/models/tiny.resnet50_ce_dcm_encoder)")
    assert "/runs/" in str(shown["MLflow run"].value)
    assert "MLflow registry" not in materializations["resnet50_imagenet_encoder"].metadata


def test_counts_are_sorted_and_what_has_no_meaning_is_shown_all_the_same() -> None:
    shown = str(counts_table("reason", {"a": 1, "c": 2, "b": 2}, {"b": "broken"}).value)
    assert shown.splitlines()[2:] == ["| b | 2 | broken |", "| c | 2 |  |", "| a | 1 |  |"]
    assert counts_table("reason", {}, {}).value == "(none)"
