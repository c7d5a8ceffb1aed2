"""The pretraining pool: its images, their order and checks of the split."""

import pyarrow as pa
import pytest

from pipeline.cohort.pool import (
    label_balance,
    patients_on_both_sides,
    pool_shortage,
    pretraining_pool,
    rare_labels,
    studies_on_both_sides,
)
from pipeline.errors import UserError
from pipeline.labels.study_groups import StudyGroups
from pipeline.labels.weak_labels import weak_labels
from pipeline.recipe.labels import Labels
from pipeline.tables import (
    IMAGES,
    PATIENT_SPLITS,
    image_digest,
    label_digest,
    pretraining_pool_table,
    refuse_incomplete,
)

EXCLUDE, MASK = Labels(), Labels(missing="mask")
GROUPS = StudyGroups({"US LIVER": ("liver",), "US CHEST": ("chest",), "US NONE": ()})
RECORDS = {  # instance: description, probe, patient
    "aa": ("US LIVER", "LINEAR", "p1"),
    "bb": ("US CHEST", "CONVEX", "p2"),
    "cc": ("US NEW", "CONVEX", "p1"),
    "dd": ("US NONE", "LINEAR", "p2"),
    "ee": ("US LIVER", None, "p2"),
}


def images():
    """Two frames of the first record, one of the others, in no order."""
    rows = [
        {"sop_instance": instance, "frame": frame, "patient": RECORDS[instance][2], "shard": "part-00.parquet",
         "position": 0, "image_digest": f"digest {instance} {frame}",
         "source_digest": f"source {instance} {frame}", "cropped_by": "whole"}
        for instance, frame in [("ee", 0), ("aa", 5), ("cc", 0), ("aa", 1), ("bb", 0), ("dd", 0)]
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=IMAGES.schema)


def labels(settings=EXCLUDE, groups=GROUPS):
    columns = list(zip(*RECORDS.values(), strict=True))
    index = pa.table(
        {
            "sop_instance": list(RECORDS),
            "study_description": columns[0],
            "transducer_type": columns[1],
            "transducer_data": pa.array([None] * len(RECORDS), pa.string()),
            "manufacturer": pa.array([None] * len(RECORDS), pa.string()),
        }
    )
    return weak_labels(index, groups, settings)


def splits(**sides):
    rows = [{"patient": patient, "split": side} for patient, side in ({"p1": "train", "p2": "val"} | sides).items()]
    return pa.Table.from_pylist(rows, schema=PATIENT_SPLITS.schema)


def named(pool):
    return list(zip(pool["sop_instance"].to_pylist(), pool["frame"].to_pylist(), strict=True))


def test_only_labelled_images_are_taken_and_every_frame_of_them():
    pool = pretraining_pool(images(), labels(), splits(), EXCLUDE)
    assert named(pool) == [("aa", 1), ("aa", 5), ("bb", 0)]
    assert pool["split"].to_pylist() == ["train", "train", "val"]
    assert pool["liver"].to_pylist() == [1, 1, 0] and pool["curvilinear"].to_pylist() == [0, 0, 1]
    assert pool.schema.equals(pretraining_pool_table(EXCLUDE.names).schema)


def test_with_missing_mask_unknown_labels_are_null_and_records_in_no_group_are_excluded():
    pool = pretraining_pool(images(), labels(), splits(), MASK)
    assert named(pool) == [("aa", 1), ("aa", 5), ("bb", 0), ("cc", 0), ("ee", 0)]
    assert pool["liver"].to_pylist() == [1, 1, 0, None, 1]
    assert pool["curvilinear"].to_pylist() == [0, 0, 1, 1, None]


def shortage(splits, groups=GROUPS):
    pool = pretraining_pool(images(), labels(groups=groups), splits, EXCLUDE)
    return pool, pool_shortage(pool, images(), labels(groups=groups))


def test_a_pool_with_both_sides_lacks_nothing():
    pool, said = shortage(splits())
    assert said == ""
    refuse_incomplete(pool)


def test_a_pool_without_a_side_is_returned_described_and_refused():
    pool, said = shortage(splits(p2="train"))
    assert pool.num_rows == 3
    assert all(part in said for part in ("no validation image", "3 labelled", "labels.missing"))
    with pytest.raises(UserError, match="no validation image"):
        refuse_incomplete(pool)


