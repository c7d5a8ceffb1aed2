"""Whether MLflow takes what it is told: sent, refused, or nobody answers.

Belongs here: telling these apart, and sending what earlier runs have kept. Not here: the records and their folders.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.progress import Say
from resources.records import Record, in_batches
from resources.registry import Refused
from resources.spool import MOST_ATTEMPTS, Unsent, over

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CLIENT_ERRORS = range(400, 500)  # HTTP: what was asked is wrong, and will be tomorrow


class Unreachable(Exception):  # noqa: N818 - a state of the world, not a fault
    """MLflow does not answer, or fails at what it should do; the message names the error."""


def tell(client: "MlflowClient", run_id: str, record: Record, say: Say) -> None:
    """Send `record`; what MLflow refuses is said and given up. Raises `Unreachable` where it is worth trying later."""
    try:
        record.send(client, run_id)
    except Refused as why:
        say(f"MLflow: {why}.")
    except Exception as error:
        if not _answers(client):
            raise Unreachable(told(error)) from None
        if _is_refusal(error):
            say(f"MLflow refuses {record.kind} of this run ({told(error)}).")
            return
        try:
            record.send(client, run_id)
        except Exception as again:
            raise Unreachable(told(again)) from None


def send_what_waits(root: Path, client: "MlflowClient", experiment: Callable[[str], str], say: Say) -> None:
    """Send what runs that are over have left in `root`, and end those that were killed.

    `experiment` gives the id of the experiment with a name. Stops where nobody answers any more; a run that a server
    which answers has not taken `MOST_ATTEMPTS` times is given up.
    """
    sent = 0
    for unsent in over(root):
        try:
            _send(unsent, client, experiment, say)
        except Unreachable:
            if not _answers(client):
                break
            unsent.update(attempts=unsent.start.attempts + 1)
            if unsent.start.attempts < MOST_ATTEMPTS:
                continue
            say(f"MLflow has not taken the run {unsent.start.name} {MOST_ATTEMPTS} times: given up.")
        unsent.remove()
        sent += 1
    if sent:
        say(f"MLflow has now heard of {sent} earlier run{'s' if sent > 1 else ''} that had ended without it.")


def told(error: Exception) -> str:
    """An error without its text, which may hold addresses and paths."""
    code = getattr(error, "error_code", "")
    return f"{type(error).__name__}{f' {code}' if code else ''}"


def _send(unsent: Unsent, client: "MlflowClient", experiment: Callable[[str], str], say: Say) -> None:
    start = unsent.start
    if not start.run_id:
        try:
            run = client.create_run(experiment(start.experiment), start.at, start.tags, start.name)
        except Exception as error:
            raise Unreachable(told(error)) from None
        unsent.update(run_id=run.info.run_id)
    for record in in_batches(unsent.records()):
        tell(client, unsent.start.run_id, record, say)


def _answers(client: "MlflowClient") -> bool:
    try:
        client.search_experiments(max_results=1)
    except Exception:
        return False
    return True


def _is_refusal(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.get_http_status_code() in _CLIENT_ERRORS
