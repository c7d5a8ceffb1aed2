"""MLflow: one run per materialization, which never costs a trained encoder.

Belongs here: opening runs and what they may be told. Not here: what is worth telling, and how it is sent.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from filelock import FileLock
from sqlalchemy.engine import make_url

from pipeline.archive.location import without_credentials
from pipeline.files import make_folder
from pipeline.progress import Log
from resources.records import Artifacts, Champion, EncoderModel, End, Input, Metrics, Params, Record, Tags, Value
from resources.registry import write_encoder_model
from resources.sending import (
    Unreachable,
    Withheld,
    experiment_id,
    is_refusal,
    no_access,
    send_what_waits,
    tell,
    told,
)
from resources.spool import Start, Unsent, begin
from resources.system_metrics import SECONDS, watching

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_UI = "http://127.0.0.1:5000"
"""Where `make mlflow` serves a local database; a remote server's own address is used instead."""

# An unreachable server is given up on in seconds; a user's own settings win. No usage statistics leave the machine.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with user and password, and Dagster keeps what a step prints
}

VIEW = "workflowType=machine_learning"
"""In a link: MLflow's page then shows runs and models, and not what language models need."""

SLOW_SECONDS = 5.0
"""An address from which nothing came back for so long costs every run as much:"""
LEFT_ALONE_SECONDS = 300.0
"""so this process asks it again after that time only."""
_left_alone_until: dict[str, float] = {}

Status = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun:
    """One MLflow run: what it is told goes to MLflow, or waits in the store while MLflow does not answer.

    Nothing that concerns tracking is ever raised: it is said once, and work goes on.
    """

    def __init__(
        self, client: "MlflowClient | None", run_id: str, url: str | None, unsent: Unsent | None, log: Log
    ) -> None:
        self.run_id = run_id
        """MLflow's name of the run; empty where MLflow does not know it yet."""
        self.url = url
        """Where a person sees the run; None where MLflow could not be reached."""
        self._client, self._unsent, self._say = client, unsent, log
        self._turn = Lock()  # the machine's metrics come from a thread of their own

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log `values` at `step` (an epoch)."""
        if values:
            now = now_in_ms()
            found = tuple(Value(key=key, value=float(v), step=step, at=now) for key, v in values.items())
            self._tell(Metrics(values=found))

    def params(self, values: Mapping[str, Any]) -> None:
        """Log `values` as parameters, each as text; one inside of another gets a name with a dot."""
        if values:
            self._tell(Params(values=dict(_flat(values))))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set `values` as tags."""
        self._tell(Tags(values=dict(values)))

    def files(self, paths: Sequence[Path]) -> None:
        """Log the files that exist among `paths` as artifacts."""
        found = tuple(path for path in paths if path.is_file())
        if found:
            self._tell(Artifacts(paths=found))

    def input(self, data: Input) -> None:
        """Log a data set that the run reads."""
        self._tell(data)

    def encoder(self, name: str, digest: str, folder: Path, tags: Mapping[str, str] | None = None) -> None:
        """Register the encoder in `folder`, whose `digest` this is, as a version of the model `name`, with `tags`."""
        if self._unsent is None:
            return
        model = self._unsent.folder / "model"
        try:
            write_encoder_model(folder, model)
        except Exception as error:
            self._say(f"{name} is not registered with MLflow ({told(error)}).")
        else:
            self._tell(EncoderModel(name=name, digest=digest, folder=model, tags=dict(tags or {})))
        shutil.rmtree(model, ignore_errors=True)

    def champion(self, champion: Champion) -> None:
        """Point the alias of a task's model at its best encoder."""
        self._tell(champion)

    def end(self, status: Status) -> None:
        """Close the run; what MLflow has not heard stays in the store."""
        self._tell(End(status=status, at=now_in_ms()))
        if self._unsent is not None and self._unsent.is_empty:
            self._unsent.remove()
        elif self._unsent is not None:
            self._unsent.close()

    def _tell(self, record: Record) -> None:
        with self._turn:
            if self._client is not None:
                try:
                    return tell(self._client, self.run_id, record, self._say)
                except Unreachable as why:
                    self._say(f"MLflow is not answering ({why}); what it misses is kept, and sent by a later run.")
                    self._client = None
                except Withheld as why:
                    self._say(str(why))
                    self._client = None
            if self._unsent is not None:
                self._keep(self._unsent, record)

    def _keep(self, unsent: Unsent, record: Record) -> None:
        try:
            unsent.keep(record)
        except OSError as error:
            self._say(f"Not kept for MLflow: {record.kind} ({error.strerror or error}); the files are in the store.")


