"""MLflow's model registry: encoders as models that need no project to be used, and the champion of each task.

Belongs here: the model's folder, its versions, the alias. Not here: which encoder is the champion
(`pipeline.evaluation.champion`).
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
DIGEST = "encoder_digest"
"""Tag of a model version: which encoder it is (`pipeline.pretraining.encoder_folder.encoder_digest`)."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The registry holds something that does not allow what was asked; the message says what."""


def write_encoder_model(encoder: Path, folder: Path) -> None:
    """Make `folder` an MLflow model of the encoder in the folder `encoder`: its ONNX graph, signature and an example.

    Nothing in it is pickled: whoever loads it runs a graph. The example is a ramp of grey levels, nobody's image.
    """
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from pipeline.pretraining.encoder_folder import ONNX, ONNX_INPUT, ONNX_OUTPUT, Preprocessing

    how = Preprocessing.read(encoder)
    graph = onnx.load(encoder / ONNX)
    shape = [d.dim_value or -1 for d in graph.graph.output[0].type.tensor_type.shape.dim]
    float32 = np.dtype(np.float32)
    ramp = np.linspace(0, 255, how.width).round().astype(np.float32)
    mlflow.onnx.save_model(
        graph,
        folder,
        signature=ModelSignature(
            Schema([TensorSpec(float32, (-1, 1, how.height, how.width), ONNX_INPUT)]),
            Schema([TensorSpec(float32, tuple(shape), ONNX_OUTPUT)]),
        ),
        input_example={ONNX_INPUT: np.broadcast_to(ramp, (1, 1, how.height, how.width))},
        # else they are inferred, by a process that loads the model
        pip_requirements=[_pinned("mlflow"), _pinned("onnx"), _pinned("onnxruntime")],
        save_as_external_data=False,
    )


def register(
    client: "MlflowClient",
    run_id: str,
    name: str,
    digest: str,
    folder: Path,
    artifacts: str,
    tags: Mapping[str, str],
) -> None:
    """Log `folder` as the run's artifacts `artifacts`, and make it a version of the registered model `name`.

    Where a version with that `digest` is there already, nothing is done.
    """
    if find_version(client, name, digest) is not None:
        return
    client.log_artifacts(run_id, str(folder), artifacts)
    source = f"{client.get_run(run_id).info.artifact_uri}/{artifacts}"
    _add_version(client, name, source, run_id, {DIGEST: digest, **tags})


def crown(
    client: "MlflowClient", name: str, encoder: str, digest: str, earlier: Sequence[str], tags: Mapping[str, str]
) -> None:
    """Point the alias of the model `name` at the encoder `digest`, a version of the registered model `encoder`.

    Raises `Refused` where that version is missing, and where the alias is on an encoder that is none of `earlier`: it
    was put there from elsewhere, and nobody has compared the two.
    """
    original = find_version(client, encoder, digest)
    if original is None:
        raise Refused(f"{encoder} has no version of this encoder: materialize that encoder again")
    now = _champion_digest(client, name)
    if now not in {None, digest, *earlier}:
        raise Refused(
            f"the alias {ALIAS} of {name} is on an encoder that this store has not put there: it stays, and you may "
            "delete it"
        )
    chosen = find_version(client, name, digest) or _add_version(
        client, name, str(original.source), str(original.run_id), {DIGEST: digest}
    )
    for key, value in tags.items():
        client.set_model_version_tag(name, chosen.version, key, value)
    client.set_registered_model_alias(name, ALIAS, chosen.version)


def find_version(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    """The version of the registered model `name` that is the encoder with `digest`."""
    found = client.search_model_versions(f"name = '{name}' and tag.{DIGEST} = '{digest}'")
    return found[0] if found else None


def _add_version(client: "MlflowClient", name: str, source: str, run_id: str, tags: dict[str, str]) -> "ModelVersion":
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)


def _champion_digest(client: "MlflowClient", name: str) -> str | None:
    """Which encoder the alias is on; None where there is no alias."""
    models = client.search_registered_models(f"name = '{name}'")
    if not models or ALIAS not in models[0].aliases:
        return None
    chosen = client.get_model_version_by_alias(name, ALIAS)
    return chosen.tags.get(DIGEST, "")


def _pinned(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:  # onnxruntime is needed by whoever uses the model, not here
        return package
