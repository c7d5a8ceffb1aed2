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
    shared = _shared(table, column)
    patients: dict[str, set[str]] = defaultdict(set)
    for value, patient in zip(shared[column].to_pylist(), shared["patient"].to_pylist(), strict=True):
        patients[value].add(patient)
    return sorted({frozenset(group) for group in patients.values()}, key=sorted)


def _shared(table: pa.Table, column: str) -> pa.Table:
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


def across_split(
    images: pa.Table, sides: Mapping[str, str], earlier: pa.Table, ties: PatientSets | None = None
) -> pa.Table:
    """The images of `images` (IMAGES) to exclude, since a patient of the other side has the same pixels.

    `sides` and `earlier` (IMAGES) are the sides and images of the previous run: of equal images on both sides the
    earlier ones stay; if there are none, those in train. Tied patients (`ties`) count as one.
    """
    one = canonical_patients(ties or [])
    remaining = _select(earlier, set(_keys(images)))
    before = resolve_conflicts(sides, ties or [], linked_patients(remaining))
    links = with_canonical_patients(linked_patients(images), one)
    spread = propagate_sides(links, {one.get(patient, patient): side for patient, side in before.items()})
    shared = _shared(images, "source_digest")
    known = set(_keys(earlier.filter(pc.is_in(earlier["source_digest"], value_set=shared["source_digest"]))))
    equal: dict[str, list[tuple[_Key, str | None]]] = defaultdict(list)
    columns = (shared[name].to_pylist() for name in ("source_digest", "patient"))
    for digest, patient, key in zip(*columns, _keys(shared), strict=True):
        equal[digest].append((key, spread.get(one.get(patient, patient))))
    excluded: set[_Key] = set()
    for copies in equal.values():
        stays = next((side for key, side in copies if key in known), "train")
        if len({side for _, side in copies}) > 1:
            excluded |= {key for key, side in copies if side != stays}
    return _select(shared, excluded)


_Key = tuple[str, int]
"""SOP instance and frame of an image."""


def _keys(images: pa.Table) -> list[_Key]:
    return list(zip(images["sop_instance"].to_pylist(), images["frame"].to_pylist(), strict=True))


def _select(images: pa.Table, keys: set[_Key]) -> pa.Table:
    return images.filter(pa.array([key in keys for key in _keys(images)], pa.bool_()))


def exclude_images(images: pa.Table, others: pa.Table) -> pa.Table:
    """`images` without the images of `others` (both IMAGES)."""
    return _select(images, set(_keys(images)) - set(_keys(others)))


def merge_overlapping(groups: PatientSets) -> PatientSets:
    """The connected sets of patients: `groups` merged where they overlap."""
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