class Tracking(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where runs are recorded. A local sqlite database by default, a server where MLFLOW_TRACKING_URI names one."""

    uri: str
    """May hold a password: it is printed as `shown`, and Dagster is told its variable's name (assets.definitions)."""
    artifacts: str
    """Folder for artifacts of a local database (a server decides for itself)."""
    experiment: str = ""
    """Of runs; a step names that of its recipe (`of`)."""
    lock_file: str
    unsent: str
    """Folder for what MLflow has not heard."""
    sample_seconds: float = SECONDS
    """Between two samples of the machine's load."""

    def of(self, experiment: str) -> "Tracking":
        """The same, for runs of another experiment."""
        return self.model_copy(update={"experiment": experiment})

    @contextmanager
    def run(
        self, name: str, tags: Mapping[str, str], log: Log, parent: TrackedRun | None = None
    ) -> Iterator[TrackedRun]:
        """A run called `name`; FAILED where the body raises, KILLED where it is interrupted.

        An unreachable MLflow is said and worked without. What runs that are over had to keep is sent first.
        """
        run = self._start(name, tags, log, parent)
        try:
            with watching(run.metrics, log, self.sample_seconds):
                yield run
        except BaseException as error:
            run.end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        run.end("FINISHED")

    def _start(self, name: str, tags: Mapping[str, str], log: Log, parent: TrackedRun | None) -> TrackedRun:
        family = {"mlflow.parentRunId": parent.run_id} if parent and parent.run_id else {}
        start = Start(experiment=self.experiment, name=name, tags={**tags, **family}, at=now_in_ms())
        unsent = self._begin(start, log)
        began = time.monotonic()
        if began < _left_alone_until.get(self.uri, 0.0):
            return TrackedRun(None, "", None, unsent, log)
        try:
            client = self._open()
            send_what_waits(Path(self.unsent), client, lambda other: self._experiment(client, other), log)
            experiment = self._experiment(client, self.experiment)
            run_id = client.create_run(experiment, start.at, start.tags, name).info.run_id
        except Exception as error:
            log(self._why_not(error))
            if time.monotonic() - began > SLOW_SECONDS:
                _left_alone_until[self.uri] = time.monotonic() + LEFT_ALONE_SECONDS
            return TrackedRun(None, "", None, unsent, log)
        with suppress(OSError):
            if unsent is not None:
                unsent.update(run_id=run_id)
        url = f"{self._ui()}/#/experiments/{experiment}/runs/{run_id}?{VIEW}"
        return TrackedRun(client, run_id, url, unsent, log)

    def _why_not(self, error: Exception) -> str:
        """Why a run has no counterpart in MLflow, and what to do."""
        denied = no_access(error)
        if isinstance(error, Withheld) or denied:
            return denied or str(error)
        verb = "refuses the run" if is_refusal(error) else "cannot be reached"
        return (
            f"MLflow at {without_credentials(self.uri)} {verb} ({told(error)}); what it misses is kept, and sent later."
        )

    def _begin(self, start: Start, log: Log) -> Unsent | None:
        try:
            return begin(Path(self.unsent), start)
        except OSError as error:
            log(f"Nothing can be kept for MLflow ({error.strerror}), should it not answer.")
            return None

    def _open(self) -> "MlflowClient":
        """A client of a database or server that is there."""
        for key, value in PATIENCE.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # creating tables is no news
        if self.uri.startswith("sqlite"):
            make_folder(Path(make_url(self.uri).database or "").parent)
        with nullcontext() if self._is_server() else self._first_use():
            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
        return client

    def _experiment(self, client: "MlflowClient", name: str) -> str:
        """The id of the experiment called `name`, which is made where there is none."""
        with self._first_use():
            known = client.get_experiment_by_name(name)
            if known:
                return experiment_id(known)
            location = None if self._is_server() else Path(self.artifacts, name).as_uri()
            return str(client.create_experiment(name, artifact_location=location))

    def _first_use(self) -> FileLock:
        """Two processes that make the database's tables, or an experiment, at the same time would fail."""
        make_folder(Path(self.lock_file).parent)
        return FileLock(self.lock_file)

    def _is_server(self) -> bool:
        return self.uri.lower().startswith(("http://", "https://"))

    def _ui(self) -> str:
        return without_credentials(self.uri).rstrip("/") if self._is_server() else MLFLOW_UI


def now_in_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", str(value)
