"""The worklist of probes: counts, suggestions, what may be published, and its way back as a table."""

import re

import pyarrow as pa
import pytest

from pipeline.csv_files import read_csv
from pipeline.labels.probe import ProbeTags, probe_of
from pipeline.labels.probe_pictures import Suggestion
from pipeline.labels.probe_tables import COLUMNS, NOTES, Probes, probes_for
from pipeline.labels.probe_worklist import ProbeName, suggestion, unknown_names, unmapped_probes, worklist_csv
from pipeline.recipe.labels import Labels, ProbeSource, StudyGroupsSource
from pipeline.tables import UNMAPPED_PROBES


def index(*rows):
    """An index of (manufacturer, model, transducer type, transducer data, patient) rows."""
    names = ("manufacturer", "model", "transducer_type", "transducer_data", "patient")
    return pa.table(
        {name: pa.array(values, pa.string()) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    )


RECORDS = index(
    ("GE Healthcare", "E10", None, "Q4-9\\575\\123", "a"),
    ("GE MEDICAL SYSTEMS", "E9", None, "q4_9\\575\\456", "b"),
    ("GE Healthcare", "E10", None, "Q4-9\\575\\123", "b"),
    ("GE Healthcare", "E10", "LINEAR", "Q4-9", "c"),  # the type says it
    ("GE Healthcare", "E10", None, "C1-6-D", "c"),  # known
    ("GE Healthcare", "E10", None, "M5S-D", "c"),  # known, though no label
    ("Esaote", "X8", None, "C5-1v", "a"),
    ("Acme", "One", None, "=SUM(1)", "a"),
    (None, None, None, None, "d"),
    (None, None, None, "8848\\UNUSED", "d"),
)


def listed_probes(settings=None, probes=None, **options):
    settings, probes = settings or Labels(), probes or Probes()
    return unmapped_probes(RECORDS, unknown_names(RECORDS, settings, probes), probes, **options)


def listed(table, *names):
    return [tuple(row[name] for name in names) for row in table.to_pylist()]


def test_each_unknown_name_is_counted_once_in_all_spellings_and_with_any_serial_number():
    table = listed_probes()
    assert table.schema == UNMAPPED_PROBES.schema
    assert listed(table, "manufacturer", "name", "model", "images", "patients") == [
        ("GE", "Q4-9", "E10, E9", 3, 2),
        ("", "", "", 2, 1),
        ("Acme", "=SUM(1)", "One", 1, 1),
        ("Esaote", "C5-1V", "X8", 1, 1),
    ]


def test_names_that_few_patients_share_are_not_published():
    table = listed_probes(min_patients=2)
    assert listed(table, "manufacturer", "name", "images", "suggested_shape") == [
        ("GE", "Q4-9", 3, None),
        ("", "", 2, None),
        ("Acme", "(too rare to publish)", 1, None),
        ("Esaote", "(too rare to publish)", 1, None),
    ]


def test_two_pseudonyms_of_a_patient_are_one():
    table = listed_probes(min_patients=2, aliases={"b": "a"})
    assert listed(table, "manufacturer", "name", "patients")[0] == ("GE", "(too rare to publish)", 1)


def test_a_recipe_without_labels_from_probes_has_no_worklist_of_them():
    assert listed_probes(Labels(sources=(StudyGroupsSource(),))).num_rows == 0


def test_a_probe_of_the_recipe_s_own_is_known():
    settings = Labels(sources=(ProbeSource(models={"Q4-9": "linear"}),))
    assert "Q4-9" not in listed_probes(settings)["name"].to_pylist()


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("SL12-4", "linear", "linear by the names of SuperSonic"),
        ("C10-3v", "curvilinear", "curvilinear by the names of .*Verasonics.*; endocavity by the names of Philips"),
        ("LX12-4", "linear", r"many makers call linear probes L\?#\*"),
        ("EX9-4", "endocavity", "many makers call endocavity probes"),
        ("Q4-9", None, None),
    ],
)
def test_a_suggestion_says_what_it_rests_on(name, shape, why):
    found = suggestion(name, Probes())
    assert (found and found.shape) == shape
    assert found is None or re.match(why, found.why)


