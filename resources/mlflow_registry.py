"""MLflow's model registry: encoders as models that run without this project, and the alias of each task's champion.

Not here: choosing the champion (`pipeline.evaluation.champion`).
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
MODEL_FOLDER = "encoder"
"""Artifact folder of a run's encoder as an MLflow model."""
DIGEST = "encoder_digest"
"""Tag of a model version: the digest of its encoder (`pipeline.pretraining.encoder_folder.encoder_digest`)."""


class RegistryConflict(Exception):  # noqa: N818 - a state of the registry, not a bug
    """The registry's content does not allow the change; the message names the conflict."""


def write_encoder_model(encoder: Path, folder: Path) -> None:
    """Write the encoder in the folder `encoder` to `folder` as an MLflow model: ONNX graph, signature, input example.

    The model contains no pickles. The example is a ramp of grey levels, not a patient's image.
    """
    import mlflow.onnx
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
        # explicit, since MLflow would load the model in a new process to infer them
        pip_requirements=[_requirement("mlflow"), _requirement("onnx"), _requirement("onnxruntime")],
        save_as_external_data=False,
    )


def register(
    client: "MlflowClient", run_id: str, name: str, digest: str, folder: Path, tags: Mapping[str, str]
) -> None:
    """Log `folder` as the run's artifacts MODEL_FOLDER, and register it as a version of the model `name`.

    Does nothing if a version with that `digest` exists.
    """
    if find_version(client, name, digest) is not None:
        return
    client.log_artifacts(run_id, str(folder), MODEL_FOLDER)
    source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
    _add_version(client, name, source, run_id, {DIGEST: digest, **tags})


def set_champion(
    client: "MlflowClient", name: str, encoder: str, digest: str, earlier: Sequence[str], tags: Mapping[str, str]
) -> None:
    """Set the alias of the model `name` to the encoder `digest`, a version of the registered model `encoder`.

    Raises `RegistryConflict` if that version is missing, or if the alias is on an encoder that is not in `earlier`:
    someone else set it, and the two were not compared.
    """
    original = find_version(client, encoder, digest)
    if original is None:
        raise RegistryConflict(f"{encoder} has no version of this encoder: materialize that encoder again")
    if _champion_digest(client, name) not in {None, digest, *earlier}:
        raise RegistryConflict(
            f"the alias {ALIAS} of {name} is on an encoder that this store did not set, so it is unchanged: delete "
            "the alias if this store should set it"
        )
    chosen = find_version(client, name, digest) or _add_version(
        client, name, str(original.source), str(original.run_id), {DIGEST: digest}
    )
    for key, value in tags.items():
        client.set_model_version_tag(name, chosen.version, key, value)
    client.set_registered_model_alias(name, ALIAS, chosen.version)


def find_version(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    """The version of the registered model `name` with the encoder `digest`; None if there is none."""
    found = client.search_model_versions(f"name = '{name}' and tag.{DIGEST} = '{digest}'")
    return found[0] if found else None


def _add_version(client: "MlflowClient", name: str, source: str, run_id: str, tags: dict[str, str]) -> "ModelVersion":
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)


def _champion_digest(client: "MlflowClient", name: str) -> str | None:
    """Digest of the encoder that the alias is on; None without an alias."""
    models = client.search_registered_models(f"name = '{name}'")
    if not models or ALIAS not in models[0].aliases:
        return None
    chosen = client.get_model_version_by_alias(name, ALIAS)
    return chosen.tags.get(DIGEST, "")


def _requirement(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:  # onnxruntime, which only users of the model need
        return package
