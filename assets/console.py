"""The console logger of the jobs: one readable line per event; Dagster's event log holds everything."""

import logging
import sys
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

QUIET = {
    DagsterEventType.LOADED_INPUT,
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.RESOURCE_INIT_STARTED,
    DagsterEventType.RESOURCE_INIT_SUCCESS,
    DagsterEventType.LOGS_CAPTURED,
    DagsterEventType.ENGINE_EVENT,
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    DagsterEventType.HOOK_SKIPPED,
    DagsterEventType.HOOK_COMPLETED,
}


class _Readable(logging.Formatter):
    """`HH:MM:SS  step  message`; a user's mistake is its sentence alone, anything else keeps its stack."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: DagsterEvent | None = meta.get("dagster_event")
        message = _of_event(event) if event else str(meta.get("orig_message") or record.getMessage())
        step = meta.get("step_key") or "run"
        return f"{self.formatTime(record, '%H:%M:%S')}  {step:<28}  {message}"


def _of_event(event: DagsterEvent) -> str:
    if event.event_type == DagsterEventType.STEP_FAILURE:
        return _of_failure(event)
    if event.event_type == DagsterEventType.RUN_FAILURE:
        return _of_run_failure(event)
    if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
        return _of_check(event)
    return event.message or event.event_type_value


def _of_run_failure(event: DagsterEvent) -> str:
    """What failed first is said again at the end, where a person looks."""
    first = event.job_failure_data.first_step_failure_event
    if first is None:
        return f"FAILED: {(event.message or '').splitlines()[0]}"
    return f"FAILED at {first.step_key}: {_of_failure(first).splitlines()[0]}"


def _of_check(event: DagsterEvent) -> str:
    check = event.asset_check_evaluation_data
    verdict = "passed" if check.passed else f"did not pass ({check.severity.value.lower()})"
    return f"check {check.check_name} {verdict}{': ' + check.description if check.description else ''}"


def _of_failure(event: DagsterEvent) -> str:
    """The sentence of a `Failure` or of a blocking check; the whole stack of anything unforeseen."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    if data.error and data.error.cls_name == "DagsterAssetCheckFailedError":
        return " ".join(data.error.message.split(":", 1)[-1].split())
    return f"unexpected error:\n{data.error_display_string}"


class _Events(logging.Filter):
    """Leaves out the events that concern Dagster's machinery alone, and the echo of a failure in every later step."""

    def filter(self, record: logging.LogRecord) -> bool:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: DagsterEvent | None = meta.get("dagster_event")
        if event is None:
            return not str(meta.get("orig_message", "")).startswith("Dependencies for step")
        return event.event_type not in QUIET


@dg.logger(None, description="One readable line per thing that happened.")
def console(_: dg.InitLoggerContext) -> logging.Logger:
    """The console logger of every job: standard error, levels from INFO, and Dagster's own events."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Readable())
    handler.addFilter(_Events())
    logger = logging.Logger("sonotag", level=logging.DEBUG)
    logger.addHandler(handler)
    return logger
