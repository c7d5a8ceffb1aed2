"""Several recipes loaded together: side by side in one graph, one reading of the archive, each with its own work."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from assets.automation import schedules
from assets.definitions import build_defs
from pipeline.errors import UserError
from pipeline.pretraining.pool import load_pool
from pipeline.recipe import load_recipe
from pipeline.store import Store
from resources.environment import read_environment
from resources.store import StoreFolder
from tests.conftest import keys_of
from tests.pipeline.archive.synthetic import noise, write_dicom

RECIPE = """
name: {name}
images: {{height: 32, width: 64}}
archive: {{description_patients: 1}}
labels: {{missing: {missing}, sources: [{{kind: probe}}]}}
pretraining: {{backbones: [resnet50], methods: [baseline], epochs: 1, batch_size: 2}}
downstream: {{arms: [baseline], tasks: {{}}}}
automation: {{settle_minutes: {minutes}}}
"""
LABELLED, OPEN = 12, 4
"""Patients whose probe is known, and patients whose probe is not: `exclude` leaves these out."""
pytestmark = pytest.mark.integration
OF_ALL = {"dicom_index", "rejected_files", "deleted_files"}
BARE = ("pretrain", "evaluate", "finetune", "report", "predict", "audit", "demo")


def write_recipes(folder: Path) -> None:
    for name, missing, minutes in (("strict", "exclude", 5), ("masked", "mask", 30)):
        text = RECIPE.format(name=name, missing=missing, minutes=minutes)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def definitions(folder: Path, *recipes: str) -> dg.Definitions:
    named = ",".join(str(folder / f"{recipe}.yaml") for recipe in recipes)
    variables = {"SONOTAG_STORE": str(folder / "store"), "SONOTAG_ARCHIVE": str(folder / "archive")}
    return build_defs(read_environment({**variables, "SONOTAG_RECIPE": named}))


@pytest.fixture
def both(tmp_path: Path) -> dg.Definitions:
    write_recipes(tmp_path)
    return definitions(tmp_path, "strict", "masked")


def job_names(loaded: dg.Definitions) -> set[str]:
    return {job.name for job in loaded.get_repository_def().get_all_jobs()} - {"__ASSET_JOB"}


def test_with_one_recipe_jobs_sensors_and_groups_are_called_as_ever(tmp_path: Path) -> None:
    write_recipes(tmp_path)
    loaded = definitions(tmp_path, "strict")
    assert job_names(loaded) == {"ingest", *BARE}
    repository = loaded.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {"new_files", "reports_follow"}
    assert {schedule.name for schedule in repository.schedule_defs} == {"weekly_pretraining"}
    graph = loaded.resolve_asset_graph()
    assert {key.path[0] for key in graph.get_all_asset_keys() if len(key.path) == 1} == OF_ALL
    assert {key.path[0] for key in graph.get_all_asset_keys() if len(key.path) == 2} == {"strict"}
    groups = {graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert groups == {
        "archive",
        "labels",
        "images",
        "review",
        "cohort",
        "pretraining",
        "evaluation",
        "reports",
        "prediction",
    }


def test_with_several_each_has_its_own_jobs_but_ingest(both: dg.Definitions) -> None:
    of_recipes = {f"{recipe}_{job}" for recipe in ("strict", "masked") for job in BARE}
    assert job_names(both) == {"ingest", *of_recipes, *BARE}
    ingest = [key.path for key in both.resolve_job_def("ingest").asset_layer.executable_asset_keys]
    assert Counter(path[-1] for path in ingest) == Counter(
        {name: 1 if name in OF_ALL else 2 for name in {path[-1] for path in ingest}}
    )
    for recipe in ("strict", "masked"):
        for job in BARE:
            keys = both.resolve_job_def(f"{recipe}_{job}").asset_layer.executable_asset_keys
            assert keys == {key for key in keys if key.path[0] == recipe or (job == "demo" and key.path[-1] in OF_ALL)}
    steps = [node.name for node in both.resolve_job_def("ingest").graph.nodes]
    assert len(steps) == len({*steps}) == 19 + 2 * 12  # assets, and checks that are steps of their own


@pytest.mark.parametrize("job", BARE)
def test_a_bare_job_name_is_refused_in_a_sentence_that_lists_the_jobs(both: dg.Definitions, job: str) -> None:
    result = both.resolve_job_def(job).execute_in_process(raise_on_error=False)
    (failure,) = result.get_step_failure_events()
    said = str(failure.step_failure_data.user_failure_data.description)
    assert f"strict_{job}" in said and f"masked_{job}" in said


def test_sensors_and_schedules_are_a_recipes_own_but_that_of_the_archive(both: dg.Definitions, tmp_path: Path) -> None:
    repository = both.get_repository_def()
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert sensors.keys() == {"new_files", "strict_reports_follow", "masked_reports_follow"}
    graph = both.resolve_asset_graph()
    for recipe in ("strict", "masked"):
        target = sensors[f"{recipe}_reports_follow"].asset_selection
        keys = target.resolve(graph)
        assert {key.path[-1] for key in keys} >= {"results_table", "html_report"}
        assert {key.path[0] for key in keys} == {recipe}
    assert "for 30 minutes" in str(sensors["new_files"].description), "the longest of both"
    jobs = {schedule.name: schedule.job_name for schedule in repository.schedule_defs}
    assert jobs == {
        "strict_weekly_pretraining": "strict_pretrain",
        "masked_weekly_pretraining": "masked_pretrain",
    }


def test_nodes_are_told_apart_by_group_and_last_part(both: dg.Definitions) -> None:
    graph = both.resolve_asset_graph()
    told = Counter((graph.get(key).group_name, key.path[-1]) for key in graph.get_all_asset_keys())
    assert set(told.values()) == {1}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("modalities", "archive: {description_patients: 1, modalities: [CT]}"),
        ("frames_per_cine", "archive: {description_patients: 1, frames_per_cine: 7}"),
        ("description_patients", "archive: {}"),
        ("descriptions", "archive: {description_patients: 1, descriptions: [ProtocolName]}"),
    ],
)
def test_recipes_that_read_the_archive_differently_are_refused(tmp_path: Path, field: str, text: str) -> None:
    write_recipes(tmp_path)
    path = tmp_path / "masked.yaml"
    path.write_text(path.read_text().replace("archive: {description_patients: 1}", text))
    with pytest.raises(UserError, match=rf"archive\.{field}") as refusal:
        definitions(tmp_path, "strict", "masked")
    assert str(tmp_path / "strict.yaml") in str(refusal.value) and str(path) in str(refusal.value)


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    write_recipes(tmp_path)
    (tmp_path / "again.yaml").write_bytes((tmp_path / "strict.yaml").read_bytes())
    with pytest.raises(UserError, match="`name`, strict") as refusal:
        definitions(tmp_path, "strict", "again")
    assert "strict.yaml" in str(refusal.value) and "again.yaml" in str(refusal.value)


def test_a_file_whose_name_has_a_comma_is_one_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine, and yours.yaml"
    path.write_text("name: mine\n")
    for named in (str(path), f" {path.parent / 'a.yaml'} , demo,"):
        (tmp_path / "a.yaml").write_text("name: a\n")
        recipes = read_environment({"SONOTAG_STORE": str(tmp_path), "SONOTAG_RECIPE": named}).recipes
        assert [recipe.name for recipe in recipes] == (["mine"] if named == str(path) else ["a", "demo"])


TASK = {
    "kind": "ordinal",
    "classes": ["0", "1"],
    "manifest": "none.csv",
    "epochs": 1,
    "batch_size": 2,
    "learning_rate": {"resnet50": 0.0001},
}


@pytest.mark.parametrize("other", ["dcm_x", "dcm_y"])
def test_an_arm_and_a_task_whose_names_make_up_anothers_are_refused(tmp_path: Path, other: str) -> None:
    downstream = {"arms": ["ce", "ce_dcm"], "tasks": {"x": TASK, other: TASK}}
    recipe = {"name": "colliding", "pretraining": {"backbones": ["resnet50"]}, "downstream": downstream}
    (tmp_path / "colliding.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    if other == "dcm_y":
        assert keys_of(definitions(tmp_path, "colliding"), "resnet50_ce_dcm_x", "resnet50_ce_dcm_y")
        return
    with pytest.raises(UserError, match="resnet50_ce_dcm_x"):
        definitions(tmp_path, "colliding")


# Real runs


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose archive one `ingest` of both recipes has read, and whose recipe `strict` has been pretrained."""
    folder = tmp_path_factory.mktemp("several")
    write_recipes(folder)
    for number in range(LABELLED + OPEN):
        tags = {"TransducerType": "LINEAR" if number < LABELLED else "UNKNOWN", "PatientID": f"QW771934{number}"}
        write_dicom(folder / "archive" / str(number), noise(64, 96, seed=number), **tags)
    (folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        for job, recipes in (("ingest", ("strict", "masked")), ("strict_pretrain", ("strict", "masked"))):
            result = definitions(folder, *recipes).resolve_job_def(job).execute_in_process(instance=instance)
            assert result.success
    return folder


def status(folder: Path, *recipes: str) -> Mapping[str, StaleStatus]:
    loaded = definitions(folder, *recipes)
    graph = loaded.resolve_asset_graph()
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {key.to_user_string(): resolver.get_status(key) for key in graph.get_all_asset_keys()}


def test_one_ingest_gives_each_its_own_pool_and_reads_the_archive_once(clinic: Path) -> None:
    store = Store(clinic / "store")
    pools = {name: load_pool(store, load_recipe(str(clinic / f"{name}.yaml"))) for name in ("strict", "masked")}
    assert {name: pool.images.count for name, pool in pools.items()} == {
        "strict": LABELLED,
        "masked": LABELLED + OPEN,
    }
    with dg.DagsterInstance.local_temp(str(clinic / "dagster")) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="ingest"))
        made = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    keys = [entry.get_dagster_event().asset_key.to_user_string() for entry in made]
    assert keys.count("dicom_index") == keys.count("strict/image_cache") == keys.count("masked/image_cache") == 1
    assert len([*store.images.glob("*/cache.json")]) == 1, "of one size, and shared"


