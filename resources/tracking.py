"""MLflow: one run per materialization, which never costs a trained encoder.

Belongs here: opening runs and writing to them. Not here: what is worth writing.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import dagster as dg
from filelock import FileLock

from pipeline.progress import Say

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
}

MAX_PARAM_LENGTH = 6000  # MLflow's own limit for a parameter's value


class TrackedRun:
    """One MLflow run. The first failure is said once; from then on nothing more is tried, and work goes on."""

    def __init__(self, client: "MlflowClient | None", experiment_id: str, run_id: str, ui: str, say: Say) -> None:
        self._client, self._experiment_id, self.run_id, self._ui, self._say = client, experiment_id, run_id, ui, say

    @property
    def url(self) -> str | None:
        """Where a person sees the run; None where MLflow could not be reached."""
        return f"{self._ui}/#/experiments/{self._experiment_id}/runs/{self.run_id}" if self.run_id else None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log `values` at `step` (an epoch)."""

        def log(client: "MlflowClient") -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            client.log_batch(self.run_id, metrics=[Metric(key, float(v), now, step) for key, v in values.items()])

        self._try(log)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log `values` as parameters, each as text."""

        def log(client: "MlflowClient") -> None:
            from mlflow.entities import Param

            client.log_batch(self.run_id, params=[Param(k, str(v)[:MAX_PARAM_LENGTH]) for k, v in values.items()])

        self._try(log)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set `values` as tags."""

        def log(client: "MlflowClient") -> None:
            for key, value in values.items():
                client.set_tag(self.run_id, key, value)

        self._try(log)

    def files(self, paths: list[Path]) -> None:
        """Log the files that exist among `paths` as artifacts."""

        def log(client: "MlflowClient") -> None:
            for path in paths:
                if path.is_file():
                    client.log_artifact(self.run_id, str(path))

        self._try(log)

    def end(self, status: str) -> None:
        """Close the run as FINISHED or FAILED."""
        self._try(lambda client: client.set_terminated(self.run_id, status))

    def _try(self, action: Callable[["MlflowClient"], None]) -> None:
        if self._client is None:
            return
        try:
            action(self._client)
        except Exception as error:
            self._say(f"MLflow is not answering ({type(error).__name__}); the files are in the store, tracking stops.")
            self._client = None


class Tracking(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where runs are recorded. A local sqlite database by default, a server where MLFLOW_TRACKING_URI names one."""

    uri: str
    artifacts: str
    """Folder for artifacts of a local database (a server decides for itself)."""
    experiment: str
    lock_file: str

    @contextmanager
    def run(
        self, name: str, tags: Mapping[str, str], say: Say, parent: TrackedRun | None = None
    ) -> Iterator[TrackedRun]:
        """A run called `name`; FAILED where the body raises. An unreachable MLflow is said and worked without."""
        run = self._start(name, tags, say, parent)
        try:
            yield run
        except BaseException:
            run.end("FAILED")
            raise
        run.end("FINISHED")

    def _start(self, name: str, tags: Mapping[str, str], say: Say, parent: TrackedRun | None) -> TrackedRun:
        family = {"mlflow.parentRunId": parent.run_id} if parent and parent.run_id else {}
        try:
            client, experiment_id = self._open()
            run_id = client.create_run(experiment_id, tags={**tags, **family}, run_name=name).info.run_id
        except Exception as error:
            say(f"MLflow at {self._place()} cannot be reached ({type(error).__name__}); going on without tracking.")
            return TrackedRun(None, "", "", "", say)
        return TrackedRun(client, experiment_id, run_id, self._ui(), say)

    def _open(self) -> tuple["MlflowClient", str]:
        """A client and the experiment's id; under a lock, since first use creates the database's tables."""
        for key, value in PATIENCE.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # creating tables is no news
        Path(self.lock_file).parent.mkdir(parents=True, exist_ok=True)
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.lock_file):
            client = MlflowClient(tracking_uri=self.uri)
            known = client.get_experiment_by_name(self.experiment)
            if known:
                return client, known.experiment_id
            location = None if self._is_server() else Path(self.artifacts, self.experiment).as_uri()
            return client, client.create_experiment(self.experiment, artifact_location=location)

    def _is_server(self) -> bool:
        return urlparse(self.uri).scheme in {"http", "https"}

    def _ui(self) -> str:
        return self.uri.rstrip("/") if self._is_server() else MLFLOW_UI

    def _place(self) -> str:
        """The address without user name and password."""
        parts = urlparse(self.uri)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
