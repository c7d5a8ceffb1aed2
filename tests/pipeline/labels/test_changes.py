"""Label changes between two mappings, record by record."""

import pyarrow as pa
import pytest

from pipeline.labels.changes import (
    changes_by_description,
    current_changes,
    label_changes,
    last_mapping,
    last_probes,
    save_mapping,
)
from pipeline.labels.probe_names import NamePattern
from pipeline.labels.probe_tables import ProbeRow, Probes, ProbeTable
from pipeline.labels.study_groups import StudyGroups
from pipeline.recipe import Recipe
from pipeline.recipe.labels import Labels
from pipeline.store import Store
from pipeline.tables import LABEL_CHANGES

BEFORE = StudyGroups({"US A": ("liver",), "US B": ("kidney", "abdomen"), "US C": (), "US D": ("chest",)})
AFTER = StudyGroups({"US A": ("liver",), "US B": ("kidney",), "US C": ("nodule",), "US E": ("chest",)})


def index(*rows):
    """Records of (description, transducer type)."""
    return pa.table(
        {
            "sop_instance": [f"i{number}" for number in range(len(rows))],
            "study_description": pa.array([row[0] for row in rows], pa.string()),
            "transducer_type": pa.array([row[1] for row in rows], pa.string()),
            "transducer_data": pa.array([None] * len(rows), pa.string()),
            "manufacturer": pa.array([None] * len(rows), pa.string()),
        }
    )


def test_exactly_the_records_whose_labels_change_are_listed_with_both_labels():
    records = index(
        ("US A", "LINEAR"),
        ("US B", "LINEAR"),
        ("US B", None),
        ("US C", "LINEAR"),
        ("US D", "LINEAR"),
        ("us e", "LINEAR"),
        ("US F", "LINEAR"),
        (None, "LINEAR"),
    )
    changes = label_changes(records, records["study_description"], BEFORE, AFTER, Labels())
    assert changes.schema.equals(LABEL_CHANGES.schema)
    assert [tuple(row.values()) for row in changes.to_pylist()] == [
        ("i1", "US B", "kidney, abdomen, linear", "kidney, linear"),
        ("i2", "US B", "kidney, abdomen (unknown_probe)", "kidney (unknown_probe)"),
        ("i3", "US C", "linear (in_no_group)", "nodule, linear"),
        ("i4", "US D", "chest, linear", "linear (unmapped_description)"),
        ("i5", "us e", "linear (unmapped_description)", "chest, linear"),
    ]


def test_a_rare_description_changes_labels_and_is_not_shown():
    records = index(("US B", "LINEAR"))
    hidden = pa.chunked_array([pa.array([None], pa.string())])
    (row,) = label_changes(records, hidden, BEFORE, AFTER, Labels()).to_pylist()
    assert row["study_description"] is None and row["after"] == "kidney, linear"


def test_changes_are_counted_by_description_the_most_frequent_first():
    records = index(("US D", "LINEAR"), ("US B", "LINEAR"), ("US B", "LINEAR"))
    counted = changes_by_description(label_changes(records, records["study_description"], BEFORE, AFTER, Labels()))
    assert [tuple(row.values()) for row in counted.to_pylist()] == [
        (2, "US B", "kidney, abdomen, linear", "kidney, linear"),
        (1, "US D", "chest, linear", "linear (unmapped_description)"),
    ]


def test_rare_descriptions_are_counted_together_under_one_name():
    hidden = pa.chunked_array([pa.array([None, None], pa.string())])
    changes = label_changes(index(("US B", "LINEAR"), ("US B", "LINEAR")), hidden, BEFORE, AFTER, Labels())
    (row,) = changes_by_description(changes).to_pylist()
    assert (row["images"], row["study_description"]) == (2, "(too rare to publish)")


def test_the_last_mapping_is_kept_and_a_new_store_has_none(tmp_path):
    assert last_mapping(tmp_path) is None
    save_mapping(tmp_path, BEFORE)
    assert last_mapping(tmp_path) == BEFORE


@pytest.mark.parametrize("content", ['["US A"]', '{"US A": "liver"}', '{"US A": ["liver"], "US B": "kidney"}', "null"])
def test_a_stored_mapping_of_another_form_counts_as_absent(tmp_path, content):
    (tmp_path / "study_groups.json").write_text(content)
    assert last_mapping(tmp_path) is None


def test_changes_are_those_since_the_last_mapping_and_stay_until_the_next_one(tmp_path):
    store, recipe, records = Store(tmp_path), Recipe(name="tiny"), index(("US A", "LINEAR"), ("US B", "LINEAR"))

    def changed(groups):
        return current_changes(records, records, groups, recipe, earlier=store)["sop_instance"].to_pylist()

    assert changed(AFTER) == [], "there was no mapping before"
    save_mapping(store.private_of("tiny"), BEFORE)
    assert changed(None) == [], "no label comes from study descriptions"
    assert (changed(AFTER), changed(BEFORE)) == (["i1"], [])
    found = current_changes(records, records, AFTER, recipe, earlier=store)
    LABEL_CHANGES.write(store.experiment("tiny").tables, found)
    save_mapping(store.private_of("tiny"), AFTER)
    assert changed(AFTER) == ["i1"]


def own(*rows):
    return Probes(own=ProbeTable(tuple(ProbeRow(maker, NamePattern(name), shape) for maker, name, shape in rows)))


def named(*names):
    """Records of description US A, with a maker of no table and these names of probes."""
    table = index(*[("US A", None)] * len(names))
    return table.set_column(table.column_names.index("transducer_data"), "transducer_data", pa.array(names))


def test_rows_of_probes_change_the_labels_of_the_records_that_they_name(tmp_path):
    store, recipe, records = Store(tmp_path), Recipe(name="tiny"), named("Q4-9", "Q7", "Q4-9")
    private, one, two = store.private_of("tiny"), own(("", "Q4-9", "linear")), own(("", "Q#", "curvilinear"))

    def changed(probes):
        found = current_changes(records, records, BEFORE, recipe, earlier=store, probes=probes)
        return [tuple(row.values())[2:] for row in found.to_pylist()]

    save_mapping(private, BEFORE)
    assert changed(one) == [("liver (unknown_probe)", "liver, linear")] * 2
    save_mapping(private, BEFORE, probes=one.own)
    assert changed(two) == [
        ("liver, linear", "liver (unknown_probe)"),
        ("liver (unknown_probe)", "liver, curvilinear"),
        ("liver, linear", "liver (unknown_probe)"),
    ]
    assert last_probes(private) == ProbeTable(one.own.rows)


@pytest.mark.parametrize(
    "content",
    [None, "{}", '[["", "Q4-9", "square"]]', '[["", "8", "linear"]]', '[["", "Q", "linear"], ["", "Q", "phased"]]'],
)
def test_without_stored_rows_of_probes_the_present_ones_are_compared_with_themselves(tmp_path, content):
    """An earlier version stored none, and the first run after it must not list every record that they name."""
    store, recipe, records = Store(tmp_path), Recipe(name="tiny"), named("Q4-9")
    private = store.private_of("tiny")
    save_mapping(private, BEFORE)
    (private / "probes.json").unlink()
    if content:
        (private / "probes.json").write_text(content)
    probes = own(("", "Q4-9", "linear"))
    assert last_probes(private) is None
    assert current_changes(records, records, BEFORE, recipe, earlier=store, probes=probes).num_rows == 0
