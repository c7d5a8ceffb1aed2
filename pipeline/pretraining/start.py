"""The weights from which a training starts if they are not random: ImageNet's, or another encoder's."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.methods import EncoderSettings, TrainingSettings
from pipeline.methods.external import ExternalSettings
from pipeline.methods.method import IMAGENET, RANDOM
from pipeline.networks.encoders import Encoder, WeightsUnavailable, imagenet_encoder, load_encoder
from pipeline.pretraining.encoder_folder import ENCODER, Preprocessing
from pipeline.settings import Backbone
from pipeline.training_sets import patients_trained_on, training_set_digests


def recorded_settings(settings: EncoderSettings, backbone: Backbone) -> dict[str, Any]:
    """The settings that determine the encoder, with the digest of its initial weights in place of their path.

    A path can contain a name; moving a file trains nothing anew.
    """
    return settings.decisive(backbone) | start_record(settings, backbone)


def start_record(settings: EncoderSettings, backbone: Backbone) -> dict[str, str]:
    """What an encoder starts from, and the digest of those weights; empty if they are random."""
    if not isinstance(settings, TrainingSettings) or settings.start_from == RANDOM:
        return {}
    file = _file(settings, backbone)
    weights = digest(file.read_bytes()) if file is not None and file.is_file() else "missing"
    return {"start_from": IMAGENET if settings.start_from == IMAGENET else "encoder", "start_weights": weights}


def start_is_missing(settings: TrainingSettings, backbone: Backbone) -> bool:
    """Whether there are no such weights, so that the outcome of a training is `unavailable`."""
    return start_record(settings, backbone).get("start_weights") == "missing"


def start_encoder(settings: TrainingSettings, backbone: Backbone) -> Encoder:
    """The encoder that `start_from` names, which is not `random`.

    Raises `WeightsUnavailable` if its file does not exist, and `UserError` if it is of another backbone or damaged.
    """
    if settings.start_from == IMAGENET:
        return imagenet_encoder(backbone, _file(settings, backbone))
    return encoder_in(Path(settings.start_from), backbone, "pretraining.start_from")


def encoder_in(folder: Path, backbone: Backbone, field: str) -> Encoder:
    """The encoder in `folder`, which `field` of the recipe names; raises as `start_encoder`."""
    if not (folder / ENCODER).is_file():
        raise WeightsUnavailable(f"{field}: the folder {folder.name} holds no finished encoder ({ENCODER})")
    found = Preprocessing.read(folder).backbone
    if found != backbone:
        raise UserError(f"{field} {folder} holds an encoder of {found}, not of {backbone}.")
    return load_encoder(backbone, folder / ENCODER)


def inherited_digests(settings: EncoderSettings, backbone: Backbone) -> tuple[str, ...]:
    """Digests of the training sets of the encoder that is taken or trained on, and of those that it started from."""
    if isinstance(settings, ExternalSettings):
        named = settings.external.get(backbone)
        return training_set_digests(Path(named.weights)) if named and not named.is_file else ()
    if not isinstance(settings, TrainingSettings) or settings.start_from in (RANDOM, IMAGENET):
        return ()
    return training_set_digests(Path(settings.start_from))


def refuse_exposed_starts(encoders: Iterable[tuple[EncoderSettings, Backbone]], pool: pa.Table, private: Path) -> None:
    """Raise `UserError` if an encoder would start from one trained on patients of the pool's validation side.

    `pool` needs the columns patient and split. Compares with the records of training sets in `private`: of an encoder
    of another store there is none, and its pseudonyms would differ.
    """
    validation = set(pool["patient"].filter(pc.equal(pool["split"], "val")).to_pylist())
    digests = {one for named in encoders for one in inherited_digests(*named)}
    if shared := validation & patients_trained_on(private, digests):
        raise UserError(
            "pretraining.start_from or external names an encoder that was trained on patients who are now on the "
            f"validation side ({len(shared)}), so that validation would flatter it: train that encoder again first."
        )


def _file(settings: TrainingSettings, backbone: Backbone) -> Path | None:
    if settings.start_from != IMAGENET:
        return Path(settings.start_from) / ENCODER
    named = settings.imagenet_weights.get(backbone)
    return None if named is None else Path(named)
