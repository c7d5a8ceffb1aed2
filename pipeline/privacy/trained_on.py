"""Which trained networks saw which patient: what has to be trained again where somebody is to be forgotten.

Belongs here: the private record of training sets, and the questions to it. Not here: training, forgetting.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import read_json, read_table, write_table
from pipeline.mirrored import read_if_intact
from pipeline.recipe import FROZEN, Backbone, Method, encoder_of
from pipeline.store import Store

_PATIENTS = pa.schema(
    [pa.field("patient", pa.string(), nullable=False), pa.field("split", pa.string())]  # null in older records
)
_DIGEST = re.compile(r"^- digest of images and split: ([0-9a-f]{16,64})$", re.MULTILINE)
_WEIGHTS = "*.safetensors"
_DESCRIPTION = "model.json"
_OF_SEED = re.compile(r"_seed-\d+$")


def record_training_set(
    private: Path, digest: str, patients: Iterable[str], sides: Mapping[str, str] | None = None
) -> None:
    """Keep the pseudonyms of the patients whose images have the `digest` of a pretraining pool's images and split.

    `sides` gives each one's side, if known. The file is named by the digest: the same set is the same file, and is
    written whole or not at all.
    """
    names = sorted(set(patients))
    table = pa.table({"patient": names, "split": [(sides or {}).get(name) for name in names]}, schema=_PATIENTS)
    write_table(_training_set(private, digest), table)


def trained_across(store: Store, validation: Collection[str], moved: Collection[str]) -> list[str]:
    """Folders in the store, relative to it and sorted, of encoders that trained on patients of today's `validation`.

    Of a record that does not tell sides, as older ones do not, the patients `moved` to validation just now count.
    """
    folders = (store.root / "experiments").glob("*/encoders/*")
    found = [folder for folder in folders if any(folder.glob(_WEIGHTS))]
    return sorted(
        folder.relative_to(store.root).as_posix()
        for folder in found
        if _trained_across(store.private, folder, validation, moved)
    )


def _trained_across(private: Path, folder: Path, validation: Collection[str], moved: Collection[str]) -> bool:
    record = _record_of(private, folder)
    if record is None:
        return bool(moved)  # it cannot be told
    rows = read_table(record)
    if "split" not in rows.column_names or rows["split"].null_count:
        return not set(moved).isdisjoint(rows["patient"].to_pylist())
    trained = rows["patient"].filter(pc.equal(rows["split"], "train")).to_pylist()
    return not set(validation).isdisjoint(trained)


def training_patients(private: Path, encoder: Path) -> frozenset[str]:
    """Pseudonyms of the patients whose images the encoder in the folder `encoder` was made from, as far as recorded.

    It is of the pool as it was then: who has left the archive since is among them.
    """
    record = _record_of(private, encoder)
    rows = _patients_in(record) if record is not None else None
    return frozenset(rows["patient"].to_pylist()) if rows is not None else frozenset()


def trained_on(encoder: Path) -> str | None:
    """Digest of a pool's images and split (`image_digest`), stated in the model card of an encoder that ran."""
    card = encoder / "model_card.md"
    stated = _DIGEST.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return stated[1] if stated else None


def saw(store: Store, patient: str) -> list[str]:
    """Folders in the store, relative to it and sorted, of networks whose training the patient's images had a part in.

    `patient` is a pseudonym. Encoders are found by the digest of their training images, also where MLflow keeps a
    copy; validation counts, as it chose the epoch, and so does the z-score of an encoder that was not trained. A
    fine-tuned model saw who its encoder saw, and the patients of its task's train and val. Where it cannot be told,
    the network is listed: an encoder that states no digest (its training was cut short) or one of which no record is
    kept, and a model that is older than the encoder beside it, or has none: it was made from another one. A model that
    does not say from which seed's encoder it was made (its training was cut short) may be of each.
    """
    recipes = [folder for folder in (store.root / "experiments").glob("*") if folder.is_dir()]
    encoders = [folder for recipe in recipes for folder in (recipe / "encoders").glob("*")]
    copies = {path.parent for path in store.mlflow.rglob("encoder.safetensors")} if store.mlflow.is_dir() else set()
    found = [folder for folder in (*encoders, *copies) if _encoder_saw(store.private, folder, patient)]
    found += [folder for recipe in recipes for folder in _models(recipe) if _model_saw(store.private, folder, patient)]
    return sorted(folder.relative_to(store.root).as_posix() for folder in found)


