"""New images that would link patients on both sides of the split, as the last run left it."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cohort.patient_links import across_split, exclude_images, tied_patients
from pipeline.cohort.splits import known_sides, sides_of
from pipeline.dicom.rejections import Reason, Rejection, rejection_table
from pipeline.store import Store
from pipeline.tables import DICOM_INDEX, IMAGES, REJECTED_FRAMES, read_of_every_recipe


def reject_linking_images(images: pa.Table, rejected: pa.Table, store: Store) -> tuple[pa.Table, pa.Table]:
    """`images` without those that would link both sides of the split, and `rejected` (frames) with them.

    This looks back on purpose: the split and the images of every recipe are those of the last run, so that a patient
    keeps its side and an image that was there stays.
    """
    index = DICOM_INDEX.read(store.tables)
    earlier = read_of_every_recipe(IMAGES, store)
    linking = across_split(images, sides_of(known_sides(store)), earlier, tied_patients(index))
    if not linking.num_rows:
        return images, rejected
    files = index["file_id"].take(pc.index_in(linking["sop_instance"], value_set=index["sop_instance"])).to_pylist()
    rejection = Rejection(Reason.DUPLICATE_ACROSS_SPLIT, "another patient's image with the same pixels was there first")
    names = (f"{file}:{frame}" for file, frame in zip(files, linking["frame"].to_pylist(), strict=True))
    more = rejection_table("frame", ((name, rejection) for name in names)).cast(REJECTED_FRAMES.schema)
    return exclude_images(images, linking), pa.concat_tables([rejected, more]).sort_by("id")
