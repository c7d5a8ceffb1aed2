"""MLflow: one run per materialization; a failure of MLflow never fails the work.

Not here: delivering records (`resources.mlflow_delivery`), choosing what is recorded (`assets`).
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
from resources.mlflow_delivery import (
    Unreachable,
    Withheld,
    access_denied,
    deliver,
    deliver_pending,
    error_code,
    experiment_id,
    is_refusal,
)
from resources.mlflow_records import Artifacts, Champion, EncoderModel, End, Input, Metrics, Params, Record, Tags, Value
from resources.mlflow_registry import write_encoder_model
from resources.pending_runs import PendingRun, Start, create_pending_run
from resources.system_metrics import SECONDS, sampled_load

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_UI = "http://127.0.0.1:5000"
"""Address at which `make mlflow` serves a local database; links to a remote server use its own address."""

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # so that an unreachable server costs seconds
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it contains user and password, and Dagster keeps the output
}
"""Defaults of MLflow's environment variables; a user's own settings take precedence."""

VIEW = "workflowType=machine_learning"
"""Query of links: MLflow's page shows runs and models, not language model tools."""

SLOW_SECONDS = 5.0
"""If a failed connection took longer, the process does not try again for PAUSE_SECONDS."""
PAUSE_SECONDS = 300.0
_paused_until: dict[str, float] = {}

Status = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun:
    """One MLflow run: sends records to MLflow, or keeps them in the store while MLflow does not respond.

    Failures of MLflow are logged once and never raised.
    """

    def __init__(
        self, client: "MlflowClient | None", run_id: str, url: str | None, pending: PendingRun | None, log: Log
    ) -> None:
        self.run_id = run_id
        """MLflow's id of the run; empty if MLflow has not created it."""
        self.url = url
        """Address of the run's page; None if MLflow could not be reached."""
        self._client, self._pending, self._log = client, pending, log
        self._lock = Lock()  # system metrics come from another thread

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log `values` at `step` (an epoch)."""
        if values:
            now = now_in_ms()
            self._record(
                Metrics(values=tuple(Value(key=k, value=float(v), step=step, at=now) for k, v in values.items()))
            )

    def params(self, values: Mapping[str, Any]) -> None:
        """Log `values` as parameters, as text; names of nested ones are joined by dots."""
        if values:
            self._record(Params(values=dict(_flat(values))))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set `values` as tags."""
        self._record(Tags(values=dict(values)))

    def files(self, paths: Sequence[Path]) -> None:
        """Log those of `paths` that exist as artifacts."""
        found = tuple(path for path in paths if path.is_file())
        if found:
            self._record(Artifacts(paths=found))

    def input(self, data: Input) -> None:
        """Log a data set that the run reads."""
        self._record(data)

    def encoder(self, name: str, digest: str, folder: Path, tags: Mapping[str, str] | None = None) -> None:
        """Register the encoder in `folder`, with its `digest`, as a version of the model `name`."""
        if self._pending is None:
            return
        model = self._pending.folder / "model"
        try:
            write_encoder_model(folder, model)
        except Exception as error:
            self._log(f"{name} is not registered with MLflow ({error_code(error)}).")
        else:
            self._record(EncoderModel(name=name, digest=digest, folder=model, tags=dict(tags or {})))
        shutil.rmtree(model, ignore_errors=True)

    def champion(self, champion: Champion) -> None:
        """Set the alias of a task's model to its best encoder."""
        self._record(champion)

    def end(self, status: Status) -> None:
        """End the run; records that MLflow has missed stay in the store."""
        self._record(End(status=status, at=now_in_ms()))
        if self._pending is not None and self._pending.is_delivered:
            self._pending.remove()
        elif self._pending is not None:
            self._pending.close()

    def _record(self, record: Record) -> None:
        """Send `record`, or keep it if MLflow has failed before or fails now."""
        with self._lock:
            if self._client is not None:
                try:
                    return deliver(self._client, self.run_id, record, self._log)
                except Unreachable as error:
                    self._log(f"MLflow does not respond ({error}); records are kept and sent by a later run.")
                except Withheld as reason:
                    self._log(str(reason))
                self._client = None
            try:
                if self._pending is not None:
                    self._pending.append(record)
            except OSError as error:
                self._log(
                    f"{record.kind} are not kept for MLflow ({error.strerror or error}); the store has the files."
                )