def test_the_worklist_is_read_back_once_its_question_marks_are_gone(tmp_path):
    text = worklist_csv(listed_probes())
    mine = tmp_path / "unmapped_probes.csv"
    mine.write_text(text, encoding="utf-8")
    rows = [row.cells for row in read_csv("Probes", mine, COLUMNS, NOTES)]
    assert [(row["manufacturer"], row["name"], row["shape"]) for row in rows] == [
        ("GE", "Q4-9", "?"),
        ("", "'=SUM(1)", "?"),
        ("Esaote", "C5-1V", rows[2]["shape"]),
    ]
    assert text.startswith("\ufeff") and rows[2]["shape"].startswith("?")
    assert probes_for(tmp_path, Labels()).own.rows == ()  # not reviewed yet
    mine.write_text(text.replace("? ", "").replace(",?", ",linear"), encoding="utf-8")
    probes = probes_for(tmp_path, Labels())
    read = [
        probe_of(ProbeTags(maker, None, name), ProbeSource(), probes)
        for maker, name in (("GE", "Q4_9"), ("Acme", "=SUM(1)"))
    ]
    assert read == ["linear", "linear"]
    again = listed_probes(probes=probes)
    assert listed(again, "manufacturer", "name") == [("", "")]


BOXES, FANS, UNCLEAR = (Suggestion(shape, f"shows {shape}") for shape in ("linear", "curvilinear", None))


@pytest.mark.parametrize(
    ("name", "shown", "shape", "why"),
    [
        ("SL12-4", FANS, "linear", "linear by the names of SuperSonic.*; shows curvilinear"),
        ("LX12-4", FANS, "linear", "many makers call .*; shows curvilinear"),
        ("LX12-4", UNCLEAR, "linear", "many makers call .*; shows None"),
        ("Q4-9", FANS, "curvilinear", "shows curvilinear"),
        ("Q4-9", UNCLEAR, None, "shows None"),
        ("C10-3v", BOXES, "curvilinear", "curvilinear by .*endocavity by .*; shows linear"),
    ],
)
def test_pictures_suggest_a_shape_after_names_and_letters_and_are_always_a_reason(name, shown, shape, why):
    found = suggestion(name, Probes(), shown)
    assert found is not None and found.shape == shape
    assert re.fullmatch(why, found.why)


def test_pictures_are_in_the_row_of_their_probe_and_suggest_no_shape_without_a_name():
    shown = {ProbeName("GE", "Q4-9"): FANS, ProbeName("", ""): BOXES, ProbeName("Acme", "=SUM(1)"): BOXES}
    table = listed_probes(shown=shown)
    assert listed(table, "manufacturer", "name", "suggested_shape")[:3] == [
        ("GE", "Q4-9", "curvilinear"),
        ("", "", None),
        ("Acme", "=SUM(1)", "linear"),
    ]
    assert [row["why"].split(";")[0] for row in table.to_pylist()[:3]] == [FANS.why, BOXES.why, BOXES.why]
    few = listed_probes(min_patients=2, shown=shown)
    assert ("Acme", "(too rare to publish)", None, None) in listed(
        few, "manufacturer", "name", "suggested_shape", "why"
    )


def test_what_pictures_suggest_is_marked_and_read_back_only_without_its_mark(tmp_path):
    table = listed_probes(shown={ProbeName("GE", "Q4-9"): FANS})
    mine = tmp_path / "unmapped_probes.csv"
    mine.write_text(worklist_csv(table), encoding="utf-8")
    first = next(read_csv("Probes", mine, COLUMNS, NOTES)).cells
    assert (first["shape"], first["why"]) == ("? curvilinear", FANS.why)
    assert probes_for(tmp_path, Labels()).own.rows == ()
    reviewed = mine.read_text(encoding="utf-8").replace("? curvilinear", "curvilinear", 1)
    mine.write_text(reviewed, encoding="utf-8")
    assert probes_for(tmp_path, Labels()).own_shape("GE", "Q4-9") == "curvilinear"
