"""Which trained networks were exposed to which patients: what erasing a patient makes obsolete."""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import read_json, read_table, write_table
from pipeline.methods import METHODS
from pipeline.mirrored import read_if_intact
from pipeline.recipe.arms import FROZEN, encoder_of
from pipeline.settings import TORCHVISION_BACKBONES
from pipeline.store import Store
from pipeline.training_sets import on_training_side, record_path, training_set_digests

_PATIENTS = pa.schema(
    [pa.field("patient", pa.string(), nullable=False), pa.field("split", pa.string())]  # null in older records
)
_WEIGHTS = "*.safetensors"
_DESCRIPTION = "model.json"
_SEED_SUFFIX = re.compile(r"_seed-\d+$")


def record_training_set(
    private: Path, digest: str, patients: Iterable[str], sides: Mapping[str, str] | None = None
) -> None:
    """Record the pseudonyms of a pretraining pool's patients; the file is named by the pool's `digest`.

    `sides` gives each patient's side of the split, if known.
    """
    names = sorted(set(patients))
    table = pa.table({"patient": names, "split": [(sides or {}).get(name) for name in names]}, schema=_PATIENTS)
    write_table(record_path(private, digest), table)


def encoders_trained_on_validation(earlier: Store, validation: Collection[str], moved: Collection[str]) -> list[str]:
    """Sorted folders, relative to the store, of encoders of `earlier` runs that trained on patients of `validation`.

    Older records have no sides: then the patients that have just `moved` to validation count.
    """
    folders = (earlier.root / "experiments").glob("*/encoders/*")
    found = (folder for folder in folders if any(folder.glob(_WEIGHTS)))
    across = (folder for folder in found if _trained_on_validation(earlier.private, folder, validation, moved))
    return sorted(folder.relative_to(earlier.root).as_posix() for folder in across)


def _trained_on_validation(private: Path, folder: Path, validation: Collection[str], moved: Collection[str]) -> bool:
    records = _records_of(private, folder)
    if not records:
        return bool(moved)  # unknown, so assume the worst
    return any(_includes_validation(read_table(record), validation, moved) for record in records)


def _includes_validation(rows: pa.Table, validation: Collection[str], moved: Collection[str]) -> bool:
    if "split" not in rows.column_names or rows["split"].null_count:
        return not set(moved).isdisjoint(rows["patient"].to_pylist())
    return not set(validation).isdisjoint(on_training_side(rows))


def training_patients(private: Path, encoder: Path) -> frozenset[str]:
    """Pseudonyms of the patients in the pool on which the encoder in the folder `encoder` was trained.

    Includes patients who have left the archive since; empty if no record is kept.
    """
    rows = _recorded_patients(private, encoder)
    return frozenset(rows["patient"].to_pylist()) if rows is not None else frozenset()


def models_exposed_to(store: Store, patient: str) -> list[str]:
    """Sorted folders, relative to the store, of the networks that the images of `patient` (a pseudonym) influenced.

    Encoders are matched by the digest of their training images, copies in MLflow's folder too. Validation counts,
    since it chose the epoch; so does the z-score of an encoder that was not trained. A fine-tuned model inherits the
    exposure of its encoder and adds the patients of its task's train and val images. In case of doubt the network is
    listed: an encoder without a digest (its training was cut short) or without a record; a model that is older than
    the encoder beside it, or has none beside it; a model without model.json may come from the encoder of any seed.
    """
    recipes = [folder for folder in (store.root / "experiments").glob("*") if folder.is_dir()]
    encoders = [folder for recipe in recipes for folder in (recipe / "encoders").glob("*")]
    copies = {path.parent for path in store.mlflow.rglob("encoder.safetensors")} if store.mlflow.is_dir() else set()
    found = [folder for folder in (*encoders, *copies) if _encoder_exposed(store.private, folder, patient)]
    models = [folder for recipe in recipes for folder in (recipe / "models").glob("*/*") if any(folder.glob(_WEIGHTS))]
    found += [folder for folder in models if _model_exposed(store.private, folder, patient)]
    return sorted(folder.relative_to(store.root).as_posix() for folder in found)


