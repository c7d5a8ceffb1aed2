"""The split of the store's patients, from its tables.

Not here: which side a patient is on (`splits`), who is linked to whom (`patient_links`, `leaks`).
"""

from dataclasses import dataclass

import pyarrow as pa

from pipeline.cohort.leak_review import cleared_pairs
from pipeline.cohort.leaks import similar_patients
from pipeline.cohort.patient_links import PatientSets, linked_patients, tied_patients
from pipeline.cohort.splits import known_sides, moved_to_validation, read_draws, split_patients
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES, NEAR_DUPLICATES, read_of_every_recipe


@dataclass(frozen=True)
class StoreSplit:
    """The split (PATIENT_SPLITS), the groups of patients that it keeps together, and who has moved to val."""

    splits: pa.Table
    links: PatientSets
    """Patients with a common image, equal or nearly equal."""
    ties: PatientSets
    """Patients with a common study."""
    moved: list[str]


def split_store(store: Store, validation_share: float) -> StoreSplit:
    """Split the patients of the index; those of the last split keep their side if they can."""
    index, previous = DICOM_INDEX.read(store.tables), known_sides(store)
    links, ties = linked_patients(read_of_every_recipe(IMAGES, store)), tied_patients(index)
    links += similar_patients(read_of_every_recipe(NEAR_DUPLICATES, store), cleared_pairs(store.private))
    draws = read_draws(store.private, set(index["patient"].to_pylist()))
    splits = split_patients(draws, previous, validation_share, links, ties)
    return StoreSplit(splits, links, ties, moved_to_validation(previous, splits))
