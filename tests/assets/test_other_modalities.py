"""The job `ingest` with a recipe for CT and MR: labels written by hand, and nothing of ultrasound in the way."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import run_in_process, table_path
from tests.pipeline.archive.ct_mr import FILES, LABELS, RECIPE, write_archive

pytestmark = pytest.mark.integration


def test_a_recipe_for_other_modalities_is_ingested_without_code(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive")
    (tmp_path / "slices.yaml").write_text(RECIPE, encoding="utf-8")
    run_in_process(
        "ingest",
        tmp_path / "store",
        SONOTAG_ARCHIVE=str(tmp_path / "archive"),
        SONOTAG_RECIPE=str(tmp_path / "slices.yaml"),
    )

    def table(name: str) -> list[dict]:
        return pq.read_table(table_path(tmp_path / "store", name)).to_pylist()

    labelled = sorted(values for *_, status, values in FILES.values() if status == "labelled")
    assert sorted(tuple(row[name] for name in LABELS) for row in table("pretraining_pool")) == labelled
    assert {row["split"] for row in table("pretraining_pool")} == {"train", "val"}
    assert sorted(row["status"] for row in table("weak_labels")) == sorted(status for *_, status, _ in FILES.values())
    assert [row["reason"] for row in table("quarantine")] == ["other_modality"]
    assert table("unmapped_descriptions") == []
