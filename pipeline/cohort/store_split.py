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
from pipeline.tables import IMAGES, NEAR_DUPLICATES, read_of_every_recipe


@dataclass(frozen=True)
class StoreSplit:
    """The split (PATIENT_SPLITS), the groups of patients that it keeps together, and who has moved to val."""

    splits: pa.Table
    links: PatientSets
    """Patients with a common image, equal or nearly equal."""
    ties: PatientSets
    """Patients with a common study."""
    moved: list[str]


def split_store(index: pa.Table, validation_share: float, earlier: Store) -> StoreSplit:
    """Split the patients of `index` (DICOM_INDEX); those of the last split keep their side if they can.

    The last split, and the images and near-duplicates of every recipe, are those of `earlier` runs.
    """
    previous, ties = known_sides(earlier), tied_patients(index)
    links = linked_patients(read_of_every_recipe(IMAGES, earlier))
    links += similar_patients(read_of_every_recipe(NEAR_DUPLICATES, earlier), cleared_pairs(earlier.private))
    draws = read_draws(earlier.private, set(index["patient"].to_pylist()))
    splits = split_patients(draws, previous, validation_share, links, ties)
    return StoreSplit(splits, links, ties, moved_to_validation(previous, splits))
