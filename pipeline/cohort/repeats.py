"""Equal pixels under several names: patients that share an image share their side of the split.

Belongs here: who is linked to whom, and images that would link both sides. Not here: near-duplicates, the split's size.
"""

from collections import defaultdict, deque
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

Groups = list[frozenset[str]]
"""Patients that share one picture, two or more."""


def linked_patients(images: pa.Table) -> Groups:
    """The sets of patients that share the pixels of an image (equal `source_digest` of IMAGES), sorted."""
    shared = _shared(images)
    patients: dict[str, set[str]] = defaultdict(set)
    for digest, patient in zip(shared["source_digest"].to_pylist(), shared["patient"].to_pylist(), strict=True):
        patients[digest].add(patient)
    return sorted((frozenset(group) for group in patients.values()), key=sorted)


def _shared(images: pa.Table) -> pa.Table:
    """The images whose pixels occur with two patients or more."""
    counts = images.select(["source_digest", "patient"]).group_by("source_digest")
    counts = counts.aggregate([("patient", "count_distinct")])
    digests = counts["source_digest"].filter(pc.greater(counts["patient_count_distinct"], 1))
    return images.filter(pc.is_in(images["source_digest"], value_set=digests))


def spread_sides(groups: Groups, sides: Mapping[str, str]) -> dict[str, str]:
    """`sides` of patients, and those of the patients that are linked to them, directly or through others.

    A new patient that is linked to both sides takes the nearer one, of two equally near ones train.
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


def across_split(images: pa.Table, sides: Mapping[str, str], earlier: pa.Table) -> pa.Table:
    """The images of `images` (IMAGES) that must go, since their pixels belong to a patient of the other side too.

    `sides` are those that patients had before, `earlier` (IMAGES) the images that were there before: of equal
    pictures on both sides the earlier ones stay, without any those in train.
    """
    spread = spread_sides(linked_patients(images), sides)
    shared = _shared(images)
    there = _keys(earlier.filter(pc.is_in(earlier["source_digest"], value_set=shared["source_digest"])))
    groups: dict[str, list[tuple[_Key, str | None]]] = defaultdict(list)
    for digest, patient, key in zip(
        shared["source_digest"].to_pylist(), shared["patient"].to_pylist(), _keys(shared), strict=True
    ):
        groups[digest].append((key, spread.get(patient)))
    gone: set[_Key] = set()
    for group in groups.values():
        if len({side for _, side in group}) > 1:
            stays = next((side for key, side in group if key in there), "train")
            gone |= {key for key, side in group if side != stays}
    return shared.filter(pa.array([key in gone for key in _keys(shared)], pa.bool_()))


_Key = tuple[str, int]
"""SOP instance and frame of an image."""


def _keys(images: pa.Table) -> list[_Key]:
    return list(zip(images["sop_instance"].to_pylist(), images["frame"].to_pylist(), strict=True))


def without(images: pa.Table, others: pa.Table) -> pa.Table:
    """`images` without those of `others` (both IMAGES)."""
    gone = set(_keys(others))
    return images.filter(pa.array([key not in gone for key in _keys(images)], pa.bool_()))


def linked_groups(groups: Groups) -> Groups:
    """The sets of patients that are linked, directly or through others; each patient is in one at most."""
    merged: list[set[str]] = []
    for group in groups:
        touching = [other for other in merged if other & group]
        merged = [other for other in merged if not other & group] + [set(group).union(*touching)]
    return sorted((frozenset(group) for group in merged), key=sorted)
