"""What tests of all rooms share: one phantom clinic, one tiny recipe, and running a job as a user does.

Belongs here: fixtures used by more than one folder. Not here: expectations.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    import dagster as dg

ROOT = Path(__file__).parent.parent
TINY_RECIPE = """
name: tiny
images: {height: 32, width: 64}
pretraining:
  backbones: [resnet50]
  methods: [baseline, imagenet, dcm, ce, ce_dcm]
  epochs: 1
  batch_size: 16
downstream:
  arms: [baseline, imagenet, dcm, ce, ce_dcm, ce_dcm_frozen]
  fractions: [1.0, 0.5]
  tasks:
    quality:
      kind: ordinal
      classes: ["0", "1", "2", "3", "4"]
      manifest: ${SONOTAG_STORE}/phantom/downstream/quality.csv
      epochs: 1
      batch_size: 8
      learning_rate: {resnet50: 0.0001}
    thyroid:
      kind: segmentation
      classes: [background, nodule]
      manifest: ${SONOTAG_STORE}/phantom/downstream/thyroid.csv
      epochs: 1
      batch_size: 8
      learning_rate: {resnet50: 0.0001}
evaluation: {resamples: 100}
"""

RunJob = Callable[..., "subprocess.CompletedProcess[str]"]


def job_environment(store: Path, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user who has set nothing but the store, and `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SONOTAG_", "MLFLOW_", "DAGSTER_"))}
    home = store / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    return {**kept, "SONOTAG_STORE": str(store), "DAGSTER_HOME": str(home), **(changes or {})}


def run_job(job: str, store: Path, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    """`dagster job execute -m assets.definitions -j JOB` as README shows it."""
    dagster = str(Path(sys.executable).parent / "dagster")
    return subprocess.run(
        [dagster, "job", "execute", "-m", "assets.definitions", "-j", job, *arguments],
        cwd=ROOT,
        env=job_environment(store, changes),
        capture_output=True,
        text=True,
        check=False,
    )


def run_in_process(job: str, store: Path, **changes: str) -> "dg.ExecuteInProcessResult":
    """The same in this process, which saves starting one; raises unless the job succeeds."""
    import dagster as dg

    from assets.definitions import build_defs
    from resources.environment import read_environment

    variables = job_environment(store, changes)
    with patch.dict(os.environ, variables, clear=True), dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as of:
        return build_defs(read_environment(variables)).resolve_job_def(job).execute_in_process(instance=of)


def table_path(store: Path, name: str) -> Path:
    """The one table called `name` in `store`: shared, or that of its only recipe."""
    (path,) = [*store.glob(f"tables/{name}.parquet"), *store.glob(f"experiments/*/tables/{name}.parquet")]
    return path


def plain_bytes(path: Path) -> bytes:
    """The bytes of a file in which a text can be found: a Parquet file is compressed, so it is written plainly."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    plain = pa.BufferOutputStream()
    pq.write_table(pq.ParquetFile(path).read(), plain, compression="none", use_dictionary=False)
    return plain.getvalue().to_pybytes()


def keys_of(definitions: "dg.Definitions", *names: str) -> "list[dg.AssetKey]":
    """The keys of the assets called so, whichever recipe they belong to; raises if one is missing."""
    found = [key for key in definitions.resolve_asset_graph().get_all_asset_keys() if key.path[-1] in names]
    assert {key.path[-1] for key in found} == {*names}
    return found


@pytest.fixture(autouse=True)
def same_random_weights() -> None:
    """A network that a test draws is the same whichever tests ran before it in the same process."""
    if "torch" in sys.modules:  # most tests do without it
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom clinic: `archive/`, `downstream/` and the ground truth beside them."""
    from pipeline.phantom.clinic import make_phantom
    from tests.clinics import labelled, small_clinic

    clinic = small_clinic(
        images=145,
        patients=14,
        quality=labelled(4, (6, 2, 4)),
        liver_kidney=labelled(2, (1, 1, 1)),
        thyroid=labelled(4, (6, 2, 4)),
    )
    folder = tmp_path_factory.mktemp("clinic") / "phantom"
    make_phantom(folder, 0, clinic)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that runs every kind of step in seconds."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def demo_store(phantom: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the job `demo` has run with the tiny recipe, by the command line."""
    store = tmp_path_factory.mktemp("store") / "store"
    store.mkdir()
    (store / "phantom").symlink_to(phantom)
    done = run_job("demo", store, SONOTAG_RECIPE=str(tiny_recipe))
    assert done.returncode == 0, done.stderr[-4000:]
    (store / "demo.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    return store
