"""Patients to train or val (paper section 4.2.2).

Belongs here: the split and what keeps it still when the archive grows. Not here: images, tasks' own splits.
"""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.files import read_table
from pipeline.tables import PATIENT_SPLITS


def read_draws(private: Path, patients: Collection[str]) -> pa.Table:
    """Columns `patient` and `draw` in [0, 1) of the pseudonyms `patients`, from the private table of the last index.

    A draw depends on the patient alone, not on the pseudonym key. Raises `UserError` where one is not there.
    """
    path = private / "patients.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist yet: run the job `ingest` first.")
    draws = read_table(path)
    known = draws.filter(pc.is_in(draws["patient"], value_set=pa.array(sorted(patients), pa.string())))
    if known.num_rows != len(set(patients)):
        raise UserError(f"{path} does not hold every patient of the index: run the job `ingest` again.")
    return known


def split_patients(draws: pa.Table, previous: pa.Table | None, validation_share: float) -> pa.Table:
    """Each patient's side (schema PATIENT_SPLITS), sorted by patient.

    round(validation_share x patients) are to be val, at least one patient on either side where there are two. A
    patient of `previous` keeps its side; the others fill up val in the order of their draws, lowest first.
    """
    order = draws.sort_by([("draw", "ascending"), ("patient", "ascending")])["patient"].to_pylist()
    kept = (
        {}
        if previous is None
        else dict(zip(*(previous[name].to_pylist() for name in ("patient", "split")), strict=True))
    )
    sides = {patient: kept[patient] for patient in order if patient in kept}
    wanted = min(max(round(validation_share * len(order)), 1), len(order) - 1)
    lacking = wanted - list(sides.values()).count("val")
    new = [patient for patient in order if patient not in kept]
    sides |= {patient: "val" if place < lacking else "train" for place, patient in enumerate(new)}
    rows = [{"patient": patient, "split": sides[patient]} for patient in sorted(sides)]
    return pa.Table.from_pylist(rows, schema=PATIENT_SPLITS.schema)
