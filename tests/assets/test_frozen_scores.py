"""The job `evaluate` in a small archive without a task: scores of the archive's own labels, once."""

from pathlib import Path

import dagster as dg
import pytest

from pipeline.evaluation.report_figures import draw
from pipeline.files import read_table
from pipeline.recipe import load_recipe
from pipeline.tables import EMBEDDINGS, FROZEN_SCORES
from tests.assets.test_audit import Clinic
from tests.pipeline.pretraining.conftest import tiny_backbone

__all__ = ["tiny_backbone"]
pytestmark = pytest.mark.integration


@pytest.mark.usefixtures("tiny_backbone")
def test_encoders_are_scored_and_embedded_once_and_those_without_a_score_are_named(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path)
    assert clinic.run("ingest").success
    mistake, _ = clinic.run("evaluate", raise_on_error=False).get_step_failure_events()
    assert "run the job `pretrain`" in str(mistake.step_failure_data.user_failure_data.description)
    assert clinic.run("pretrain").success
    first, second = (scored(clinic.run("evaluate")) for _ in range(2))
    rows = FROZEN_SCORES.read(clinic.tables).to_pylist()
    assert {row["features"] for row in rows} == {"baseline", "pixels", "brightness", "image size"}
    full = {row["features"]: row["score"] for row in rows if row["fraction"] == 1}
    assert full["image size"] == 0.5  # one size for all tells nothing
    assert "| ResNet-50 | Baseline |" in str(first.metadata["scores of validation images"].value)
    assert str(first.metadata["not scored"].value) == "(none)"
    version = "dagster/data_version"
    assert first.tags is not None and second.tags is not None and first.tags[version] == second.tags[version]
    assert first.metadata["dagster/row_count"].value == len(rows)
    check_embeddings(clinic, tmp_path)


def check_embeddings(clinic: Clinic, folder: Path) -> None:
    """Every image of the pool has a row, the private page names no patient, and the report's figure is drawn."""
    rows, pool = EMBEDDINGS.read(clinic.tables), read_table(clinic.tables / "pretraining_pool.parquet")
    assert rows["sop_instance"].to_pylist() == pool["sop_instance"].to_pylist()
    page = (clinic.store.private_of("tiny") / "embeddings.html").read_text(encoding="utf-8")
    assert '"folder 1"' in page
    assert not any(patient in page for patient in pool["patient"].unique().to_pylist())
    (figure,) = draw("embedding_maps", load_recipe(str(folder / "tiny.yaml"), {}), clinic.store)
    assert figure.name == "embedding_maps.png" and figure.stat().st_size > 10_000


def scored(result: dg.ExecuteInProcessResult) -> dg.AssetMaterialization:
    made = {event.asset_key.path[-1]: event for event in result.get_asset_materialization_events() if event.asset_key}
    assert set(made) == {"frozen_scores", "embeddings"}
    return made["frozen_scores"].materialization
