"""The pseudonyms of each person, to recognize the archive's patients in labelled sets without issuers of numbers."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import tied_patients
from pipeline.files import read_table
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX


def patient_aliases(private: Path, index: pa.Table, patients: Collection[str]) -> dict[str, frozenset[str]]:
    """All pseudonyms of the person behind each of `patients` (pseudonyms), itself included.

    They are those of the patients that share a study in `index` (DICOM_INDEX), and those of their numbers without
    issuer (`number_pseudonym`): one number of two issuers counts as both persons.
    """
    groups = {patient: group for group in tied_patients(index) for patient in group}
    numbers = _numbers(private)
    found = {patient: groups.get(patient, frozenset([patient])) for patient in patients}
    return {patient: group.union(numbers[one] for one in group if one in numbers) for patient, group in found.items()}


def known_names(patients: Collection[str], earlier: Store) -> frozenset[str]:
    """All pseudonyms of `patients` in the archive, as far as `earlier` runs read it, and `patients` themselves."""
    if not DICOM_INDEX.path(earlier.tables).exists():
        return frozenset(patients)
    return frozenset().union(*patient_aliases(earlier.private, DICOM_INDEX.read(earlier.tables), patients).values())


def sides_by_name(pool: pa.Table, index: pa.Table, private: Path) -> dict[str, str]:
    """The side of each patient of the pool, and of its other names; of a name of two patients, train if one is."""
    own = dict(zip(pool["patient"].to_pylist(), pool["split"].to_pylist(), strict=True))
    names = patient_aliases(private, index, own)
    others = {
        name: side
        for wanted in ("val", "train")
        for patient, side in own.items()
        if side == wanted
        for name in names[patient]
    }
    return others | own


def _numbers(private: Path) -> dict[str, str]:
    """The pseudonym of each patient's number in the last index; empty if an older version wrote the table."""
    path = private / "patients.parquet"
    table = read_table(path) if path.is_file() else pa.table({})
    if "number" not in table.column_names:
        return {}
    table = table.filter(pc.is_valid(table["number"]))
    return dict(zip(table["patient"].to_pylist(), table["number"].to_pylist(), strict=True))
