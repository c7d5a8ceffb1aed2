"""Work that starts by itself: the sensor on the archive, with real files and real runs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import automation
from assets.definitions import build_defs
from resources.archive import Archive
from resources.environment import read_environment
from resources.store import StoreFolder
from tests.conftest import ROOT, TINY_RECIPE, job_environment
from tests.pipeline.archive.synthetic import KEY, index_folder, noise, write_dicom

pytestmark = pytest.mark.integration

MINUTE, HOUR = 60.0, 3600.0


@dataclass
class Clinic:
    """An archive, a store, Dagster's instance and a clock, with the sensor looking at them."""

    folder: Path
    instance: dg.DagsterInstance
    now: float = 0.0
    cursor: str | None = None
    asked: list[dg.RunRequest] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def add(self, *names: str) -> None:
        for name in names:
            write_dicom(self.archive / name, noise(), PatientID=name)

    def read(self) -> None:
        index_folder(self.archive, self.folder / "store" / "private")

    def look(self, after: float = 0.0) -> str:
        """What a tick says `after` so many seconds; a run that it asks for is in `asked`."""
        self.now += after
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=self.definitions.get_repository_def(),
            resources={
                "archive": Archive(folder=str(self.archive)),
                "store": StoreFolder(root=str(self.folder / "store")),
            },
        ) as context:
            tick = self.definitions.get_repository_def().get_sensor_def("new_files").evaluate_tick(context)
        self.cursor = tick.cursor
        self.asked += tick.run_requests or []
        return tick.skip_message or ""

    def settle(self) -> list[dg.RunRequest]:
        """What has been asked for after two looks with time enough between them."""
        self.look()
        self.look(after=6 * MINUTE)
        return self.asked

    @property
    def definitions(self) -> dg.Definitions:
        recipe = self.folder / "tiny.yaml"
        recipe.write_text(TINY_RECIPE, encoding="utf-8")
        variables = {"SONOTAG_STORE": str(self.folder / "store"), "SONOTAG_RECIPE": str(recipe)}
        return build_defs(read_environment(variables))

    def run(self, work: Callable[[], Any], **tags: str) -> dg.DagsterRun:
        """A real run of a job called `ingest` that does `work`."""
        done = ingest(work).execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)
        return done.dagster_run

    def run_asked_for(self, work: Callable[[], Any]) -> None:
        self.run(work, **self.asked[-1].tags)


def ingest(work: Callable[[], Any], name: str = "ingest") -> dg.JobDefinition:
    @dg.op
    def works() -> None:
        work()

    @dg.job(name=name)
    def job() -> None:
        works()

    return job


def fail() -> None:
    raise RuntimeError("the disk is on fire")


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    monkeypatch.setenv("SONOTAG_PSEUDONYM_KEY", KEY.decode())
    with dg.DagsterInstance.ephemeral() as instance:
        made = Clinic(tmp_path, instance)
        made.now = time.time()
        monkeypatch.setattr(automation.time, "time", lambda: made.now)
        made.add("MUELLER^ANNA", "b")
        made.read()
        yield made


def test_nothing_new_starts_nothing(clinic: Clinic) -> None:
    assert "Nothing new among 2 files" in clinic.look()
    assert clinic.settle() == []


def test_it_is_off_until_a_person_switches_it_on(clinic: Clinic) -> None:
    repository = clinic.definitions.get_repository_def()
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.STOPPED}
    assert {schedule.default_status for schedule in repository.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}


def test_a_burst_starts_one_run_that_names_no_file(clinic: Clinic) -> None:
    for name in ("SCHMIDT^EVA", "d", "e"):
        clinic.add(name)
        assert "waiting" in clinic.look(after=MINUTE)
    (request,) = clinic.settle()
    said = json.dumps([request.run_key, request.tags, clinic.cursor])
    assert "3 new, 0 changed and 0 gone of 5 files" in said
    assert not any(secret in said for secret in ("SCHMIDT", "MUELLER", str(clinic.folder)))
    clinic.run_asked_for(clinic.read)
    assert "Nothing new" in clinic.look()


