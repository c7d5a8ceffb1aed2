"""Sensors and schedules, all off by default: new files in the archive, weekly pretraining, reports that follow."""

import time
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import dagster as dg

from assets.catalog import group_of
from assets.jobs import INGEST_JOB, PRETRAIN_JOB, job_name, reads_archive
from pipeline.blocking_checks import refuse_training
from pipeline.errors import UserError
from pipeline.privacy.training_exposure import patients_not_trained_on
from pipeline.recipe import Recipe
from pipeline.store import Store
from pipeline.tables import pretraining_pool_table, read_pool, refuse_incomplete
from resources.archive import Archive
from resources.store import StoreFolder

if TYPE_CHECKING:
    from pipeline.archive.arrivals import ScanHistory

STATE_TAG = "sonotag/archive_state"
ARRIVED_TAG = "sonotag/arrived"
PATIENTS_TAG = "sonotag/new_patients"
LOOK_EVERY_SECONDS = 60
SILENT_SECONDS = 3600
"""A run that reads the archive says something every 15 seconds; after such a silence it was killed."""

_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def sensors(recipes: Sequence[Recipe]) -> list[dg.SensorDefinition]:
    """`new_files`, and `reports_follow` of each recipe: it materializes reports when what they are made of changes."""
    alone = len(recipes) == 1
    follow = [
        dg.AutomationConditionSensorDefinition(
            job_name("reports_follow", recipe, alone),
            target=dg.AssetSelection.groups(group_of(recipe, "reports", alone)),
            default_status=dg.DefaultSensorStatus.STOPPED,
            description="Draws tables and figures anew when encoders or predictions have changed.",
        )
        for recipe in recipes
    ]
    return [_new_files(max(recipes, key=lambda recipe: recipe.automation.settle_minutes)), *follow]


def schedules(recipes: Sequence[Recipe]) -> list[dg.ScheduleDefinition]:
    """`weekly_pretraining` of each recipe."""
    return [_weekly_pretraining(recipe, len(recipes) == 1) for recipe in recipes]


def _new_files(recipe: Recipe) -> dg.SensorDefinition:
    @dg.sensor(
        name="new_files",
        job_name=INGEST_JOB,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Starts `ingest` when files have arrived in the archive, changed or gone, and nothing has changed "
        f"for {recipe.automation.settle_minutes:g} minutes. What fails is tried again, later and later.",
    )
    def new_files(context: dg.SensorEvaluationContext, archive: Archive, store: StoreFolder) -> dg.SensorResult:
        try:
            return _look(context, recipe, archive, store.open())
        except UserError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)

    return new_files


def _look(context: dg.SensorEvaluationContext, recipe: Recipe, archive: Archive, store: Store) -> dg.SensorResult:
    from pipeline.archive.arrivals import Waiting, arrivals, decide

    now = time.time()
    if reading_under_way(context.instance, now):
        return dg.SensorResult(skip_reason="The archive is being read, or is about to be.", cursor=context.cursor)
    found = arrivals(archive.folder, store.private, archive.key(store.private), recipe.archive.modalities)
    decision = decide(now, Waiting.read(context.cursor), found, past_readings(context.instance), recipe.automation)
    cursor = decision.waiting.text() if decision.waiting else "null"  # Dagster takes an empty one for no change
    if not decision.run_key:
        return dg.SensorResult(skip_reason=decision.why, cursor=cursor)
    tags = {STATE_TAG: found.state, ARRIVED_TAG: decision.why}
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=decision.run_key, tags=tags)], cursor=cursor)


def reading_under_way(instance: dg.DagsterInstance, now: float) -> bool:
    """Whether a run that reads the archive is queued or at work; one that was killed is neither.

    (A run that was killed with its process stays started in Dagster's tables.)
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))
    return any(_reads_archive(run) and not _was_killed(instance, run, now) for run in runs)


def _reads_archive(run: dg.DagsterRun) -> bool:
    return reads_archive(run.job_name) or dg.AssetKey("dicom_index") in (run.asset_selection or ())


def _was_killed(instance: dg.DagsterInstance, run: dg.DagsterRun, now: float) -> bool:
    if run.status == dg.DagsterRunStatus.QUEUED:
        return False
    last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return bool(last) and now - last[0].timestamp > SILENT_SECONDS


def past_readings(instance: dg.DagsterInstance) -> "ScanHistory":
    """What became of the last runs of the job `ingest`, of which none is under way: one that never ended was killed."""
    from pipeline.archive.arrivals import ScanHistory

    failed: list[tuple[str, float]] = []
    read = cancelled = ""
    for record in instance.get_run_records(dg.RunsFilter(job_name=INGEST_JOB), limit=50):
        run, state = record.dagster_run, record.dagster_run.tags.get(STATE_TAG, "")
        if run.status == dg.DagsterRunStatus.SUCCESS:
            read = state
            break
        if run.status != dg.DagsterRunStatus.CANCELED:
            failed.append((state, record.end_time or record.update_timestamp.timestamp()))
        elif not failed:
            cancelled = cancelled or state
    states, ends = tuple(state for state, _ in failed), [end for _, end in failed]
    return ScanHistory(read, cancelled, len(failed), states, max(ends, default=0.0))


def _weekly_pretraining(recipe: Recipe, alone: bool) -> dg.ScheduleDefinition:
    enough = recipe.automation.new_patients

    @dg.schedule(
        cron_schedule="0 2 * * 6",
        job_name=job_name(PRETRAIN_JOB, recipe, alone),
        name=job_name("weekly_pretraining", recipe, alone),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"On Saturday at two, trains the encoders anew if {enough} patients have arrived since.",
    )
    def weekly_pretraining(store: StoreFolder) -> dg.RunRequest | dg.SkipReason:
        try:
            opened = store.open()
            refuse_training(opened, recipe)
            new = new_patients(recipe, opened)
        except UserError as error:
            return dg.SkipReason(str(error))
        if new < enough:
            return dg.SkipReason(f"{new} new patients; encoders are trained anew from {enough} on.")
        return dg.RunRequest(tags={PATIENTS_TAG: str(new)})

    return weekly_pretraining


def new_patients(recipe: Recipe, store: Store) -> int:
    """Patients of the pretraining pool whom an encoder of the recipe has not seen.

    Raises `UserError` if there is no pool yet, or none that can be trained on.
    """
    if not pretraining_pool_table(recipe.labels.names).path(store.experiment(recipe.name).tables).is_file():
        raise UserError(f"There is no pretraining pool yet: run the job `{INGEST_JOB}` first.")
    pool = read_pool(store, recipe)
    refuse_incomplete(pool)
    patients = set(pool["patient"].to_pylist())
    settings, experiment = recipe.pretraining, store.experiment(recipe.name)
    which = product(settings.backbones, settings.encoders, settings.seeds)
    return len(patients_not_trained_on(store.private, [experiment.encoder(*one) for one in which], patients))
