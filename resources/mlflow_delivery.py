"""Delivering records to MLflow: sending them, and telling refusal, withholding and unreachability apart.

Not here: the records, and the folders in which they wait (`resources.pending_runs`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.progress import Log
from resources.mlflow_records import Record, merge_metrics
from resources.mlflow_registry import RegistryConflict
from resources.pending_runs import PendingRun, finished_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_CLIENT_ERRORS = range(400, 500)  # HTTP: a retry would fail in the same way
_NO_ACCESS = (401, 403)
_BUSY = (408, 429)
_DELETED = "deleted"


class Unreachable(Exception):  # noqa: N818 - a state of the server, not a bug
    """MLflow does not respond, or fails on a valid request; the message is an error code."""


class Withheld(Exception):  # noqa: N818 - a state of the server, not a bug
    """MLflow accepts nothing until a person acts; the message is a sentence with the action."""


def deliver(client: "MlflowClient", run_id: str, record: Record, log: Log) -> None:
    """Send `record`; log and drop it if MLflow refuses it for good.

    Raises `Unreachable` if a later attempt may succeed, and `Withheld` if access has to be granted or the run restored
    first.
    """
    try:
        record.send(client, run_id)
    except RegistryConflict as conflict:
        log(f"MLflow: {conflict}.")
    except Exception as error:
        if not _responds(client):
            raise Unreachable(error_code(error)) from None
        if is_refusal(error):
            raise_if_withheld(client, run_id, error)
            log(f"MLflow refuses {record.kind} of this run ({error_code(error)}).")
            return
        try:
            record.send(client, run_id)
        except Exception as second:
            raise Unreachable(error_code(second)) from None


def deliver_pending(root: Path, client: "MlflowClient", experiment_of: Callable[[str], str], log: Log) -> None:
    """Send the records of all finished runs in the folder `root`, and end runs whose process was killed.

    `experiment_of` returns the id of an experiment by name, or raises `Withheld`. Stops if MLflow does not respond. If
    a responding server fails to take a run, a later call retries it after each of `RETRY_DELAYS`, then drops it.
    Withheld runs are kept without limit.
    """
    delivered, logged = 0, set()
    for pending in finished_runs(root):
        if not pending.is_due:
            continue
        try:
            _deliver_run(pending, client, experiment_of, log)
        except Withheld as reason:
            if str(reason) not in logged:
                logged.add(str(reason))
                log(f"{reason} This concerns an earlier run of {pending.start.name}.")
            continue
        except Unreachable:
            if not _responds(client):
                break
            pending.count_failure()
            if not pending.is_exhausted:
                continue
            log(f"MLflow failed to take the run {pending.start.name} {pending.start.attempts} times: dropped.")
        else:
            delivered += 1
        pending.remove()
    if delivered:
        log(f"Sent MLflow {delivered} earlier run{'s' if delivered > 1 else ''} that it had missed.")


def _deliver_run(pending: PendingRun, client: "MlflowClient", experiment_of: Callable[[str], str], log: Log) -> None:
    start = pending.start
    if not start.run_id:
        try:
            run = client.create_run(experiment_of(start.experiment), start.at, start.tags, start.name)
        except Withheld:
            raise
        except Exception as error:
            if is_refusal(error):
                raise Withheld(f"MLflow refuses the run ({error_code(error)}); it is kept and sent later.") from None
            raise Unreachable(error_code(error)) from None
        pending.update(run_id=run.info.run_id)
    for record in merge_metrics(pending.records()):
        deliver(client, pending.start.run_id, record, log)


def error_code(error: Exception) -> str:
    """The type and MLflow code of an error, without its text, which may contain addresses and paths."""
    return f"{type(error).__name__} {getattr(error, 'error_code', '')}".rstrip()


def is_refusal(error: Exception) -> bool:
    """Whether MLflow rejected the request itself, so that a retry would fail in the same way."""
    status = _status(error)
    return status in _CLIENT_ERRORS and status not in _BUSY


def access_denied(error: Exception) -> str | None:
    """A sentence with the action if MLflow denies access; None for any other error."""
    if _status(error) not in _NO_ACCESS:
        return None
    return f"MLflow denies access ({error_code(error)}): check user, password and permissions; records are kept."


def experiment_id(experiment: "Experiment") -> str:
    """The id of an experiment; raises `Withheld` if it was deleted."""
    if experiment.lifecycle_stage == _DELETED:
        raise Withheld(
            f"MLflow's experiment {experiment.name} is deleted: restore it (`mlflow experiments restore -x "
            f"{experiment.experiment_id}`) or purge it (`mlflow gc`); until then, records are kept."
        )
    return str(experiment.experiment_id)


def raise_if_withheld(client: "MlflowClient", run_id: str, error: Exception) -> None:
    """Raise `Withheld` if access or a deleted run, not the record, caused the refusal `error`."""
    if denied := access_denied(error):
        raise Withheld(denied) from None
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != _DELETED:
            return
        experiment_id(client.get_experiment(run.info.experiment_id))
    except Withheld:
        raise
    except Exception:
        return  # the run was purged, so it cannot be restored
    raise Withheld(f"MLflow's run {run_id} is deleted: restore it in MLflow; until then, records are kept.")


def _responds(client: "MlflowClient") -> bool:
    try:
        client.search_experiments(max_results=1)
    except Exception as error:
        return _status(error) in _NO_ACCESS  # not any refusal: MLflow answers 400 for a damaged database
    return True


def _status(error: Exception) -> int:
    """The HTTP status of MLflow's response; 0 if there was none."""
    from mlflow.exceptions import MlflowException

    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0
