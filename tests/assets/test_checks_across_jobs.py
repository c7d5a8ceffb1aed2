"""A blocking check that did not pass stops what follows in every later job, until it passes again."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.automation import schedules
from assets.catalog import COHORT, REVIEW, TASKS
from assets.definitions import build_defs
from assets.jobs import JOBS
from pipeline.blocking_checks import BEFORE_TRAINING, job_of
from pipeline.pretraining.__main__ import main
from pipeline.recipe import load_recipe
from resources.environment import read_environment
from resources.store import StoreFolder
from tests.conftest import ROOT, TINY_RECIPE, keys_of, table_path
from tests.pipeline.archive.synthetic import noise, write_dicom

pytestmark = pytest.mark.integration

RECIPE = """
name: {name}
images: {{height: 32, width: 64}}
archive: {{description_patients: 1}}
labels: {{missing: mask, sources: [{{kind: probe}}]}}
pretraining: {{backbones: [resnet50], methods: [baseline], epochs: 1, batch_size: 2}}
downstream: {{arms: [baseline], tasks: {{}}}}
"""
PATIENT = "QW7719340"
CHECK, ASSET = "no_identifier_exposed", "pretraining_pool"


def variables(folder: Path, recipe: str = "one") -> dict[str, str]:
    named = {"STORE": "store", "ARCHIVE": "archive", "RECIPE": f"{recipe}.yaml"}
    return {f"SONOTAG_{key}": str(folder / place) for key, place in named.items()}


def materialize(folder: Path, job: str, *assets: str, recipe: str = "one") -> dg.ExecuteInProcessResult:
    """A job in an instance of its own, whose event log knows of no other run."""
    definitions = build_defs(read_environment(variables(folder, recipe)))
    keys = keys_of(definitions, *assets) or None
    return definitions.resolve_job_def(job).execute_in_process(
        instance=dg.DagsterInstance.ephemeral(), asset_selection=keys, raise_on_error=False
    )


def why(result: dg.ExecuteInProcessResult) -> str:
    failed = result.get_step_failure_events()
    assert failed, "nothing was refused"
    return str(failed[0].step_failure_data.user_failure_data.description)


def check_alone(folder: Path, check: str, asset: str = ASSET) -> dg.ExecuteInProcessResult:
    """The check as *Execute* on its page runs it."""
    definitions = build_defs(read_environment(variables(folder)))
    keys = definitions.resolve_asset_graph().asset_check_keys
    (key,) = (one for one in keys if (one.asset_key.path[-1], one.name) == (asset, check))
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection={key})
    return job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of twelve patients that has been read, every check green."""
    folder = tmp_path_factory.mktemp("green")
    for number in range(12):
        write_dicom(folder / "archive" / str(number), noise(64, 96, seed=number), PatientID=f"{PATIENT}{number}")
    for name in ("one", "other"):
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name), encoding="utf-8")
    assert materialize(folder, "ingest").success
    return folder


