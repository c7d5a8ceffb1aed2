"""Values and ranges of header fields to labels: listed and other values, edges of ranges."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.labels.probe_tables import Probes
from pipeline.labels.sources import labels_from, status_meanings
from pipeline.labels.study_groups import StudyGroups
from pipeline.labels.weak_labels import weak_labels
from pipeline.recipe.labels import BinsSource, Labels, ProbeSource, StudyGroupsSource, ValuesSource

SEQUENCE = ValuesSource(
    field="ScanningSequence", labels={"spin echo": ("SE",), "gradient echo": ("GR",), "any echo": ("se", " gr ")}
)
THICKNESS = BinsSource(field="SliceThickness", edges=(1.0, 2.5, 5.0), labels=("a", "b", "c", "d"))


def rows(source, column, values, kind):
    table = labels_from(source, pa.table({column: pa.array(values, kind)}), None, Probes())
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SE", (None, 1, 0, 1)),
        (" se", (None, 1, 0, 1)),
        ("GR\\IR", (None, 0, 1, 1)),
        ("IR\\GR\\SE", (None, 1, 1, 1)),
        ("S E", ("unknown_scanning_sequence", None, None, None)),
        ("IR", ("unknown_scanning_sequence", None, None, None)),
        ("SE GR", ("unknown_scanning_sequence", None, None, None)),
        ("", ("unknown_scanning_sequence", None, None, None)),
        ("\\", ("unknown_scanning_sequence", None, None, None)),
        (None, ("unknown_scanning_sequence", None, None, None)),
    ],
)
def test_a_listed_value_gives_its_labels_and_an_unlisted_one_gives_unknown_labels(text, expected):
    assert rows(SEQUENCE, "scanning_sequence", [text], pa.string()) == [expected]


def test_ranges_are_closed_below_and_open_above():
    numbers = [0.001, 0.999, 1.0, 1.001, 2.4999, 2.5, 4.9, 5.0, 700.0, 1.0]
    found = np.array([row[1:] for row in rows(THICKNESS, "slice_thickness", numbers, pa.float64())])
    assert np.array_equal(found, np.eye(4)[np.digitize(numbers, THICKNESS.edges)])


@pytest.mark.parametrize("number", [None, 0.0, -2.5])
def test_a_number_that_is_absent_or_not_positive_gives_unknown_labels(number):
    unknown = ("unknown_slice_thickness", None, None, None, None)
    assert rows(THICKNESS, "slice_thickness", [number], pa.float64()) == [unknown]


def index(*rows):
    """An index of (description, transducer type, scanning sequence) rows."""
    names = ("study_description", "transducer_type", "scanning_sequence")
    columns = {name: pa.array(values, pa.string()) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return pa.table(columns | {"sop_instance": [str(number) for number in range(len(rows))],
                               "transducer_data": pa.nulls(len(rows), pa.string()),
                               "manufacturer": pa.nulls(len(rows), pa.string())})  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
def test_labels_are_in_the_recipe_s_order_and_the_radiologist_s_table_decides_the_status_first(reverse):
    sources = (SEQUENCE, ProbeSource(), StudyGroupsSource(groups=("liver",)))
    settings = Labels(sources=sources[::-1] if reverse else sources)
    records = index(
        ("LIVER", "LINEAR", "SE"), ("LIVER", None, None), ("LIVER", "LINEAR", None), ("NONE", None, None),
        ("NEW", None, None),
    )  # fmt: skip
    table = weak_labels(records, StudyGroups({"LIVER": ("liver",), "NONE": ()}), settings)
    echoes, probes, groups = ["spin echo", "gradient echo", "any echo"], ["linear", "curvilinear"], ["liver"]
    order = [groups, probes, echoes] if reverse else [echoes, probes, groups]
    assert table.column_names[2:] == [name for names in order for name in names]
    first = "unknown_probe" if reverse else "unknown_scanning_sequence"
    assert table["status"].to_pylist() == [
        *("labelled", first, "unknown_scanning_sequence", "in_no_group", "unmapped_description"),
    ]
    assert table["liver"].to_pylist() == [1, 1, 1, 0, None] and table["linear"].to_pylist() == [1, None, 1, None, None]
    assert table["spin echo"].to_pylist() == [1, None, None, None, None]


def test_a_recipe_without_the_radiologist_s_table_needs_none():
    settings = Labels(sources=(SEQUENCE,))
    table = weak_labels(index(("NEW", None, "SE"), (None, None, "GR")), None, settings)
    assert table["status"].to_pylist() == ["labelled", "labelled"] and settings.groups == ()


@pytest.mark.parametrize("missing", ["exclude", "mask"])
def test_every_status_has_a_meaning_that_states_whether_it_trains(missing):
    sources = (SEQUENCE, THICKNESS, ProbeSource(), StudyGroupsSource(groups=("liver",)))
    settings = Labels(sources=sources, missing=missing)
    meanings = status_meanings(settings)
    open_fields = {"unknown_scanning_sequence", "unknown_slice_thickness", "unknown_probe", "unmapped_description"}
    assert open_fields | {"labelled", "in_no_group"} <= set(meanings)
    assert meanings["labelled"].startswith("trains") and meanings["in_no_group"].startswith("left out")
    for status in open_fields:
        assert meanings[status].startswith("left out" if missing == "exclude" else "trains"), status
