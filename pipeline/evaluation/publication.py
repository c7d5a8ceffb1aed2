"""A published experiment: the input of its report as numbers, without images, masks or patients' names."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.downstream.predictions import PREDICTIONS, TEST, VALIDATION, Cell
from pipeline.errors import UserError
from pipeline.evaluation.constant import Constant
from pipeline.evaluation.dataset_table import DatasetRow
from pipeline.evaluation.evidence import Evidence, Training, frozen_scores_of
from pipeline.evaluation.hausdorff import DISTANCES, hausdorff_distances
from pipeline.evaluation.inpainting_error import InpaintingError
from pipeline.evaluation.results import predictions_by_cell
from pipeline.files import read_json, read_table, write_json, write_table
from pipeline.pretraining.curves import named_as_today
from pipeline.recipe import Recipe
from pipeline.tables import FROZEN_SCORES, column
from pipeline.training.outcome import Outcome

EXPERIMENT = "experiment.json"
LAYOUT = 1
_MASKS = ("predicted_mask", "truth_mask")
_DIGITS = 6  # of a patient's number as text, zero-padded so that text and numbers sort alike

PUBLISHED = pa.schema(
    [
        *(field for field in PREDICTIONS if field.name not in (*_MASKS, "patient")),
        column("patient", pa.int64(), "number of the patient within the task, from 1"),
        column(DISTANCES, pa.list_(pa.float64()), "segmentation, test images: HD95 by foreground class", nullable=True),
    ]
)
"""Schema of the published tables, whose file names are those in a model's folder (`TEST`, `VALIDATION`)."""


@dataclass(frozen=True)
class Publication:
    """The evidence of an experiment and the rows of its data sets."""

    evidence: Evidence
    data_sets: Sequence[DatasetRow]


def write_publication(folder: Path, publication: Publication) -> None:
    """Write `experiment.json`, `predictions.parquet` (test images) and `validation.parquet` into `folder`.

    Scores of frozen encoders, if there are any, become `frozen_scores.parquet`.

    Patients become numbers from 1 within each task, in the order of their names, so that tests resample the same
    patients. Paths become file names. `experiment.json` holds the digests of the tables and is written last. Raises
    `UserError` if `folder` holds another recipe's experiment.
    """
    _refuse_another(folder, publication.evidence.recipe)
    evidence = publication.evidence
    numbers = _patient_numbers((evidence.predictions, evidence.validation))
    write_table(folder / TEST, _published(evidence.predictions, numbers, with_distances=True))
    write_table(folder / VALIDATION, _published(evidence.validation, numbers, with_distances=False))
    _write_frozen(folder, evidence.frozen)
    write_json(folder / EXPERIMENT, _facts(publication) | {"tables": _table_digests(folder)})


