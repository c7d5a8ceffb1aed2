"""Delivering records to MLflow: sent, refused, withheld until a person has done something, or unreachable.

Belongs here: telling these apart, and sending what earlier runs have kept. Not here: the records and their folders.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.progress import Log
from resources.records import Record, in_batches
from resources.registry import Refused
from resources.spool import Unsent, over

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_CLIENT_ERRORS = range(400, 500)  # HTTP: what was asked is wrong, and will be tomorrow
_NO_ACCESS = (401, 403)
_BUSY = (408, 429)
_DELETED = "deleted"


class Unreachable(Exception):  # noqa: N818 - a state of the world, not a fault
    """MLflow does not answer, or fails at what it should do; the message names the error."""


class Withheld(Exception):  # noqa: N818 - a state of the world, not a fault
    """MLflow answers and takes nothing until a person has done something; the message is a sentence that says what."""


def tell(client: "MlflowClient", run_id: str, record: Record, log: Log) -> None:
    """Send `record`; what MLflow refuses for good is said and given up.

    Raises `Unreachable` if it is worth trying later, and `Withheld` if MLflow is going to take it once a person has
    given access, or restored the run.
    """
    try:
        record.send(client, run_id)
    except Refused as why:
        log(f"MLflow: {why}.")
    except Exception as error:
        if not _answers(client):
            raise Unreachable(told(error)) from None
        if is_refusal(error):
            refuse_for_now(client, run_id, error)
            log(f"MLflow refuses {record.kind} of this run ({told(error)}).")
            return
        try:
            record.send(client, run_id)
        except Exception as again:
            raise Unreachable(told(again)) from None


def send_what_waits(root: Path, client: "MlflowClient", experiment: Callable[[str], str], log: Log) -> None:
    """Send what runs that are over have left in `root`, and end those that were killed.

    `experiment` gives the id of the experiment with a name, or raises `Withheld`. Stops if nobody answers any more. A
    server that answers and fails is asked again after each of `ATTEMPTS_AFTER`, and the run is given up after the last
    one; what is withheld waits however long it takes.
    """
    sent, said = 0, set()
    for unsent in over(root):
        if not unsent.is_due:
            continue
        try:
            _send(unsent, client, experiment, log)
        except Withheld as why:
            if str(why) not in said:
                said.add(str(why))
                log(f"{why} Of an earlier run: {unsent.start.name}.")
            continue
        except Unreachable:
            if not _answers(client):
                break
            unsent.note_failure()
            if not unsent.is_given_up:
                continue
            log(f"MLflow has not taken the run {unsent.start.name} {unsent.start.attempts} times: given up.")
        else:
            sent += 1
        unsent.remove()
    if sent:
        log(f"MLflow has now heard of {sent} earlier run{'s' if sent > 1 else ''} that had ended without it.")


def told(error: Exception) -> str:
    """An error without its text, which may hold addresses and paths."""
    code = getattr(error, "error_code", "")
    return f"{type(error).__name__}{f' {code}' if code else ''}"


def _send(unsent: Unsent, client: "MlflowClient", experiment: Callable[[str], str], log: Log) -> None:
    start = unsent.start
    if not start.run_id:
        try:
            run = client.create_run(experiment(start.experiment), start.at, start.tags, start.name)
        except Withheld:
            raise
        except Exception as error:
            if is_refusal(error):
                raise Withheld(f"MLflow refuses the run ({told(error)}); it is kept, and sent later.") from None
            raise Unreachable(told(error)) from None
        unsent.update(run_id=run.info.run_id)
    for record in in_batches(unsent.records()):
        tell(client, unsent.start.run_id, record, log)


def _answers(client: "MlflowClient") -> bool:
    try:
        client.search_experiments(max_results=1)
    except Exception as error:
        return _status(error) in _NO_ACCESS  # of a damaged database MLflow says that the request is bad
    return True


def is_refusal(error: Exception) -> bool:
    """Whether MLflow has answered that it does not do what was asked."""
    status = _status(error)
    return status in _CLIENT_ERRORS and status not in _BUSY


def no_access(error: Exception) -> str | None:
    """What to say if MLflow refuses everything for want of rights; None for any other error."""
    if _status(error) not in _NO_ACCESS:
        return None
    return f"MLflow denies access ({told(error)}): see to user, password and rights; what it misses is kept until then."


def experiment_id(experiment: "Experiment") -> str:
    """The id of an experiment that takes runs; raises `Withheld` if it was deleted."""
    if experiment.lifecycle_stage == _DELETED:
        raise Withheld(
            f"MLflow's experiment {experiment.name} is deleted: restore it (`mlflow experiments restore -x "
            f"{experiment.experiment_id}`), or remove it for good (`mlflow gc`); what it misses is kept until then."
        )
    return str(experiment.experiment_id)


def refuse_for_now(client: "MlflowClient", run_id: str, error: Exception) -> None:
    """Raise `Withheld` if the refusal `error` is about access or a deleted run, not about what was sent."""
    denied = no_access(error)
    if denied:
        raise Withheld(denied) from None
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != _DELETED:
            return
        experiment_id(client.get_experiment(run.info.experiment_id))
    except Withheld:
        raise
    except Exception:
        return  # nobody knows the run any more: restoring it is not possible
    raise Withheld(f"MLflow's run {run_id} is deleted: restore it in MLflow; what it misses is kept until then.")


def _status(error: Exception) -> int:
    """The HTTP status of MLflow's answer; 0 if there was none."""
    from mlflow.exceptions import MlflowException

    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0