def test_the_cursor_does_not_grow_with_what_arrives(clinic: Clinic) -> None:
    sizes = set()
    for number in range(8):
        clinic.add(*(f"{number}-{i}" for i in range(number)))
        clinic.look(after=MINUTE)
        sizes.add(len(clinic.cursor or ""))
    assert max(sizes) < 200


def test_a_failed_run_is_tried_again_later_and_the_files_are_not_forgotten(clinic: Clinic) -> None:
    clinic.add("c")
    clinic.settle()
    clinic.run_asked_for(fail)
    clinic.now += MINUTE
    assert "failed" in clinic.look()
    clinic.look(after=10 * MINUTE)
    first, second = clinic.asked
    assert first.run_key != second.run_key
    clinic.run_asked_for(clinic.read)
    assert "Nothing new" in clinic.look()


def test_it_gives_up_after_five_failures_until_the_archive_changes(clinic: Clinic) -> None:
    clinic.add("c")
    for _ in range(5):
        clinic.look()
        clinic.look(after=7 * HOUR)
        clinic.run_asked_for(fail)
    assert len({request.run_key for request in clinic.asked}) == 5
    clinic.look()
    assert "a person has to look" in clinic.look(after=24 * HOUR)
    clinic.add("d")
    clinic.look()
    clinic.look(after=7 * HOUR)
    assert len(clinic.asked) == 6


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
@pytest.mark.parametrize("job", ["ingest", "demo"])
def test_nothing_starts_while_the_archive_is_being_read(clinic: Clinic, job: str, status: dg.DagsterRunStatus) -> None:
    clinic.add("c")
    run = clinic.instance.create_run_for_job(ingest(fail, job), status=status)
    clinic.instance.report_engine_event("at work", run)
    clinic.look()
    assert "being read" in clinic.look(after=HOUR / 2)
    assert clinic.asked == []
    clinic.instance.report_run_failed(run)
    clinic.look()
    clinic.look(after=HOUR)
    assert len(clinic.asked) == 1


def test_a_killed_run_does_not_stand_in_the_way_for_ever(clinic: Clinic) -> None:
    clinic.add("c")
    run = clinic.instance.create_run_for_job(ingest(fail), status=dg.DagsterRunStatus.STARTED)
    clinic.instance.report_engine_event("at work", run)
    clinic.look(after=2 * HOUR)
    clinic.look(after=6 * MINUTE)
    assert len(clinic.asked) == 1


def test_runs_that_are_killed_again_and_again_are_failures(clinic: Clinic) -> None:
    clinic.add("c")
    for _ in range(5):
        clinic.look()
        clinic.look(after=7 * HOUR)
        run = clinic.instance.create_run_for_job(
            ingest(fail), status=dg.DagsterRunStatus.STARTED, tags=clinic.asked[-1].tags
        )
        clinic.instance.report_engine_event("at work", run)
        clinic.now += 2 * HOUR
    assert len(clinic.asked) == 5
    clinic.look()
    assert "a person has to look" in clinic.look(after=24 * HOUR)


def test_a_run_that_a_person_cancelled_is_not_started_again_until_something_changes(clinic: Clinic) -> None:
    clinic.add("c")
    (request,) = clinic.settle()
    run = clinic.instance.create_run_for_job(ingest(fail), tags=request.tags)
    clinic.instance.report_run_canceled(run)
    clinic.look()
    assert "cancelled" in clinic.look(after=24 * HOUR)
    clinic.add("d")
    clinic.look()
    clinic.look(after=6 * MINUTE)
    assert len(clinic.asked) == 2


def test_an_archive_that_is_gone_is_a_sentence_and_nothing_is_forgotten(clinic: Clinic) -> None:
    clinic.add("c")
    clinic.look()
    before = clinic.cursor
    clinic.archive.rename(clinic.folder / "elsewhere")
    assert "does not exist" in clinic.look(after=MINUTE)
    assert clinic.cursor == before
    (clinic.folder / "elsewhere").rename(clinic.archive)
    clinic.look(after=6 * MINUTE)
    assert len(clinic.asked) == 1


