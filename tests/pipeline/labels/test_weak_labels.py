"""Tags to probes and labels."""

import pyarrow as pa
import pytest

from pipeline.labels.study_groups import StudyGroups, read_study_groups, shipped_study_groups
from pipeline.labels.weak_labels import probe_of, unmapped_descriptions, weak_labels
from pipeline.recipe import Labels
from pipeline.tables import UNMAPPED_DESCRIPTIONS, weak_labels_table

SETTINGS = Labels()


@pytest.mark.parametrize(
    ("transducer_type", "transducer_data", "probe"),
    [
        # the paper's three
        (None, "SC6-1", "curvilinear"),
        (None, "SL10-2", "linear"),
        (None, "SL15-4\\UNUSED\\UNUSED", "linear"),
        # words
        ("LINEAR", None, "linear"),
        ("linear ", None, "linear"),
        ("CURVED LINEAR", None, "curvilinear"),
        ("CURVED_LINEAR", None, "curvilinear"),
        ("CONVEX", "", "curvilinear"),
        ("CURVED LINEAR", "C5-1\\UNUSED\\UNUSED", "curvilinear"),
        (None, "Curvilinear Array", "curvilinear"),
        # names
        (None, "C5-1\\UNUSED\\UNUSED", "curvilinear"),
        (None, "L14-6Ns", "linear"),
        (None, "C5_1\\\\", "curvilinear"),
        (None, "L12-5\\UNUSED\\UNUSED", "linear"),
        (None, "UNUSED\\L12-5", "linear"),
        # neither, or not known: missing
        ("SECTOR_PHASED", "S5-1\\UNUSED\\UNUSED", None),
        ("PHASED", "C5-1", None),
        ("VECTOR", None, None),
        ("VECTOR LINEAR", None, None),
        ("ENDOCAVITY CURVED LINEAR", None, None),
        ("LINEAR", "ENDOCAVITY", None),
        (None, "P4-2", None),
        (None, "S5-1", None),
        (None, "E8-5", None),
        (None, "C10-3v", None),
        (None, "C9-5ec", None),
        (None, "V10-4BP\\\\", None),
        (None, "X5-1", None),
        (None, "50.80.103.002\\\\", None),
        (None, "C", None),
        (None, "LOGIQ", None),
        ("MULTILINEARITY", None, None),
        ("UNUSED", "UNUSED\\UNUSED", None),
        ("", "", None),
        (None, None, None),
    ],
)
def test_the_probe_is_read_and_never_guessed(transducer_type, transducer_data, probe):
    assert probe_of(transducer_type, transducer_data, SETTINGS) == probe


def test_a_recipe_can_name_a_probe_of_its_own():
    settings = Labels(probe_models={"X5-1": "linear", "v10-4bp": "curvilinear"})
    assert probe_of(None, "X5-1", settings) == "linear"
    assert probe_of(None, "V10-4BP\\\\", settings) == "curvilinear"


def records(*rows):
    """An index of (description, transducer type, patient) rows."""
    return pa.table(
        {
            "sop_instance": pa.array([f"{number:032x}" for number in range(len(rows))]),
            "study_description": pa.array([row[0] for row in rows], pa.string()),
            "transducer_type": pa.array([row[1] for row in rows], pa.string()),
            "transducer_data": pa.array([None] * len(rows), pa.string()),
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


def test_unmapped_descriptions_are_counted_by_images_and_patients():
    index = records(
        ("US NEW", None, "a"), ("us  new", None, "b"), ("US NEW", None, "b"), ("US OLD", None, "a"), (None, None, "c"),
        ("", None, "d"), ("US NONE", None, "d"),
    )  # fmt: skip
    rows = unmapped_descriptions(index, StudyGroups({"US OLD": ("liver",), "US NONE": ()}))
    assert rows.schema.equals(UNMAPPED_DESCRIPTIONS.schema)
    assert rows.to_pylist() == [
        {"study_description": "US NEW", "images": 3, "patients": 2},
        {"study_description": "", "images": 2, "patients": 2},
    ]
