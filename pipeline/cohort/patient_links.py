"""Links between patients: those that share a study or an image must be on one side of the split.

Ties (a shared study or series) mean one person under several pseudonyms; links (a shared image) may be two persons.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

PatientSets = list[frozenset[str]]
"""Sets of two or more patients that share an image or a study."""


def linked_patients(images: pa.Table) -> PatientSets:
    """The sets of patients that share the pixels of an image (equal `source_digest` of IMAGES), sorted."""
    return _sharing(images, "source_digest")


def tied_patients(index: pa.Table) -> PatientSets:
    """The sets of patients (pseudonyms) of `index` (DICOM_INDEX) that share a study or a series, disjoint and sorted.

    Files of one study can name its patient differently, which gives one person several pseudonyms.
    """
    return sharing_patients(index, ("study", "series"))


def sharing_patients(table: pa.Table, columns: Sequence[str]) -> PatientSets:
    """The sets of patients that share a value of one of `columns`, directly or through others, disjoint and sorted."""
    return merge_overlapping([group for column in columns for group in _sharing(table, column)])


def canonical_patients(ties: PatientSets) -> dict[str, str]:
    """The first patient of each group of `ties` (disjoint) as the representative of all its patients."""
    return {patient: min(group) for group in ties for patient in group}


def _sharing(table: pa.Table, column: str) -> PatientSets:
    """The sets of patients that share a value of `column` other than null, sorted."""
    shared = shared_rows(table, column)
    patients: dict[str, set[str]] = defaultdict(set)
    for value, patient in zip(shared[column].to_pylist(), shared["patient"].to_pylist(), strict=True):
        patients[value].add(patient)
    return sorted({frozenset(group) for group in patients.values()}, key=sorted)


def shared_rows(table: pa.Table, column: str) -> pa.Table:
    """The rows whose value in `column` occurs with at least two patients."""
    counts = table.select([column, "patient"]).group_by(column)
    counts = counts.aggregate([("patient", "count_distinct")])
    values = counts[column].filter(pc.greater(counts["patient_count_distinct"], 1)).drop_null()
    return table.filter(pc.is_in(table[column], value_set=values))


def propagate_sides(groups: PatientSets, sides: Mapping[str, str]) -> dict[str, str]:
    """`sides` extended to the patients that `groups` link to them, directly or through others.

    A new patient that is linked to both sides gets the nearer one; of two equally near ones, train.
    """
    neighbours: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        for patient in group:
            neighbours[patient] |= group - {patient}
    spread = dict(sides)
    known = [patient for patient in neighbours if patient in sides]
    pending = deque(sorted(known, key=lambda patient: (sides[patient], patient)))
    while pending:
        patient = pending.popleft()
        for other in sorted(neighbours[patient]):
            if other not in spread:
                spread[other] = spread[patient]
                pending.append(other)
    return spread


def resolve_conflicts(sides: Mapping[str, str], ties: PatientSets, links: PatientSets) -> dict[str, str]:
    """`sides` after moving to val every patient tied or linked, also through others, to ties on both sides.

    `ties` (`tied_patients`) join pseudonyms of one person, so they override earlier sides.
    """
    torn = {patient for group in ties if len({sides[p] for p in group if p in sides}) > 1 for patient in group}
    if not torn:
        return dict(sides)
    moving = {patient for group in merge_overlapping([*ties, *links]) if group & torn for patient in group}
    return {**sides, **dict.fromkeys(moving, "val")}


def merge_overlapping(groups: PatientSets) -> PatientSets:
    """The connected sets of patients: overlapping `groups` merged."""
    parents: dict[str, str] = {}

    def root(patient: str) -> str:
        while (parent := parents.setdefault(patient, patient)) != patient:
            parents[patient] = patient = parents[parent]  # path halving
        return patient

    for group in groups:
        first, *others = (root(patient) for patient in group)
        parents.update(dict.fromkeys(others, first))
    merged: dict[str, set[str]] = defaultdict(set)
    for patient in parents:
        merged[root(patient)].add(patient)
    return sorted((frozenset(group) for group in merged.values()), key=sorted)


def with_canonical_patients(groups: PatientSets, one: Mapping[str, str]) -> PatientSets:
    """`groups` with each patient replaced by its entry in `one` (`canonical_patients`); groups of one are left out."""
    named = {frozenset(one.get(patient, patient) for patient in group) for group in groups}
    return sorted((group for group in named if len(group) > 1), key=sorted)
