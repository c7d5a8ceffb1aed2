"""New images that would link patients on both sides of the split, as the last run left it."""

from collections import defaultdict
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import (
    PatientSets,
    canonical_patients,
    linked_patients,
    propagate_sides,
    resolve_conflicts,
    shared_rows,
    tied_patients,
    with_canonical_patients,
)
from pipeline.cohort.splits import known_sides, sides_of
from pipeline.dicom.rejections import Reason, Rejection, rejection_table
from pipeline.store import Store
from pipeline.tables import IMAGES, REJECTED_FRAMES, read_of_every_recipe


def reject_linking_images(
    images: pa.Table, rejected: pa.Table, index: pa.Table, earlier: Store
) -> tuple[pa.Table, pa.Table]:
    """`images` without those that would link both sides of the split, and `rejected` (frames) with them.

    `index` is DICOM_INDEX. The split and the images of every recipe are those of `earlier` runs, so that a patient
    keeps its side and an image that was there stays.
    """
    before = read_of_every_recipe(IMAGES, earlier)
    linking = across_split(images, sides_of(known_sides(earlier)), before, tied_patients(index))
    if not linking.num_rows:
        return images, rejected
    files = index["file_id"].take(pc.index_in(linking["sop_instance"], value_set=index["sop_instance"])).to_pylist()
    rejection = Rejection(Reason.DUPLICATE_ACROSS_SPLIT, "another patient's image with the same pixels was there first")
    names = (f"{file}:{frame}" for file, frame in zip(files, linking["frame"].to_pylist(), strict=True))
    more = rejection_table("frame", ((name, rejection) for name in names)).cast(REJECTED_FRAMES.schema)
    return exclude_images(images, linking), pa.concat_tables([rejected, more]).sort_by("id")


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
    shared = shared_rows(images, "source_digest")
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