def unseen(private: Path, encoders: Iterable[Path], patients: Collection[str]) -> set[str]:
    """Those of `patients` (pseudonyms) whom an encoder in one of the folders `encoders` has not seen.

    An encoder that is not there yet, or of which no record is kept, has seen nobody; one that is unavailable or that
    diverged is not asked.
    """
    return {patient for folder in encoders for patient in set(patients) - _seen(private, folder, patients)}


def _seen(private: Path, folder: Path, patients: Collection[str]) -> frozenset[str]:
    outcome = folder / "outcome.json"
    if outcome.is_file() and not any(folder.glob(_WEIGHTS)):
        return frozenset(patients)
    return training_patients(private, folder)


def _training_set(private: Path, digest: str) -> Path:
    return private / "training_sets" / f"{digest[:16]}.parquet"


def _encoder_saw(private: Path, folder: Path, patient: str) -> bool:
    """Whether the encoder in `folder` saw the patient, or may have; one that came to nothing holds no weights."""
    if not any(folder.glob(_WEIGHTS)):
        return False
    record = _record_of(private, folder)
    rows = _patients_in(record) if record is not None else None
    return rows is None or _holds(rows, patient)


def _patients_in(record: Path) -> pa.Table | None:
    """The record of a training set; None if it is damaged, so that it cannot be told."""
    return read_if_intact(record, partial(read_table, columns=["patient"]))


def _record_of(private: Path, encoder: Path) -> Path | None:
    """The record of an encoder's training set, where its model card names one that is kept."""
    stated = trained_on(encoder)
    record = _training_set(private, stated) if stated else None
    return record if record is not None and record.is_file() else None


def _models(recipe: Path) -> Iterator[Path]:
    return (folder for folder in (recipe / "models").glob("*/*") if any(folder.glob(_WEIGHTS)))


def _model_saw(private: Path, folder: Path, patient: str) -> bool:
    recipe = folder.parents[2]
    return any(
        _task_has(_images(recipe, task), patient)
        or not encoders
        or any(not _may_be_of(folder, encoder) or _encoder_saw(private, encoder, patient) for encoder in encoders)
        for encoders, task in _made_of(recipe, folder)
    )


def _made_of(recipe: Path, model: Path) -> list[tuple[list[Path], str]]:
    """Which encoders a model in the folder `model` may have been made of, and of which task it is.

    It says so itself (model.json), unless its training was cut short or is of a version that did not say it: then it
    may be any seed's, and its folder is called backbone, arm and task. `resnet50_ce_dcm_x` could be arm ce and task
    dcm_x: the recipe's tasks decide, and without them the longest arm.
    """
    said = read_if_intact(model / _DESCRIPTION, read_json)
    if isinstance(said, dict) and said.get("encoder") and said.get("task"):
        return [([recipe / "encoders" / said["encoder"]], said["task"])]
    name = model.parent.name
    readings = [
        (f"{backbone}_{encoder_of(arm)}", name.removeprefix(f"{backbone}_{arm}_"))
        for backbone in get_args(Backbone)
        for arm in sorted(_arms(recipe, backbone), key=len, reverse=True)
        if name.startswith(f"{backbone}_{arm}_")
    ]
    likely = [reading for reading in readings if _images(recipe, reading[1]).is_file()] or readings[:1]
    return [(sorted((recipe / "encoders").glob(f"{encoder}_seed-*")), task) for encoder, task in likely]


def _arms(recipe: Path, backbone: str) -> set[str]:
    """The arms that there always are, and those of the variants whose encoders lie there."""
    found = (_OF_SEED.sub("", path.name) for path in (recipe / "encoders").glob(f"{backbone}_*"))
    encoders = {*get_args(Method), *(name.removeprefix(f"{backbone}_") for name in found)}
    return encoders | {f"{encoder}{FROZEN}" for encoder in encoders}


def _images(recipe: Path, task: str) -> Path:
    return recipe / "tasks" / f"{task}.parquet"


def _task_has(path: Path, patient: str) -> bool:
    if not path.is_file():
        return False
    rows = read_table(path, ["patient", "split"])
    return _holds(rows.filter(pc.is_in(rows["split"], value_set=pa.array(["train", "val"]))), patient)


def _may_be_of(model: Path, encoder: Path) -> bool:
    """Whether the encoder beside it is the one that the model was made from: it is there, and was finished before."""
    finished = [folder / "outcome.json" for folder in (encoder, model)]
    if not any(encoder.glob(_WEIGHTS)) or not all(path.is_file() for path in finished):
        return False
    return finished[0].stat().st_mtime_ns <= finished[1].stat().st_mtime_ns


def _holds(table: pa.Table, patient: str) -> bool:
    return bool(pc.index(table["patient"], patient).as_py() >= 0)
