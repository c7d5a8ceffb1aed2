"""The batch asset: a model of the store on a folder of new images, through Dagster and without any other step."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.prediction import prediction_assets
from pipeline.files import read_table
from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.compute import Compute
from resources.store import StoreFolder
from resources.tracking import Tracking
from tests.conftest import TINY_RECIPE
from tests.pipeline.archive.synthetic import noise, write_dicom
from tests.pipeline.prediction.conftest import region, tissue, write_model

pytestmark = pytest.mark.integration

MODEL = "resnet50_ce_dcm_thyroid"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one model, and a folder `new` of a good and a bad image beside it."""
    made = Store(tmp_path / "store").open()
    write_model(made.experiment("tiny").model("resnet50", "ce_dcm", "thyroid", 1.0, 0), "segmentation")
    write_dicom(tmp_path / "new" / "Doe^Jane" / "a.dcm", tissue(), SequenceOfUltrasoundRegions=[region()])
    write_dicom(tmp_path / "new" / "b.dcm", noise(32, 64))
    return made


def materialize(store: Store, **config: object) -> dg.ExecuteInProcessResult:
    recipe = Recipe.model_validate(yaml.safe_load(TINY_RECIPE))
    locks = store.locks
    resources = {
        "store": StoreFolder(root=str(store.root)),
        "compute": Compute(lock_file=str(locks / "training.lock")),
        # no server answers there: the work goes on without it
        "tracking": Tracking(
            uri="http://127.0.0.1:9",
            artifacts="",
            experiment="tiny",
            lock_file=str(locks / "mlflow.lock"),
            pending=str(locks / "unsent"),
        ),
    }
    return dg.materialize(
        prediction_assets(recipe),
        resources=resources,
        run_config={"ops": {"new_predictions": {"config": config}}},
        raise_on_error=False,
    )


def test_a_batch_is_kept_in_the_private_folder_and_done_anew_by_the_next_run(store: Store, tmp_path: Path) -> None:
    for files in (2, 3):
        done = materialize(store, folder=str(tmp_path / "new"), model=MODEL)
        assert done.success
        (check,) = done.get_asset_check_evaluations()
        assert check.passed and check.blocking
        (made,) = done.asset_materializations_for_node("new_predictions")
        told = {name: value.value for name, value in made.metadata.items()}
        assert (told["files"], told["scored"], told["flagged.no_tissue"]) == (files, 1, files - 1)
        assert "Doe" not in str(made)
        out = store.private / "predictions" / "tiny" / MODEL / "fraction-1_seed-0"
        rows = read_table(out / "predictions.parquet").to_pylist()
        assert len(rows) == files
        assert [path.name for path in (out / "masks").iterdir()] == ["000001.dcm"]
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        write_dicom(tmp_path / "new" / "c.dcm", noise(32, 64, 1))


def test_a_model_that_the_recipe_does_not_have_or_that_did_not_run_fails_with_a_sentence(
    store: Store, tmp_path: Path
) -> None:
    new = {"folder": str(tmp_path / "new")}
    for config, says in (
        ({"model": MODEL}, "folder is not set"),
        (new, "model is '', which is none of"),
        (new | {"model": "../../elsewhere"}, "none of resnet50_baseline_quality"),
        (new | {"model": "resnet50_ce_thyroid"}, "model.json is missing"),
        ({"folder": str(tmp_path / "none"), "model": MODEL}, "none does not exist"),
    ):
        done = materialize(store, **config)
        (failure,) = [event for event in done.all_events if event.is_step_failure]
        assert says in str(failure.step_failure_data.error)
    assert not (store.private / "predictions").exists() or not list((store.private / "predictions").rglob("*.parquet"))