@pytest.fixture(scope="module")
def found(green: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after an `ingest` that found an identifier in a file of the store, which is gone by now."""
    folder = shutil.copytree(green, tmp_path_factory.mktemp("red") / "clinic")
    leak = folder / "store" / "notes.txt"
    leak.write_text(f"call {PATIENT}3 back")
    assert not materialize(folder, "ingest").success
    leak.unlink()
    return folder


@pytest.fixture
def clinic(green: Path, tmp_path: Path) -> Path:
    return shutil.copytree(green, tmp_path / "clinic")


@pytest.fixture
def red(found: Path, tmp_path: Path) -> Path:
    return shutil.copytree(found, tmp_path / "clinic")


def encoders(folder: Path) -> list[Path]:
    return list((folder / "store").glob("experiments/*/encoders/*/encoder.safetensors"))


@pytest.mark.parametrize("asset", ["preflight", "resnet50_baseline_encoder"])
def test_no_later_job_starts_what_follows(red: Path, asset: str) -> None:
    said = why(materialize(red, "pretrain", asset))
    assert all(word in said for word in (CHECK, ASSET, "`ingest`"))
    assert PATIENT not in said
    assert encoders(red) == []


def test_neither_does_the_command_without_dagster(red: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(red / "store"), "--recipe", str(red / "one.yaml"), "--preflight"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert CHECK in said and "`ingest`" in said


def test_nor_the_schedule(red: Path) -> None:
    recipe = load_recipe(str(red / "one.yaml"))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_schedule_context(
            instance=instance, resources={"store": StoreFolder(root=str(red / "store"))}
        ) as context,
    ):
        ticked = schedules([recipe])[0].evaluate_tick(context)
    assert not ticked.run_requests
    assert CHECK in str(ticked.skip_message)


def test_once_it_passes_work_goes_on(red: Path) -> None:
    assert materialize(red, "ingest").success
    assert materialize(red, "pretrain", "resnet50_baseline_encoder").success
    assert len(encoders(red)) == 1


def test_the_check_alone_lifts_the_refusal_after_the_correction(red: Path) -> None:
    result = check_alone(red, CHECK)
    assert result.success
    assert not result.get_asset_materialization_events()
    assert [one.passed for one in result.get_asset_check_evaluations()] == [True]
    assert materialize(red, "pretrain", "preflight").success


def test_a_check_alone_that_fails_stops_later_jobs(clinic: Path) -> None:
    (clinic / "store" / "notes.txt").write_text(f"call {PATIENT}3 back")
    result = check_alone(clinic, CHECK)
    assert not result.success
    tags = result.dagster_run.tags if result.dagster_run else {}
    assert not any(PATIENT in value for value in tags.values())
    assert CHECK in why(materialize(clinic, "pretrain", "preflight"))


@pytest.mark.parametrize(
    ("check", "asset"),
    [
        ("cache_intact", "image_cache"),
        ("no_text_kept_whole", "image_cache"),
        ("no_near_duplicates", "near_duplicates"),
        ("label_space_unchanged", "weak_labels"),
        ("few_records_unmapped", "unmapped_descriptions"),
        ("no_patient_on_both_sides", "pretraining_pool"),
        ("no_test_image_in_pool", "pretraining_pool"),
        ("pool_can_train", "pretraining_pool"),
    ],
)
def test_each_check_can_be_run_alone(green: Path, check: str, asset: str) -> None:
    (found,) = check_alone(green, check, asset).get_asset_check_evaluations()
    assert found.passed
    assert found.description


def test_a_check_of_a_table_that_does_not_exist_is_one_sentence(clinic: Path) -> None:
    table_path(clinic / "store", "weak_labels").unlink()
    said = why(check_alone(clinic, "label_space_unchanged", "weak_labels"))
    assert "weak_labels.parquet" in said and "`ingest`" in said


def test_a_run_that_leaves_out_a_check_leaves_it_unfinished(clinic: Path) -> None:
    definitions = build_defs(read_environment(variables(clinic)))
    assets = set(keys_of(definitions, "pretraining_pool", "pool_labels"))
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=assets, asset_check_selection=set()
    )
    assert job.execute_in_process(instance=dg.DagsterInstance.ephemeral()).success
    assert "not finished" in why(materialize(clinic, "pretrain", "preflight"))


def test_the_step_of_the_check_and_those_before_it_are_not_stopped(red: Path) -> None:
    assert materialize(red, "ingest", "quarantine").success
    assert materialize(red, "ingest", "pretraining_pool", "pool_labels").success
    assert materialize(red, "pretrain", "preflight").success


def test_another_recipe_does_not_lift_it(red: Path) -> None:
    assert materialize(red, "ingest", recipe="other").success
    assert materialize(red, "pretrain", "preflight", recipe="other").success
    assert why(materialize(red, "pretrain", "preflight"))


def test_a_table_that_was_changed_after_its_check_is_not_used(clinic: Path) -> None:
    pool = table_path(clinic / "store", "pretraining_pool")
    pq.write_table(pq.read_table(pool).slice(1), pool)
    said = why(materialize(clinic, "pretrain", "preflight"))
    assert "has changed since" in said and "`ingest`" in said


KILLED = """
import os, signal, sys
from assets import checks
from assets.definitions import build_defs
from resources.environment import read_environment
import dagster as dg

def died(*arguments):
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("a bug in the check")

died.__name__ = "no_identifier_exposed"
checks.no_identifier_exposed = died
job = build_defs(read_environment(os.environ)).resolve_job_def("ingest")
keys = [dg.AssetKey(["one", "pretraining_pool"]), dg.AssetKey(["one", "pool_labels"])]
job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), asset_selection=keys, raise_on_error=False)
"""


@pytest.mark.parametrize("end", ["killed", "raised"])
def test_a_check_that_died_half_way_has_not_passed(clinic: Path, end: str) -> None:
    """The table is the same, byte for byte, as when the check passed last."""
    environment = {**os.environ, **variables(clinic)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, end], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr[-2000:]
    said = why(materialize(clinic, "pretrain", "preflight"))
    assert CHECK in said and "not finished" in said and "`ingest`" in said
    assert materialize(clinic, "ingest").success
    assert materialize(clinic, "pretrain", "preflight").success


def test_a_step_that_fails_before_it_has_written_leaves_the_earlier_result(clinic: Path) -> None:
    (clinic / "archive").rename(clinic / "unmounted")
    assert not materialize(clinic, "ingest").success
    assert materialize(clinic, "pretrain", "preflight").success


def test_a_pool_whose_checks_have_left_no_result_is_not_trained_on(clinic: Path) -> None:
    for path in (clinic / "store").glob("**/checks/*.json"):
        path.unlink()
    said = why(materialize(clinic, "pretrain", "preflight"))
    assert ASSET in said and "`ingest`" in said


def test_the_results_name_no_patient_and_no_place(red: Path) -> None:
    texts = [path.read_text() for path in (red / "store").glob("**/checks/**/*") if path.is_file()]
    assert len(texts) >= 5
    assert not any(PATIENT in text or str(red) in text for text in texts)


@pytest.fixture
def tiny(tmp_path: Path) -> dg.Definitions:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    return build_defs(
        read_environment({"SONOTAG_STORE": str(tmp_path / "store"), "SONOTAG_RECIPE": str(tmp_path / "tiny.yaml")})
    )


def test_the_command_looks_at_the_checks_that_dagster_s_graph_puts_before_encoders(tiny: dg.Definitions) -> None:
    graph = tiny.resolve_asset_graph()
    (encoder,) = [key for key in graph.get_all_asset_keys() if key.path[-1] == "resnet50_ce_dcm_encoder"]
    blocking = {key.asset_key for key in graph.asset_check_keys if graph.get(key).blocking}
    above = blocking & graph.get_ancestor_asset_keys(encoder)
    assert above == {key for key in blocking if graph.get(key).group_name in BEFORE_TRAINING}
    assert {"archive", "images", COHORT} <= {graph.get(key).group_name for key in above}
    assert {REVIEW, TASKS} <= set(BEFORE_TRAINING)


def test_each_group_is_made_by_the_job_that_a_refusal_names(tiny: dg.Definitions) -> None:
    graph = tiny.resolve_asset_graph()
    (doubtful,) = tiny.resolve_job_def("audit").asset_layer.executable_asset_keys
    assert not [key for key in graph.asset_check_keys if key.asset_key == doubtful]  # nothing refuses because of it
    for job in JOBS.keys() - {"demo", "audit"}:
        for key in tiny.resolve_job_def(job).asset_layer.executable_asset_keys:
            group = graph.get(key).group_name or ""
            assert job_of(group) == ("finetune" if group == TASKS else job)  # two jobs make the tasks' images


def test_every_step_that_a_check_can_stop_opens_the_store(tiny: dg.Definitions) -> None:
    graph = tiny.resolve_asset_graph()
    blocking = {key.asset_key for key in graph.asset_check_keys if graph.get(key).blocking}
    for asset in tiny.assets:
        above = set().union(*(graph.get_ancestor_asset_keys(key) for key in asset.keys))
        if blocking & (above | asset.keys):
            assert "store" in asset.op.required_resource_keys, asset.op.name