def patients_not_trained_on(private: Path, encoders: Iterable[Path], patients: Collection[str]) -> set[str]:
    """Those of `patients` (pseudonyms) who are missing from the training set of an encoder in `encoders` (folders).

    An encoder that does not exist yet, or without a record, has no patients; one that is unavailable or diverged is
    skipped.
    """
    counted = (folder for folder in encoders if any(folder.glob(_WEIGHTS)) or not (folder / "outcome.json").is_file())
    return {patient for folder in counted for patient in set(patients) - training_patients(private, folder)}


def _encoder_exposed(private: Path, folder: Path, patient: str) -> bool:
    if not any(folder.glob(_WEIGHTS)):
        return False
    rows = _recorded_patients(private, folder)
    return rows is None or _contains(rows, patient)


def _recorded_patients(private: Path, encoder: Path) -> pa.Table | None:
    """The records of an encoder's training set and its starts'; None if its own is missing, or one is damaged."""
    records = _records_of(private, encoder)
    tables = [read_if_intact(record, partial(read_table, columns=["patient"])) for record in records]
    intact = [rows for rows in tables if rows is not None]
    return pa.concat_tables(intact) if records and len(intact) == len(records) else None


def _records_of(private: Path, encoder: Path) -> list[Path]:
    """The records that an encoder's model card names: its own, then those of its starts; empty without its own.

    Encoders of other stores, from which it may have started, have no record here.
    """
    records = [record_path(private, stated) for stated in training_set_digests(encoder)]
    return [record for record in records if record.is_file()] if records and records[0].is_file() else []


def _model_exposed(private: Path, folder: Path, patient: str) -> bool:
    recipe = folder.parents[2]
    return any(
        _task_has(_task_images(recipe, task), patient)
        or not encoders
        or any(
            not _may_come_from(folder, encoder) or _encoder_exposed(private, encoder, patient) for encoder in encoders
        )
        for encoders, task in _possible_sources(recipe, folder)
    )


def _possible_sources(recipe: Path, model: Path) -> list[tuple[list[Path], str]]:
    """The encoders from which the model in the folder `model` may come, and its task.

    model.json states both, unless training was cut short or an older version wrote it: then it may be the encoder of
    any seed, and the folder's name consists of backbone, arm and task. `resnet50_ce_dcm_x` could be arm ce with task
    dcm_x: the recipe's tasks decide, and without them the longest arm. If the name begins with no encoder's, there is
    none beside the model.
    """
    stated = read_if_intact(model / _DESCRIPTION, read_json)
    if isinstance(stated, dict) and stated.get("encoder") and stated.get("task"):
        return [([recipe / "encoders" / stated["encoder"]], stated["task"])]
    name = model.parent.name
    readings = [
        (encoder_of(arm), name.removeprefix(f"{arm}_"))
        for arm in sorted(_arms(recipe), key=len, reverse=True)
        if name.startswith(f"{arm}_")
    ]
    likely = [reading for reading in readings if _task_images(recipe, reading[1]).is_file()] or readings[:1]
    if not likely:
        return [([], name)]
    return [(sorted((recipe / "encoders").glob(f"{encoder}_seed-*")), task) for encoder, task in likely]


def _arms(recipe: Path) -> set[str]:
    """The built-in arms of torchvision's backbones, and those of the recipe's encoders, each after its backbone."""
    built_in = {f"{backbone}_{method}" for backbone in TORCHVISION_BACKBONES for method in METHODS}
    encoders = built_in | {_SEED_SUFFIX.sub("", path.name) for path in (recipe / "encoders").glob("*")}
    return encoders | {f"{encoder}{FROZEN}" for encoder in encoders}


def _task_images(recipe: Path, task: str) -> Path:
    return recipe / "tasks" / f"{task}.parquet"


def _task_has(path: Path, patient: str) -> bool:
    if not path.is_file():
        return False
    rows = read_table(path, ["patient", "split"])
    return _contains(rows.filter(pc.is_in(rows["split"], value_set=pa.array(["train", "val"]))), patient)


def _may_come_from(model: Path, encoder: Path) -> bool:
    """Whether the encoder exists and was finished before the model."""
    finished = [folder / "outcome.json" for folder in (encoder, model)]
    if not any(encoder.glob(_WEIGHTS)) or not all(path.is_file() for path in finished):
        return False
    return finished[0].stat().st_mtime_ns <= finished[1].stat().st_mtime_ns


def _contains(table: pa.Table, patient: str) -> bool:
    return bool(pc.index(table["patient"], patient).as_py() >= 0)
