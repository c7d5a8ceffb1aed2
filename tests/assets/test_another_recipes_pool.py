"""Two recipes on one store: each has its own images, labels and pool, and neither touches what the other has made."""

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.definitions import build_defs
from pipeline.errors import UserError
from pipeline.evaluation.html_report import write_html_report
from pipeline.evaluation.report import write_results
from pipeline.pretraining.pool import load_pool
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store
from pipeline.tables import IMAGES
from resources.environment import read_environment
from tests.conftest import keys_of
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
    """A folder whose store the recipe `masked` has filled; `strict` has not run on it."""
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
    keys = keys_of(definitions, *assets) or None
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
def test_every_job_that_reads_a_pool_refuses_where_only_another_recipe_has_one(
    clinic: Path, job: str, asset: str
) -> None:
    """The step of the pool itself, started alone, refuses to do without images and labels of its own."""
    names = ("pretraining_pool", "pool_labels") if asset == "pool_images" else (asset,)
    table = "images" if asset == "pool_images" else "pretraining_pool"
    said = why(materialize(clinic, "strict", job, *names))
    assert said.startswith(str(clinic / "store" / "experiments" / "strict" / "tables" / f"{table}.parquet"))
    assert "`ingest`" in said


def edited(folder: Path, name: str, to: str) -> Path:
    """The recipe of that name with another `missing`, in a file of its own."""
    path = folder / f"edited_{name}.yaml"
    path.write_text(RECIPE.format(name=name, missing=to), encoding="utf-8")
    return path


def page(recipe: Recipe, store: Store) -> None:
    write_results(recipe, store.experiment(recipe.name))
    write_html_report(recipe, store)


def count_new_patients(recipe: Recipe, store: Store) -> None:
    from assets.automation import new_patients

    new_patients(recipe, store)


def pool(recipe: Recipe, store: Store) -> None:
    load_pool(store, recipe)


@pytest.mark.parametrize("read", [page, count_new_patients, pool])
def test_a_pool_that_the_recipe_made_with_other_settings_is_refused(
    clinic: Path, read: Callable[[Recipe, Store], None]
) -> None:
    with pytest.raises(UserError, match=r"other settings \(labels\)"):
        read(load_recipe(str(edited(clinic, "masked", "exclude"))), Store(clinic / "store").open())


def test_its_own_recipe_reads_it(clinic: Path) -> None:
    result = materialize(clinic, "masked", "report", "dataset_table")
    assert result.success


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_second_recipe_has_its_own_pool_and_the_first_one_keeps_its_own(clinic: Path, tmp_path: Path) -> None:
    """`exclude` leaves out the patients whose probe is not known, whatever `mask` has taken in, and in either order."""
    folder = shutil.copytree(clinic, tmp_path / "clinic")
    store, masked = Store(folder / "store"), folder / "store" / "experiments" / "masked"
    before, shared = files(masked), files(store.tables)
    assert materialize(folder, "strict", "ingest").success
    pools = {name: load_pool(store, load_recipe(str(folder / f"{name}.yaml"))) for name in ("strict", "masked")}
    assert {name: pool.images.count for name, pool in pools.items()} == {
        "strict": LABELLED,
        "masked": LABELLED + OPEN,
    }
    assert files(masked) == before and files(store.tables) == shared
    sides = [{*pool.patients_N[pool.val].tolist()} for pool in pools.values()]
    assert all(sides)
    strict = files(store.experiment("strict").tables)
    assert materialize(folder, "masked", "ingest").success
    assert files(store.experiment("strict").tables) == strict
    assert not list(folder.rglob("*.tmp"))


def test_images_of_another_recipe_count_when_patients_are_split(clinic: Path, tmp_path: Path) -> None:
    """A picture that two patients share keeps them on one side, also if the recipe that runs leaves it out."""
    folder = shutil.copytree(clinic, tmp_path / "clinic")
    rows = pq.read_table(IMAGES.path(folder / "store" / "experiments" / "masked" / "tables"))
    (folder / "store" / "private" / "sides.parquet").unlink()
    (folder / "store" / "private" / "sides.copy.parquet").unlink()
    (folder / "store" / "tables" / "patient_splits.parquet").unlink()
    everybody_alike = rows.set_column(
        rows.column_names.index("source_digest"), rows.schema.field("source_digest"), pa.array(["same"] * len(rows))
    )
    IMAGES.write(folder / "store" / "experiments" / "a_third" / "tables", everybody_alike)
    assert materialize(folder, "masked", "ingest", "patient_splits").success
    sides = pq.read_table(folder / "store" / "tables" / "patient_splits.parquet")["split"].to_pylist()
    assert len({*sides}) == 1
