"""The benchmark of frozen evaluation on a task of twenty images and a tiny backbone."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import frozen
from tests.pipeline.downstream.conftest import data, task
from tests.pipeline.pretraining.conftest import tiny_backbone

__all__ = ["tiny_backbone"]
pytestmark = pytest.mark.integration


@pytest.mark.usefixtures("tiny_backbone")
def test_the_ratio_is_that_of_the_seconds_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen.write_encoder(tmp_path / "encoder", 32, 64)
    clock = iter([0.0, 2.0, 10.0, 25.0])
    monkeypatch.setattr(frozen, "time", SimpleNamespace(process_time=lambda: next(clock)))
    found = frozen.figure(
        "masks", task("segmentation"), data("segmentation"), tmp_path / "encoder", tmp_path, repeats=1
    )
    assert found.what == "masks (12 training images of 20, 1 epochs of fine-tuning)"
    assert found.value == "7.5× (2.0 s against 15.0 s)"
    assert (tmp_path / "0" / "predictions.parquet").is_file()
