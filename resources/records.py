"""What a run tells MLflow, as plain data: it can be sent now, or be kept as a line of JSON and sent later.

Belongs here: one class per kind of telling, and how a client sends it. Not here: when, and what if nobody answers.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pipeline.files import make_folder
from resources.registry import crown, register

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_PARAM_LENGTH = 6000  # MLflow's own limits: characters of a parameter's value and of a data set's digest,
MAX_DIGEST_LENGTH = 36
PARAMS_AT_ONCE = 100  # parameters and metrics in a call
METRICS_AT_ONCE = 1000
MODEL_FOLDER = "encoder"
"""Where a run's artifacts hold its encoder as an MLflow model."""


class _Record(BaseModel):
    """Base of all kinds; numbers that are not finite survive as JSON's usual constants."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    @property
    def files(self) -> list[Path]:
        """Files and folders that it speaks of."""
        return []

    def kept(self, folder: Path) -> "Record":
        """The record with its files copied into `folder`, which does not exist yet."""
        assert isinstance(self, Record)
        return self


class Value(BaseModel):
    """A metric's value at a step and a time, in milliseconds since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    key: str
    value: float
    step: int
    at: int


class Metrics(_Record):
    """Values of metrics."""

    kind: Literal["metrics"] = "metrics"
    values: tuple[Value, ...]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log them; a value that is there already stays one."""
        from mlflow.entities import Metric

        metrics = [Metric(v.key, v.value, v.at, v.step) for v in self.values]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])


class Params(_Record):
    """Parameters, each as text."""

    kind: Literal["params"] = "params"
    values: dict[str, str]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log them, cut to MLflow's length."""
        from mlflow.entities import Param

        params = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in self.values.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            client.log_batch(run_id, params=params[start : start + PARAMS_AT_ONCE])


class Tags(_Record):
    """Tags of the run."""

    kind: Literal["tags"] = "tags"
    values: dict[str, str]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Set them."""
        for key, value in self.values.items():
            client.set_tag(run_id, key, value)


class Artifacts(_Record):
    """Files that become artifacts."""

    kind: Literal["artifacts"] = "artifacts"
    paths: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        """The files."""
        return list(self.paths)

    def kept(self, folder: Path) -> "Artifacts":
        """Copies of one call lie side by side: a model card tells whose weights lie beside it."""
        make_folder(folder)
        return Artifacts(paths=tuple(Path(shutil.copy2(path, folder)) for path in self.paths))

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log each by its name."""
        for path in self.paths:
            client.log_artifact(run_id, str(path))


class Input(_Record):
    """A data set that the run read, by digest; no row and no path of it."""

    kind: Literal["input"] = "input"
    name: str
    digest: str
    place: str
    """Where it lies, relative to the store."""
    use: Literal["training", "evaluation"]
    size: dict[str, int]
    """Such as images and patients."""

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log it as a dataset of MLflow's."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        source = json.dumps({"uri": self.place})  # as mlflow.data writes a local file, and reads it
        dataset = Dataset(self.name, self.digest[:MAX_DIGEST_LENGTH], "local", source, profile=json.dumps(self.size))
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, self.use)])])


class EncoderModel(_Record):
    """An encoder as an MLflow model in `folder`, to be registered as a version of the model `name`."""

    kind: Literal["model"] = "model"
    name: str
    digest: str
    """Of the encoder: the same one is registered once."""
    folder: Path
    tags: dict[str, str] = {}
    """Of the version."""

    @property
    def files(self) -> list[Path]:
        """The folder."""
        return [self.folder]

    def kept(self, folder: Path) -> "EncoderModel":
        """The record, its folder copied."""
        return self.model_copy(update={"folder": Path(shutil.copytree(self.folder, folder))})

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log the folder and register it, where that encoder is not registered yet."""
        register(client, run_id, self.name, self.digest, self.folder, MODEL_FOLDER, self.tags)


class Champion(_Record):
    """The encoder with `digest`, of the registered model `encoder`, is the champion of the model `name`."""

    kind: Literal["champion"] = "champion"
    name: str
    encoder: str
    digest: str
    earlier: tuple[str, ...]
    """Digests of the champions that it may replace."""
    tags: dict[str, str]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Move the alias."""
        crown(client, self.name, self.encoder, self.digest, self.earlier, self.tags)


class End(_Record):
    """The run is over, at a time in milliseconds since 1970."""

    kind: Literal["end"] = "end"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    at: int

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Close it."""
        client.set_terminated(run_id, self.status, self.at)


Record = Metrics | Params | Tags | Artifacts | Input | EncoderModel | Champion | End
RECORDS: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def in_batches(records: list[Record]) -> list[Record]:
    """`records` with metrics that follow each other as one: a long training is sent in few calls."""
    batches: list[Record] = []
    for record in records:
        last = batches[-1] if batches else None
        if isinstance(record, Metrics) and isinstance(last, Metrics):
            batches[-1] = Metrics(values=last.values + record.values)
        else:
            batches.append(record)
    return batches
