"""The labels of all sources, their status, and unmapped descriptions."""

import pyarrow as pa

from pipeline.labels.study_groups import StudyGroups, read_study_groups, shipped_study_groups
from pipeline.labels.weak_labels import is_label_space, unmapped_descriptions, weak_labels
from pipeline.recipe.labels import Labels
from pipeline.tables import UNMAPPED_DESCRIPTIONS, weak_labels_table

SETTINGS = Labels()


def records(*rows):
    """An index of (description, transducer type, patient) rows."""
    return pa.table(
        {
            "sop_instance": pa.array([f"{number:032x}" for number in range(len(rows))]),
            "study_description": pa.array([row[0] for row in rows], pa.string()),
            "described_by": pa.array([row[0] and "StudyDescription" for row in rows], pa.string()),
            "transducer_type": pa.array([row[1] for row in rows], pa.string()),
            "transducer_data": pa.array([None] * len(rows), pa.string()),
            "manufacturer": pa.array([None] * len(rows), pa.string()),
            "patient": pa.array([row[2] for row in rows], pa.string()),
        }
    )


def test_every_combination_of_known_and_unknown_has_its_status_and_nulls():
    groups = StudyGroups({"US BIOPSY LIVER FOCAL": ("liver", "abdomen"), "US FETAL": ()})
    index = records(
        ("us biopsy  liver focal", "LINEAR", "a"),
        ("US BIOPSY LIVER FOCAL", None, "a"),
        ("US FETAL", "LINEAR", "b"),
        ("US FETAL", None, "b"),
        ("US NEW", "LINEAR", "c"),
        (None, None, "c"),
    )
    rows = weak_labels(index, groups, SETTINGS)
    assert rows.schema.equals(weak_labels_table(SETTINGS.names).schema)
    known = {"liver": 1, "abdomen": 1} | dict.fromkeys(
        ("kidney", "thyroid", "chest", "soft tissue", "nodule", "drainage"), 0
    )
    none, blank = dict.fromkeys(SETTINGS.groups, 0), dict.fromkeys(SETTINGS.groups)
    linear, unknown = {"linear": 1, "curvilinear": 0}, {"linear": None, "curvilinear": None}
    expected = [
        {"status": "labelled", **known, **linear},
        {"status": "unknown_probe", **known, **unknown},
        {"status": "in_no_group", **none, **linear},
        {"status": "in_no_group", **none, **unknown},
        {"status": "unmapped_description", **blank, **linear},
        {"status": "unmapped_description", **blank, **unknown},
    ]
    assert [
        {name: value for name, value in row.items() if name != "sop_instance"} for row in rows.to_pylist()
    ] == expected
    assert rows["sop_instance"].equals(index["sop_instance"])


def test_label_columns_are_the_groups_and_then_the_probes():
    groups = read_study_groups(shipped_study_groups(), SETTINGS.groups)
    assert weak_labels(records(), groups, SETTINGS).column_names[2:] == [*SETTINGS.groups, "linear", "curvilinear"]


def test_another_order_or_another_value_is_another_label_space():
    labels = weak_labels(records(("US BIOPSY LIVER FOCAL", None, "a")), StudyGroups({}), SETTINGS)
    assert is_label_space(labels, SETTINGS)
    names = ["sop_instance", "status", *SETTINGS.names]
    every_value = pa.concat_tables([labels] * 3).set_column(2, names[2], [pa.array([0, 1, None], pa.int8())])
    assert is_label_space(every_value, SETTINGS)
    assert not is_label_space(labels.select([*names[:2], *reversed(names[2:])]), SETTINGS)
    assert not is_label_space(labels.set_column(2, names[2], [pa.array([2], pa.int8())]), SETTINGS)


def test_unmapped_descriptions_are_counted_by_images_and_patients():
    index = records(
        ("US NEW", None, "a"), ("us  new", None, "b"), ("US NEW", None, "b"), ("US OLD", None, "a"), (None, None, "c"),
        ("", None, "d"), ("US NONE", None, "d"),
    )  # fmt: skip
    rows = unmapped_descriptions(index, StudyGroups({"US OLD": ("liver",), "US NONE": ()}))
    assert rows.schema.equals(UNMAPPED_DESCRIPTIONS.schema)
    assert rows.select(["study_description", "images", "patients", "described_by"]).to_pylist() == [
        {"study_description": "US NEW", "images": 3, "patients": 2, "described_by": None},
        {"study_description": "", "images": 2, "patients": 2, "described_by": None},
    ]