class Tracking(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Records runs in a local SQLite database, or on the server that MLFLOW_TRACKING_URI names."""

    uri: str
    """May contain a password, which `without_credentials` removes."""
    artifacts: str
    """Artifact folder of a local database; a server has its own."""
    experiment: str = ""
    """Experiment of the runs; a step uses that of its recipe (`of`)."""
    lock_file: str
    pending: str
    """Folder of pending runs."""
    sample_seconds: float = SECONDS
    """Sampling interval of the machine's load."""

    def of(self, experiment: str) -> "Tracking":
        """A copy that records runs in `experiment`."""
        return self.model_copy(update={"experiment": experiment})

    @contextmanager
    def run(
        self, name: str, tags: Mapping[str, str], log: Log, parent: TrackedRun | None = None
    ) -> Iterator[TrackedRun]:
        """A run called `name`; pending runs are delivered first.

        It ends as FAILED if the body raises, and as KILLED if it is interrupted. If MLflow cannot be reached, that is
        logged, and the run's records are kept.
        """
        run = self._start(name, tags, log, parent)
        try:
            with sampled_load(run.metrics, log, self.sample_seconds):
                yield run
        except BaseException as error:
            run.end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        run.end("FINISHED")

    def _start(self, name: str, tags: Mapping[str, str], log: Log, parent: TrackedRun | None) -> TrackedRun:
        family = {"mlflow.parentRunId": parent.run_id} if parent and parent.run_id else {}
        start = Start(experiment=self.experiment, name=name, tags={**tags, **family}, at=now_in_ms())
        pending = self._create_pending(start, log)
        began = time.monotonic()
        if began < _paused_until.get(self.uri, 0.0):
            return TrackedRun(None, "", None, pending, log)
        try:
            client = self._connect()
            deliver_pending(Path(self.pending), client, lambda other: self._experiment(client, other), log)
            experiment = self._experiment(client, self.experiment)
            run_id = client.create_run(experiment, start.at, start.tags, name).info.run_id
        except Exception as error:
            log(self._failure(error))
            if time.monotonic() - began > SLOW_SECONDS:
                _paused_until[self.uri] = time.monotonic() + PAUSE_SECONDS
            return TrackedRun(None, "", None, pending, log)
        with suppress(OSError):
            if pending is not None:
                pending.update(run_id=run_id)
        url = f"{self._ui()}/#/experiments/{experiment}/runs/{run_id}?{VIEW}"
        return TrackedRun(client, run_id, url, pending, log)

    def _failure(self, error: Exception) -> str:
        """Why MLflow did not create the run, and what to do."""
        denied = access_denied(error)
        if isinstance(error, Withheld) or denied:
            return denied or str(error)
        verb = "refuses the run" if is_refusal(error) else "cannot be reached"
        return (
            f"MLflow at {without_credentials(self.uri)} {verb} ({error_code(error)}); records are kept and sent later."
        )

    def _create_pending(self, start: Start, log: Log) -> PendingRun | None:
        try:
            return create_pending_run(Path(self.pending), start)
        except OSError as error:
            log(f"Records that MLflow misses will be lost: no folder for pending runs ({error.strerror}).")
            return None

    def _connect(self) -> "MlflowClient":
        """A client of a database or server that responds."""
        for key, value in CLIENT_SETTINGS.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # MLflow would log every table that it creates
        if self.uri.startswith("sqlite"):
            make_folder(Path(make_url(self.uri).database or "").parent)
        with nullcontext() if self._is_server() else self._creation_lock():
            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
        return client

    def _experiment(self, client: "MlflowClient", name: str) -> str:
        """The id of the experiment called `name`; creates it if it does not exist."""
        with self._creation_lock():
            known = client.get_experiment_by_name(name)
            if known:
                return experiment_id(known)
            location = None if self._is_server() else Path(self.artifacts, name).as_uri()
            return str(client.create_experiment(name, artifact_location=location))

    def _creation_lock(self) -> FileLock:
        """A lock, since one of two processes that create a database or an experiment at once would fail."""
        make_folder(Path(self.lock_file).parent)
        return FileLock(self.lock_file)

    def _is_server(self) -> bool:
        return self.uri.lower().startswith(("http://", "https://"))

    def _ui(self) -> str:
        return without_credentials(self.uri).rstrip("/") if self._is_server() else MLFLOW_UI


def now_in_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