def test_what_a_run_of_both_made_is_fresh_whichever_recipes_are_loaded(clinic: Path) -> None:
    """The graph changes with SONOTAG_RECIPE, but nothing that was made looks stale, missing or new for it."""
    alone, together = status(clinic, "strict"), status(clinic, "strict", "masked")
    assert alone.items() <= together.items()
    made = {"strict/pretraining_pool", "strict/patient_splits", "strict/resnet50_baseline_encoder", "dicom_index"}
    assert {together[key] for key in (*made, "masked/pool_labels")} == {StaleStatus.FRESH}
    assert together["masked/resnet50_baseline_encoder"] == StaleStatus.MISSING
    assert StaleStatus.STALE not in together.values()
    assert status(clinic, "masked").items() <= together.items()


def test_checks_are_recorded_under_plain_groups_for_each_recipe_and_the_index_once(clinic: Path) -> None:
    store = Store(clinic / "store")
    assert [path.name for path in store.checks.glob("*.json")] == ["dicom_index.no_file_lost.json"]
    for recipe in ("strict", "masked"):
        records = [json.loads(path.read_text()) for path in store.experiment(recipe).checks.glob("*.json")]
        assert {record["group"] for record in records} == {"labels", "images", "cohort"}
        assert {record["result"] for record in records} == {"passed"} and len(records) >= 6


