"""The worklist of doubtful labels: its rows, and its CSV, which reads back as reviewed studies."""

import csv

import numpy as np
import pyarrow as pa

from pipeline.labels.audit import Doubts
from pipeline.labels.audit_worklist import audited_images, doubtful_labels, worklist_csv
from pipeline.labels.reviewed_studies import Decision, reviewed_studies
from pipeline.recipe.labels import Labels, StudyGroupsSource
from pipeline.tables import DOUBTFUL_LABELS

GROUPS = ("liver", "kidney", "chest")
IMAGES = pa.table(
    {"sop_instance": ["i1", "i2", "i3", "i4", "i5", "i6"], "patient": ["p1", "p1", "p2", "p3", "p4", "p5"]}
)
INDEX = pa.table(
    {
        "sop_instance": ["i1", "i2", "i3", "i4", "i5", "i6"],
        "study": ["s1", "s1", "s2", "s3", None, "s5"],
        "study_description": pa.array(["=US LIVER", "=US LIVER", None, "US NONE", "US LIVER", "US NEW"], pa.string()),
    }
)
LABELS = pa.table(
    {
        "sop_instance": ["i6", "i5", "i4", "i3", "i2", "i1"],
        "status": ["unmapped_description", "labelled", "in_no_group", "unknown_probe", "labelled", "labelled"],
        "liver": pa.array([None, 1, 0, 0, 1, 1], pa.int8()),
        "kidney": pa.array([None, 0, 0, 1, 0, 0], pa.int8()),
        "chest": pa.array([None, 0, 0, 0, 0, 0], pa.int8()),
    }
)
FOUND = Doubts(
    ["s1", "s2", "s9"],
    np.array([[0.2, 0.9, 0.1], [0.0, 0.4444, 0.1], [0.5, 0.5, 0.5]]),
    np.array([[0.3, 0.5, -1.0], [-1.0, 0.9, np.nan], [0.1, -1, -1]]),
    np.array([True, True, False]),
)


def rows(reviewed=()):
    audited = audited_images(IMAGES, LABELS, INDEX, GROUPS)
    return doubtful_labels(FOUND, audited, INDEX, GROUPS, reviewed)


def test_images_in_no_group_unmapped_or_without_a_study_are_not_audited():
    audited = audited_images(IMAGES, LABELS, INDEX, GROUPS)
    assert audited["sop_instance"].to_pylist() == ["i1", "i2", "i3"]
    assert audited["study"].to_pylist() == ["s1", "s1", "s2"]
    assert [audited[group].to_pylist() for group in GROUPS] == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_the_highest_score_is_first_and_groups_in_doubt_are_reversed():
    found = rows()
    assert found.schema.equals(DOUBTFUL_LABELS.schema)
    first, second = found.to_pylist()
    assert first == {
        "study": "s2", "patient": "p2", "in_doubt": "kidney", "tags_say": "kidney", "pixels_say": "",
        "probability": 0.444, "images": 1, "study_description": None, "score": 0.9,
    }  # fmt: skip
    assert second == {
        "study": "s1", "patient": "p1", "in_doubt": "kidney, liver", "tags_say": "liver", "pixels_say": "kidney",
        "probability": 0.9, "images": 2, "study_description": "=US LIVER", "score": 0.8,
    }  # fmt: skip


def test_reviewed_studies_leave_the_list():
    assert rows({"s2"})["study"].to_pylist() == ["s1"]


def test_the_csv_as_written_decides_nothing_and_once_filled_in_is_read(tmp_path):
    settings = Labels(sources=(StudyGroupsSource(groups=GROUPS),))
    path = tmp_path / "doubtful_labels.csv"
    path.write_text(worklist_csv(rows()), encoding="utf-8")
    assert reviewed_studies(tmp_path, settings).decisions == {}
    first, second = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    assert (first["groups"], second["groups"]) == ("?", "? kidney")
    assert second["study_description"] == "'=US LIVER"  # no formula
    filled = [{**first, "groups": ""}, {**second, "groups": "kidney", "reviewed_on": "2026-11-30", "shape": "linear"}]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        writer.writerows(filled)
    decided = {"s2": Decision(()), "s1": Decision(("kidney",), "linear")}
    assert reviewed_studies(tmp_path, settings).decisions == decided
    assert reviewed_studies(tmp_path, settings).with_groups == {"s1", "s2"}
