"""A pool that another recipe has made is refused by every job that reads it."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import build_defs
from pipeline.errors import UserError
from pipeline.evaluation.html_report import write_html_report
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store
from resources.environment import read_environment
from tests.pipeline.archive.synthetic import noise, write_dicom

pytestmark = pytest.mark.integration

RECIPE = """
name: {name}
images: {{height: 32, width: 64}}
labels: {{missing: {missing}, sources: [{{kind: probe}}]}}
pretraining: {{backbones: [resnet50], methods: [baseline], epochs: 1, batch_size: 2}}
downstream: {{arms: [baseline], tasks: {{}}}}
"""
LABELLED, OPEN = 12, 4
"""Patients whose probe is known, and patients whose probe is not: `exclude` leaves these out."""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store the recipe `masked` has filled, for the recipe `strict` too."""
    folder = tmp_path_factory.mktemp("two_recipes")
    for number in range(LABELLED + OPEN):
        tags = {"TransducerType": "LINEAR" if number < LABELLED else "UNKNOWN", "PatientID": f"P{number}"}
        write_dicom(folder / "archive" / str(number), noise(64, 96, seed=number), **tags)
    for name, missing in (("strict", "exclude"), ("masked", "mask")):
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, missing=missing), encoding="utf-8")
    assert materialize(folder, "masked", "ingest").success
    return folder


def materialize(folder: Path, recipe: str, job: str, *assets: str) -> dg.ExecuteInProcessResult:
    named = {"STORE": "store", "ARCHIVE": "archive", "RECIPE": f"{recipe}.yaml"}
    definitions = build_defs(read_environment({f"SONOTAG_{key}": str(folder / place) for key, place in named.items()}))
    keys = [dg.AssetKey(asset) for asset in assets] or None
    return definitions.resolve_job_def(job).execute_in_process(
        instance=dg.DagsterInstance.ephemeral(), asset_selection=keys, raise_on_error=False
    )


def why(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    return str(result.get_step_failure_events()[0].step_failure_data.user_failure_data.description)


@pytest.mark.parametrize(
    ("job", "asset"),
    [
        ("pretrain", "preflight"),
        ("pretrain", "resnet50_baseline_encoder"),
        ("report", "dataset_table"),
        ("report", "inpainting_figure"),
        ("ingest", "pool_images"),
    ],
)
def test_every_job_that_reads_it_refuses_and_names_the_job_to_run(clinic: Path, job: str, asset: str) -> None:
    """The step of the pool itself, started alone, refuses the labels that the other recipe has made."""
    names = ("pretraining_pool", "pool_labels") if asset == "pool_images" else (asset,)
    table = "weak_labels" if asset == "pool_images" else "pretraining_pool"
    said = why(materialize(clinic, "strict", job, *names))
    assert said.startswith(str(clinic / "store" / "tables" / f"{table}.parquet"))
    assert all(word in said for word in ("(labels)", "masked", "strict", "`ingest`"))


def page(recipe: Recipe, store: Store) -> None:
    write_html_report(recipe, store)


def count_new_patients(recipe: Recipe, store: Store) -> None:
    from assets.automation import new_patients

    new_patients(recipe, store)


@pytest.mark.parametrize("read", [page, count_new_patients])
def test_so_do_the_page_and_the_schedule(clinic: Path, read: Callable[[Recipe, Store], None]) -> None:
    with pytest.raises(UserError, match=r"other settings \(labels\)"):
        read(load_recipe(str(clinic / "strict.yaml")), Store(clinic / "store").open())


def test_its_own_recipe_reads_it(clinic: Path) -> None:
    result = materialize(clinic, "masked", "report", "dataset_table")
    assert result.success