def test_without_mapped_descriptions_the_pool_is_empty_and_the_worklist_is_named():
    pool, said = shortage(splits(), StudyGroups({}))
    assert pool.num_rows == 0
    assert pool.schema.equals(pretraining_pool_table(EXCLUDE.names).schema)
    assert all(part in said for part in ("6 unmapped_description", "unmapped_descriptions.csv"))
    with pytest.raises(UserError, match=r"no training .*no validation "):
        refuse_incomplete(pool)


def test_a_pool_of_no_image_at_all_is_described():
    pool = pretraining_pool(images().slice(0, 0), labels(), splits(), EXCLUDE)
    said = pool_shortage(pool, images().slice(0, 0), labels())
    assert "of 0 images" in said and "quarantine" in said


def test_an_image_without_a_row_in_another_table_raises_a_user_error():
    with pytest.raises(UserError, match=r"\d images .* patient "):
        pretraining_pool(images(), labels(), splits().slice(1), EXCLUDE)


def test_a_patient_on_both_sides_is_found():
    pool = pretraining_pool(images(), labels(), splits(), EXCLUDE)
    assert patients_on_both_sides(pool) == []
    torn = pool.set_column(pool.column_names.index("split"), "split", pa.array(["train", "val", "val"]))
    assert patients_on_both_sides(torn) == ["p1"]


def test_a_study_or_a_series_on_both_sides_is_found():
    def found(studies, series):
        names = ["i1", "i2", "i3", "i4"]
        pool = pa.table({"sop_instance": names, "split": ["train", "train", "val", "val"]})
        columns = {"sop_instance": names, "study": studies, "series": series}
        index = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        return studies_on_both_sides(pool, index.take([2, 0, 3, 1]))

    assert found(["s1", "s1", "s2", "s2"], ["r1", "r2", "r3", "r3"]) == []
    assert found(["s1", "s2", "s2", "s2"], ["r1", "r2", "r3", "r3"]) == ["s2"]
    assert found([None, "s1", "s2", None], ["r1", "r2", "r3", "r1"]) == ["r1"]
    assert found([None] * 4, [None] * 4) == []


def test_a_new_mapping_changes_the_label_digest_alone():
    one = pretraining_pool(images(), labels(), splits(), EXCLUDE)
    other = StudyGroups({"US LIVER": ("liver", "abdomen"), "US CHEST": ("chest",), "US NONE": ()})
    two = pretraining_pool(images(), labels(groups=other), splits(), EXCLUDE)
    assert image_digest(one) == image_digest(two) and label_digest(one) != label_digest(two)


def test_other_pixels_or_another_split_change_the_image_digest_alone():
    one = pretraining_pool(images(), labels(), splits(), EXCLUDE)
    swapped = pretraining_pool(images(), labels(), splits(p1="val", p2="train"), EXCLUDE)
    digests = pa.array([text.upper() for text in images()["image_digest"].to_pylist()])
    changed = images().set_column(5, IMAGES.schema.field("image_digest"), digests)
    two = pretraining_pool(changed, labels(), splits(), EXCLUDE)
    assert len({image_digest(pool) for pool in (one, swapped, two)}) == 3
    assert len({label_digest(pool) for pool in (one, swapped, two)}) == 1


def test_balance_counts_patients_with_and_without_a_label_on_either_side():
    rows = [  # patient, side, liver, chest
        ("p1", "train", 1, 0),
        ("p1", "train", 0, 0),
        ("p2", "train", 1, None),
        ("p3", "val", 0, 1),
        ("p3", "val", 0, 1),
    ]
    pool = pa.table(dict(zip(("patient", "split", "liver", "chest"), map(list, zip(*rows, strict=True)), strict=True)))
    assert label_balance(pool, ("liver", "chest")).to_pylist() == [
        {"label": "liver", "train with": 2, "train without": 1, "val with": 0, "val without": 1},
        {"label": "chest", "train with": 0, "train without": 1, "val with": 1, "val without": 0},
    ]


def test_labels_of_few_patients_are_rare():
    row = {"train with": 5, "train without": 5, "val with": 1, "val without": 1}
    rows = [{"label": "enough", **row}]
    rows += [{"label": name, **row, name: row[name] - 1} for name in row]
    assert rare_labels(pa.Table.from_pylist(rows)) == ["train with", "train without", "val with", "val without"]