def test_mlflow_has_an_experiment_for_each_recipe(clinic: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{clinic / 'store' / 'mlflow' / 'mlflow.db'}")
    runs = {
        name: [run.info.run_name for run in client.search_runs([client.get_experiment_by_name(name).experiment_id])]
        for name in ("strict", "masked")
    }
    assert {"index_archive", "pool_images", "resnet50_baseline_encoder"} <= {*runs["strict"]}
    assert "pool_images" in runs["masked"] and "index_archive" not in runs["masked"]
    assert [model.name for model in client.search_registered_models()] == ["strict.resnet50_baseline_encoder"]


def test_what_is_trained_with_several_is_found_with_one(clinic: Path) -> None:
    (weights,) = (clinic / "store").glob("experiments/strict/encoders/*/encoder.safetensors")
    before = weights.stat().st_mtime_ns
    loaded = definitions(clinic, "strict")
    result = loaded.resolve_job_def("pretrain").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    assert result.success and weights.stat().st_mtime_ns == before


def test_a_red_check_stops_its_recipe_alone(clinic: Path) -> None:
    path = clinic / "store/experiments/masked/checks/pretraining_pool.no_identifier_exposed.json"
    passed = path.read_text()
    path.write_text(json.dumps({**json.loads(passed), "result": "failed"}))
    loaded = definitions(clinic, "strict", "masked")
    try:
        for recipe, succeeds in (("strict", True), ("masked", False)):
            keys = [key for key in keys_of(loaded, "preflight") if key.path[0] == recipe]
            job = loaded.resolve_job_def(f"{recipe}_pretrain")
            instance = dg.DagsterInstance.ephemeral()
            done = job.execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)
            assert done.success is succeeds
        red = schedules([load_recipe(str(clinic / f"{name}.yaml")) for name in ("strict", "masked")])
        said = {}
        for schedule in red:
            with (
                dg.DagsterInstance.ephemeral() as instance,
                dg.build_schedule_context(
                    instance=instance, resources={"store": StoreFolder(root=str(clinic / "store"))}
                ) as context,
            ):
                said[schedule.name] = str(schedule.evaluate_tick(context).skip_message)
        assert "no_identifier_exposed" in said["masked_weekly_pretraining"]
        assert "new patients" in said["strict_weekly_pretraining"]
    finally:
        path.write_text(passed)


def test_a_mistake_that_concerns_one_recipe_does_not_stop_the_other(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(clinic / "archive")
    write_recipes(tmp_path)
    mapped = "labels: {missing: mask, sources: [{kind: study_groups, groups: [liver]}, {kind: probe}]}"
    path = tmp_path / "masked.yaml"
    path.write_text(path.read_text().replace("labels: {missing: mask, sources: [{kind: probe}]}", mapped))
    (tmp_path / "groups.csv").write_text("no,table\n")
    named = f"{tmp_path / 'masked.yaml'},{tmp_path / 'strict.yaml'}"
    variables = {"SONOTAG_STORE": str(tmp_path / "store"), "SONOTAG_ARCHIVE": str(tmp_path / "archive")}
    loaded = build_defs(
        read_environment({**variables, "SONOTAG_RECIPE": named, "SONOTAG_STUDY_GROUPS": str(tmp_path / "groups.csv")})
    )
    result = loaded.resolve_job_def("ingest").execute_in_process(
        instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
    )
    failed = {event.step_key for event in result.get_step_failure_events()}
    assert "masked__read_study_groups" in failed and not [step for step in failed if step.startswith("strict__")]
    assert load_pool(Store(tmp_path / "store"), load_recipe(str(tmp_path / "strict.yaml"))).images.count == LABELLED