def read_publication(folder: Path) -> Publication:
    """Read what `write_publication` wrote.

    Raises `UserError` if there is nothing, if another version wrote it, or if its tables do not match its digests.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise UserError(f"{path} does not exist: write it with `python -m pipeline.evaluation.publish {folder}` first.")
    facts = read_json(path)
    if facts.get("layout") != LAYOUT:
        raise UserError(f"{path} has layout {facts.get('layout')}, this version of sonotag reads layout {LAYOUT}.")
    if facts["tables"] != _table_digests(folder):
        raise UserError(f"The tables in {folder} do not match the digests in {path.name}: publish the folder again.")
    evidence = Evidence(
        Recipe.model_validate(facts["recipe"]),
        {Cell(**row["cell"]): Outcome(row["status"], row["reason"], "", row["seconds"]) for row in facts["outcomes"]},
        _predictions(read_table(folder / TEST)),
        _predictions(read_table(folder / VALIDATION)),
        facts["test_images"],
        [Constant(**row) for row in facts["constants"]],
        [InpaintingError(**row) for row in facts["inpaintings"]],
        [_training(row) for row in facts["trainings"]],
        frozen_scores_of(folder),
        {task: {int(image): source for image, source in of.items()} for task, of in facts.get("sources", {}).items()},
    )
    return Publication(evidence, [DatasetRow(**row) for row in facts["data_sets"]])


def _write_frozen(folder: Path, rows: pa.Table) -> None:
    path = FROZEN_SCORES.path(folder)
    if rows.num_rows:
        write_table(path, rows)
    else:
        path.unlink(missing_ok=True)


def _facts(publication: Publication) -> dict[str, Any]:
    evidence = publication.evidence
    return {
        "layout": LAYOUT,
        "recipe": evidence.recipe.shared,
        "data_sets": [asdict(row) for row in publication.data_sets],
        "test_images": dict(evidence.test_images),
        **({"sources": evidence.sources} if evidence.sources else {}),
        "outcomes": [
            {"cell": asdict(cell), "status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds}
            for cell, outcome in evidence.outcomes.items()
        ],
        "constants": [asdict(row) for row in evidence.constants],
        "inpaintings": [asdict(row) for row in evidence.inpaintings],
        "trainings": [asdict(row) | {"curves": _without_nan(row.curves)} for row in evidence.trainings],
    }


def _without_nan(curves: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    """The curves as JSON has them: null at epochs without the metric."""
    return {name: [None if math.isnan(value) else value for value in values] for name, values in curves.items()}


def _training(row: Mapping[str, Any]) -> Training:
    curves = {name: [math.nan if value is None else value for value in of] for name, of in row["curves"].items()}
    return Training(**{**row, "curves": named_as_today(curves)})


def _patient_numbers(tables: Sequence[pa.Table]) -> Mapping[str, Mapping[str, int]]:
    """The number of each patient, from 1, by task and name."""
    names: dict[str, set[str]] = {}
    for table in tables:
        for task, patient in zip(table["task"].to_pylist(), table["patient"].to_pylist(), strict=True):
            names.setdefault(task, set()).add(patient)
    return {task: {name: n for n, name in enumerate(np.unique(list(of_task)), 1)} for task, of_task in names.items()}


def _published(predictions: pa.Table, numbers: Mapping[str, Mapping[str, int]], with_distances: bool) -> pa.Table:
    parts = [PUBLISHED.empty_table()]
    for cell, rows in predictions_by_cell(predictions).items():
        patients = pa.array([numbers[cell.task][name] for name in rows["patient"].to_pylist()], pa.int64())
        distances = _distances(rows) if with_distances else pa.nulls(len(rows), PUBLISHED.field(DISTANCES).type)
        plain = rows.drop_columns([*_MASKS, "patient"])
        plain = plain.append_column(PUBLISHED.field("patient"), patients)
        parts.append(plain.append_column(PUBLISHED.field(DISTANCES), distances).cast(PUBLISHED))
    return pa.concat_tables(parts)


def _distances(rows: pa.Table) -> pa.Array:
    kind = PUBLISHED.field(DISTANCES).type
    if rows["kind"][0].as_py() == "ordinal":
        return pa.nulls(len(rows), kind)
    classes = len(rows["intersection"][0])
    return pa.array(hausdorff_distances(rows, classes).tolist(), kind)


def _refuse_another(folder: Path, recipe: Recipe) -> None:
    path = folder / EXPERIMENT
    held = read_json(path)["recipe"]["name"] if path.is_file() else recipe.name
    if held != recipe.name:
        raise UserError(f"{folder} holds the recipe {held}, not {recipe.name}: choose another folder.")


def _table_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each table; that of no bytes if one of predictions is missing. Not every experiment has the others."""
    frozen = FROZEN_SCORES.path(folder)
    paths = {name: folder / name for name in (TEST, VALIDATION, *([frozen.name] if frozen.is_file() else []))}
    return {
        name: hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest() for name, path in paths.items()
    }


def _predictions(rows: pa.Table) -> pa.Table:
    """The rows with patients as text, as tests of significance read them."""
    names = pc.utf8_lpad(rows["patient"].cast(pa.string()), _DIGITS, "0")
    return rows.set_column(rows.schema.get_field_index("patient"), "patient", names)
