"""Records of a run: plain data that is sent to MLflow now, or kept as a line of JSON and sent later.

Not here: when they are sent, and what happens on failure (`resources.mlflow_delivery`).
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter

from pipeline.files import make_folder
from resources.mlflow_registry import register, set_champion

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's limits: characters of a parameter's value and of a data set's digest, parameters and metrics per call.
MAX_PARAM_LENGTH = 6000
MAX_DIGEST_LENGTH = 36
PARAMS_PER_CALL = 100
METRICS_PER_CALL = 1000

_CONFIG = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class _Record(BaseModel):
    """Base class; infinite and NaN values are kept as JSON constants."""

    model_config = _CONFIG

    @property
    def files(self) -> list[Path]:
        """The files and folders that the record refers to."""
        return []

    def with_copies(self, folder: Path) -> "Record":
        """The record, referring to copies of its files in the new folder `folder`."""
        assert isinstance(self, Record)
        return self


class Value(BaseModel):
    """A metric's value at a step; `at` is in milliseconds since 1970."""

    model_config = _CONFIG

    key: str
    value: float
    step: int
    at: int


class Metrics(_Record):
    """Metric values."""

    kind: Literal["metrics"] = "metrics"
    values: tuple[Value, ...]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log the values; MLflow stores a value that it already has only once."""
        from mlflow.entities import Metric

        metrics = [Metric(v.key, v.value, v.at, v.step) for v in self.values]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


class Params(_Record):
    """Parameters, as text."""

    kind: Literal["params"] = "params"
    values: dict[str, str]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log the parameters, cut to MLflow's maximum length."""
        from mlflow.entities import Param

        params = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in self.values.items()]
        for start in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])


class Tags(_Record):
    """Tags of the run."""

    kind: Literal["tags"] = "tags"
    values: dict[str, str]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Set the tags."""
        for key, value in self.values.items():
            client.set_tag(run_id, key, value)


class Artifacts(_Record):
    """Files to log as artifacts."""

    kind: Literal["artifacts"] = "artifacts"
    paths: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        """The files."""
        return list(self.paths)

    def with_copies(self, folder: Path) -> "Artifacts":
        """The record, referring to copies; files of one call stay together, as a model card belongs to its weights."""
        make_folder(folder)
        return Artifacts(paths=tuple(Path(shutil.copy2(path, folder)) for path in self.paths))

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log each file under its name."""
        for path in self.paths:
            client.log_artifact(run_id, str(path))


class Input(_Record):
    """A data set that the run reads, identified by its digest; no row of it is sent."""

    kind: Literal["input"] = "input"
    name: str
    digest: str
    location: str = Field(validation_alias=AliasChoices("location", "place"))  # earlier versions wrote "place"
    """Path relative to the store."""
    use: Literal["training", "evaluation"]
    size: dict[str, int]
    """Counts, such as of images and patients."""

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log it as an MLflow dataset."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        source = json.dumps({"uri": self.location})  # the format of mlflow.data for local files
        dataset = Dataset(self.name, self.digest[:MAX_DIGEST_LENGTH], "local", source, profile=json.dumps(self.size))
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, self.use)])])


class EncoderModel(_Record):
    """An encoder as an MLflow model in `folder`, to be registered as a version of the model `name`."""

    kind: Literal["model"] = "model"
    name: str
    digest: str
    """Digest of the encoder; each encoder is registered once."""
    folder: Path
    tags: dict[str, str] = {}
    """Tags of the version."""

    @property
    def files(self) -> list[Path]:
        """The folder."""
        return [self.folder]

    def with_copies(self, folder: Path) -> "EncoderModel":
        """The record, referring to a copy of its folder."""
        return self.model_copy(update={"folder": Path(shutil.copytree(self.folder, folder))})

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Log and register the model, unless that encoder is already registered."""
        register(client, run_id, self.name, self.digest, self.folder, self.tags)


class Champion(_Record):
    """Makes the version `digest` of the registered model `encoder` the champion of the model `name`."""

    kind: Literal["champion"] = "champion"
    name: str
    encoder: str
    digest: str
    earlier: tuple[str, ...]
    """Digests of the champions that it may replace."""
    tags: dict[str, str]

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """Move the alias."""
        set_champion(client, self.name, self.encoder, self.digest, self.earlier, self.tags)


class End(_Record):
    """The end of the run; `at` is in milliseconds since 1970."""

    kind: Literal["end"] = "end"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    at: int

    def send(self, client: "MlflowClient", run_id: str) -> None:
        """End the run."""
        client.set_terminated(run_id, self.status, self.at)


Record = Metrics | Params | Tags | Artifacts | Input | EncoderModel | Champion | End
RECORDS: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def merge_metrics(records: list[Record]) -> list[Record]:
    """`records`, with consecutive metrics merged so that a long training takes few calls."""
    merged: list[Record] = []
    for record in records:
        last = merged[-1] if merged else None
        if isinstance(record, Metrics) and isinstance(last, Metrics):
            merged[-1] = Metrics(values=last.values + record.values)
        else:
            merged.append(record)
    return merged