# The schedule


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store whose pool holds twenty patients, and a recipe of which one encoder has seen twelve of them."""
    import pyarrow as pa

    from pipeline.blocking_checks import POOL, Check, attempt
    from pipeline.privacy.training_exposure import record_training_set
    from pipeline.recipe import load_recipe
    from pipeline.store import Store
    from pipeline.tables import pretraining_pool_table

    folder = tmp_path_factory.mktemp("trained")
    store = Store(folder / "store").open()
    record_training_set(store.private, "0" * 64, [f"p{n}" for n in range(12)])
    recipe = folder / "one.yaml"
    recipe.write_text(
        "name: one\npretraining: {backbones: [resnet50], methods: [imagenet, dcm]}\n"
        "downstream: {arms: [imagenet, dcm]}\nautomation: {new_patients: 8}\n"
    )
    table = pretraining_pool_table(load_recipe(str(recipe)).labels.names)
    kinds = {"string": "", "int64": 0, "int8": 1}
    row = {field.name: kinds[str(field.type)] for field in table.schema}
    rows = [{**row, "patient": f"p{n // 2}", "split": "val" if n < 4 else "train"} for n in range(40)]
    table.write(store.experiment("one").tables, pa.Table.from_pylist(rows, table.schema), load_recipe(str(recipe)))
    check = Check(asset=POOL, check="no_patient_on_both_sides", group="cohort")
    with attempt(store, "one", [POOL], [check]) as here:
        here.record(check, True, "")
    for method, files in (("dcm", ("encoder.safetensors", "outcome.json")), ("imagenet", ("outcome.json",))):
        encoder = store.experiment("one").encoder("resnet50", method, 0)
        encoder.mkdir(parents=True)
        for name in files:
            (encoder / name).touch()
        (encoder / "model_card.md").write_text(f"- digest of images and split: {'0' * 64}\n")
    return store.root, recipe


def weekly(store: Path, recipe: Path) -> Any:
    definitions = build_defs(read_environment({"SONOTAG_STORE": str(store), "SONOTAG_RECIPE": str(recipe)}))
    repository = definitions.get_repository_def()
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_schedule_context(
            instance=instance, repository_def=repository, resources={"store": StoreFolder(root=str(store))}
        ) as context,
    ):
        return repository.get_schedule_def("weekly_pretraining").evaluate_tick(context)


def test_enough_new_patients_start_a_training(trained: tuple[Path, Path]) -> None:
    (request,) = weekly(*trained).run_requests
    assert request.tags["sonotag/new_patients"] == "8"


def test_too_few_are_said_and_do_not(trained: tuple[Path, Path], tmp_path: Path) -> None:
    store, recipe = trained
    picky = tmp_path / "one.yaml"
    picky.write_text(recipe.read_text().replace("new_patients: 8", "new_patients: 9"))
    tick = weekly(store, picky)
    assert not tick.run_requests
    assert tick.skip_message == "8 new patients; encoders are trained anew from 9 on."


def test_an_encoder_that_is_not_there_yet_has_seen_nobody(trained: tuple[Path, Path], tmp_path: Path) -> None:
    store, recipe = trained
    more = tmp_path / "one.yaml"
    more.write_text(recipe.read_text().replace("methods: [imagenet, dcm]", "methods: [imagenet, dcm, ce]"))
    (request,) = weekly(store, more).run_requests
    assert request.tags["sonotag/new_patients"] == "20"


def test_without_a_pool_it_says_what_to_run(trained: tuple[Path, Path], tmp_path: Path) -> None:
    assert "run the job `ingest` first" in weekly(tmp_path / "store", trained[1]).skip_message


def test_reports_follow_and_nothing_else_does(clinic: Clinic) -> None:
    graph = clinic.definitions.get_repository_def().asset_graph
    follow = {key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition}
    assert follow == {key for key in graph.get_all_asset_keys() if graph.get(key).group_name == "reports"}
    names = {sensor.name for sensor in clinic.definitions.get_repository_def().sensor_defs}
    assert names == {"new_files", "reports_follow"}  # Dagster adds none of its own


def test_a_report_is_drawn_anew_when_its_predictions_change_and_only_then(clinic: Clinic) -> None:
    definitions, cursor = clinic.definitions, None
    graph = definitions.get_repository_def().asset_graph
    reports = {key for key in graph.get_all_asset_keys() if graph.get(key).group_name == "reports"}

    def asked() -> set[dg.AssetKey]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(defs=definitions, instance=clinic.instance, cursor=cursor)
        cursor = result.cursor
        return {key for key in reports if result.get_num_requested(key)}

    def made(*keys: dg.AssetKey) -> None:
        for key in keys:
            clinic.instance.report_runless_asset_event(dg.AssetMaterialization(key))

    assert asked() == set()  # there is nothing to draw yet
    scores, vectors = (dg.AssetKey(["tiny", name]) for name in ("frozen_scores", "embeddings"))
    made(*(graph.get_all_asset_keys() - reports - {scores, vectors}))  # reports do without those of frozen encoders
    assert asked() >= {dg.AssetKey(["tiny", name]) for name in ("results_table", "embedding_maps")}
    made(*reports)
    asked()
    assert asked() == set()
    made(dg.AssetKey(["tiny", "resnet50_ce_thyroid"]))
    assert dg.AssetKey(["tiny", "results_table"]) in asked()
    made(dg.AssetKey(["tiny", "new_predictions"]))
    made(*reports)
    asked()
    assert asked() == set()
    made(scores)
    assert dg.AssetKey(["tiny", "results_table"]) in asked()
    made(*reports)
    asked()
    made(vectors)
    assert dg.AssetKey(["tiny", "embedding_maps"]) in asked()


# All of it, with Dagster's daemon


def dagster(program: str, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / program), *arguments, "--workspace", "workspace.yaml"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_file_is_ingested_by_itself_once_a_person_has_switched_it_on(tmp_path: Path) -> None:
    store, archive, recipe = tmp_path / "store", tmp_path / "archive", tmp_path / "tiny.yaml"
    recipe.write_text(TINY_RECIPE + "automation: {settle_minutes: 0.05}\n", encoding="utf-8")
    for name in ("MUELLER^ANNA", "b", "c", "d", "e"):
        fields = {"PatientID": name, "StudyDescription": "US THYROID", "TransducerType": "LINEAR"}
        write_dicom(archive / name, noise(64, 96, seed=len(name)), StudyInstanceUID=f"1.2.{len(name)}", **fields)
    mapping = tmp_path / "groups.csv"
    mapping.write_text("study_description,groups\nUS THYROID,thyroid\n", encoding="utf-8")
    named = {"ARCHIVE": archive, "RECIPE": recipe, "STUDY_GROUPS": mapping}
    environment = job_environment(store, {f"SONOTAG_{key}": str(path) for key, path in named.items()})
    # First, since two processes that make a new instance's databases at once can fail.
    switched_on = dagster("dagster", "sensor", "start", "new_files")
    subprocess.run(switched_on, cwd=ROOT, env=environment, check=True, capture_output=True)
    with open(tmp_path / "daemon.log", "wb") as log:
        daemon = subprocess.Popen(dagster("dagster-daemon", "run"), cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        index = store / "tables" / "dicom_index.parquet"
        while not index.is_file():
            assert daemon.poll() is None
            time.sleep(1)
    finally:
        daemon.terminate()
        daemon.wait()
    said = b"".join(path.read_bytes() for path in (store / "dagster").rglob("*.db"))
    assert b"5 new, 0 changed and 0 gone of 5 files" in said
    assert b"MUELLER" not in said
