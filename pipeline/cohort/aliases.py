"""Under which pseudonyms the archive's patients are known, to find them in labelled sets that name no issuer.

Belongs here: a patient's other names. Not here: pseudonyms (`pipeline.privacy.identity`), the split.
"""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import tied_patients
from pipeline.files import read_table


def patient_aliases(private: Path, index: pa.Table, patients: Collection[str]) -> dict[str, frozenset[str]]:
    """Of each of `patients` (pseudonyms) all pseudonyms under which this person may be known, itself among them.

    They are those of the patients tied to it by a study in `index` (DICOM_INDEX), and of their numbers, whoever issued
    them (`number_pseudonym`): one number of two issuers counts as both persons.
    """
    groups = {patient: group for group in tied_patients(index) for patient in group}
    numbers = _numbers(private)
    known = {}
    for patient in set(patients):
        group = groups.get(patient, frozenset([patient]))
        known[patient] = group.union(numbers[one] for one in group if one in numbers)
    return known


def _numbers(private: Path) -> dict[str, str]:
    """The number of each patient of the last index that has one; empty where an older version wrote the table."""
    path = private / "patients.parquet"
    table = read_table(path) if path.is_file() else pa.table({})
    if "number" not in table.column_names:
        return {}
    table = table.filter(pc.is_valid(table["number"]))
    return dict(zip(table["patient"].to_pylist(), table["number"].to_pylist(), strict=True))
