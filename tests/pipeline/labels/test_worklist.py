"""The radiologist's worklist: suggestions, the CSV, and reading it back."""

import csv
import io

import pyarrow as pa
import pytest

from pipeline.labels.study_groups import StudyGroups, read_study_groups
from pipeline.labels.suggestions import Suggester
from pipeline.labels.weak_labels import TOO_RARE, unmapped_descriptions
from pipeline.labels.worklist import (
    descriptions_of,
    example_images,
    publishable,
    unused_mappings,
    with_suggestions,
    worklist_csv,
)
from pipeline.recipe.labels import Labels
from pipeline.tables import UNMAPPED_DESCRIPTIONS

REVIEWED = StudyGroups(
    {
        "US BIOPSY LIVER FOCAL": ("liver", "abdomen"),
        "US THYROID BIOPSY": ("thyroid", "nodule"),
        "US FETAL HEAD": (),
    }
)


SUGGESTER = Suggester(REVIEWED, Labels().groups)


def records(*descriptions):
    """An index with one image of one patient per description."""
    numbers = range(len(descriptions))
    return pa.table(
        {
            "sop_instance": [f"{number:032x}" for number in numbers],
            "study_description": pa.array(descriptions, pa.string()),
            "described_by": pa.array([text and "StudyDescription" for text in descriptions], pa.string()),
            "patient": [f"p{number}" for number in numbers],
        }
    )


def test_the_table_shows_suggestions_with_reasons_and_leaves_the_row_of_rare_ones_alone():
    rare = pa.chunked_array([[False, False, False, True, False]])
    described = ("US THYROYD BIOPSY", "XR SKULL", "US LIVER AND THYROID", "US THYROID BIOPSY MRS X", None)
    rows = with_suggestions(unmapped_descriptions(records(*described), REVIEWED, rare), SUGGESTER)
    assert rows.schema.equals(UNMAPPED_DESCRIPTIONS.schema)
    columns = ("suggested_groups", "reason", "other_suggestions")
    shown = {row["study_description"]: tuple(row[name] for name in columns) for row in rows.to_pylist()}
    assert shown == {
        TOO_RARE: (None, None, None),
        "": (None, None, None),
        "US THYROYD BIOPSY": ("thyroid,nodule", "like US THYROID BIOPSY, 86", None),
        "XR SKULL": (None, "word SKULL (bone): an exam of another region", None),
        "US LIVER AND THYROID": (
            "liver,thyroid,abdomen",
            "words LIVER, THYROID",
            "liver,abdomen (word LIVER); thyroid (word THYROID)",
        ),
    }


def test_a_description_like_those_in_no_group_is_suggested_to_be_in_none():
    rows = with_suggestions(unmapped_descriptions(records("US FETAL HEAD LEFT"), REVIEWED), SUGGESTER)
    assert rows["suggested_groups"].to_pylist() == [""]
    assert rows["reason"].to_pylist() == ["like US FETAL HEAD, 100"]


def test_a_rare_description_of_the_mapping_is_never_shown_as_the_similar_one():
    reviewed = StudyGroups({**REVIEWED.mapping, "US THYROID MRS MILLER": ("thyroid",)})
    index = records("US FETAL HEAD", None)
    shown = publishable(reviewed, index)
    assert set(shown.mapping) == {"US FETAL HEAD", "US BIOPSY LIVER FOCAL", "US THYROID BIOPSY"}  # two of Table A1
    assert shown.groups_of("US BIOPSY LIVER FOCAL") == ("liver", "abdomen")  # as reviewed, not as printed


def filled_in(text, answers, **more):
    """The CSV as a radiologist returns it: `answers` replace the groups of their descriptions."""
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    for row in rows:
        if row["study_description"] in answers:
            row |= {"groups": answers[row["study_description"]], **more}
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def worklist(*descriptions):
    return worklist_csv(with_suggestions(unmapped_descriptions(records(*descriptions), REVIEWED), SUGGESTER))


def test_an_untouched_worklist_maps_nothing(tmp_path):
    text = worklist("US THYROYD BIOPSY", "US LIVER AND THYROID", "XR SKULL", "ZEBRA", None)
    assert text.splitlines() == [
        "\ufeffstudy_description,groups,reviewer,reviewed_on,notes",
        'US LIVER AND THYROID,"? liver,thyroid,abdomen",,,'
        '"words LIVER, THYROID; or liver,abdomen (word LIVER); thyroid (word THYROID)"',
        'US THYROYD BIOPSY,"? thyroid,nodule",,,"like US THYROID BIOPSY, 86"',
        "XR SKULL,?,,,word SKULL (bone): an exam of another region",
        "ZEBRA,?,,,",
    ]
    (tmp_path / "new.csv").write_text(text, encoding="utf-8")
    assert read_study_groups(tmp_path / "new.csv", Labels().groups).mapping == {}


def test_filled_in_rows_are_mapped_and_the_others_stay_on_the_worklist(tmp_path):
    text = worklist("US THYROYD BIOPSY", "US FETAL SPINE", "XR SKULL")
    answers = {"US THYROYD BIOPSY": "thyroid,nodule", "US FETAL SPINE": ""}
    (tmp_path / "1.csv").write_text("study_description,groups\nUS OLD,liver\n", encoding="utf-8")
    (tmp_path / "2.csv").write_text(filled_in(text, answers, reviewer="Dr A", reviewed_on="2026-11-23"))
    groups = read_study_groups(tmp_path, Labels().groups)
    assert groups.mapping == {"US OLD": ("liver",), "US THYROYD BIOPSY": ("thyroid", "nodule"), "US FETAL SPINE": ()}
    left = unmapped_descriptions(records("US THYROYD BIOPSY", "US FETAL SPINE", "XR SKULL"), groups)
    assert left["study_description"].to_pylist() == ["XR SKULL"]


@pytest.mark.parametrize("description", ["=HYPERLINK(1)", "+1 LIVER", "-LIVER", "@LIVER"])
def test_a_spreadsheet_mistakes_no_description_for_a_formula_and_it_is_read_back_unchanged(description, tmp_path):
    text = worklist(description)
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    assert row["study_description"] == f"'{description}"
    answer = tmp_path / "x.csv"
    answer.write_text(filled_in(text, {f"'{description}": "liver"}), encoding="utf-8")
    assert read_study_groups(answer, Labels().groups).groups_of(description) == ("liver",)


def test_examples_are_of_different_patients_and_of_the_description():
    index = pa.table(
        {
            "sop_instance": ["a", "b", "c", "d", "e"],
            "study_description": pa.array(["US X", "us  x", "US X", "US Y", None], pa.string()),
        }
    )
    images = pa.table(
        {"sop_instance": ["a", "a", "b", "c", "d", "e"], "frame": [0, 1, 0, 0, 0, 0], "patient": list("ppqrst")}
    )
    found = example_images(descriptions_of(index), images, ["US X", "US Z"], 2)
    assert {name: rows["sop_instance"].to_pylist() for name, rows in found.items()} == {"US X": ["a", "b"]}
    assert found["US X"]["frame"].to_pylist() == [0, 0]


@pytest.mark.parametrize(
    ("shown_as", "saved_as"),
    [("utf-8-sig", "utf-8-sig"), ("utf-8-sig", "cp1252"), ("utf-8-sig", "utf-16"), ("cp1252", "utf-8-sig")],
)
def test_an_accent_survives_a_spreadsheet(tmp_path, shown_as, saved_as):
    """A spreadsheet reads the bytes as `shown_as` (cp1252 ignores the mark) and saves them as `saved_as`."""
    (tmp_path / "worklist.csv").write_text(worklist("Échographie hépatique"), encoding="utf-8")
    seen = (tmp_path / "worklist.csv").read_bytes().decode(shown_as)
    saved = seen.replace('"? liver,abdomen",,,', "liver,AB,2026-11-30,")
    (tmp_path / "worklist.csv").write_text(saved, encoding=saved_as)
    groups = read_study_groups(tmp_path / "worklist.csv", Labels().groups)
    assert groups.groups_of("Échographie hépatique") == ("liver",)


def saved_by_excel(text, answer):
    """The worklist as a German Excel saves it as plain CSV: `answer` typed into the first row, the second emptied."""
    header, first, _, *rows = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    table = [header, [first[0], *answer, first[4]], [""] * len(header), *rows]
    out = io.StringIO()
    csv.writer(out, delimiter=";", lineterminator="\r\n").writerows(table)
    return out.getvalue().encode("cp1252")


def test_a_worklist_that_excel_saved_as_plain_csv_is_read(tmp_path):
    text = worklist("Échographie – foie", "Échographie – reins", "Échographie – rate")
    saved = saved_by_excel(text, ("liver, abdomen", "Dr. Ö", "30.11.2026"))
    assert b";" in saved and b"\x96" in saved
    (tmp_path / "worklist.csv").write_bytes(saved)
    assert read_study_groups(tmp_path, Labels().groups).mapping == {"ÉCHOGRAPHIE – FOIE": ("liver", "abdomen")}


def test_rows_that_no_record_carries_are_named_by_file_and_line(tmp_path):
    rows = ["us  thyroid,thyroid", "US MRS MILLER,liver", "US BIOPSY LIVER FOCAL,liver", "US LEFT OUT,"]
    (tmp_path / "mine.csv").write_text("\n".join(["study_description,groups", *rows]), encoding="utf-8")
    groups = read_study_groups(tmp_path, Labels().groups)
    assert unused_mappings(groups, records("US THYROID", None)) == ["mine.csv, line 3", "mine.csv, line 5"]
    assert unused_mappings(groups, records("US Thyroid", "us mrs miller", "US LEFT OUT")) == []


def test_the_worklist_names_the_fields_of_a_description_unless_it_is_study_description_alone():
    index = records("US LIVER", "us liver", "SECOND LOOK", "US THYROYD BIOPSY", "MRS MILLER", None)
    fields = ["SeriesDescription", "StudyDescription", "ProtocolName", "StudyDescription", "ProtocolName", None]
    index = index.set_column(index.column_names.index("described_by"), "described_by", pa.array(fields, pa.string()))
    rare = pa.chunked_array([[False, False, False, False, True, False]])
    rows = with_suggestions(unmapped_descriptions(index, REVIEWED, rare), SUGGESTER)
    assert {row["study_description"]: row["described_by"] for row in rows.to_pylist()} == {
        "US LIVER": "StudyDescription, SeriesDescription",
        "SECOND LOOK": "ProtocolName",
        "US THYROYD BIOPSY": None,
        TOO_RARE: None,
        "": None,
    }
    notes = {row["study_description"]: row["notes"] for row in csv.DictReader(worklist_csv(rows)[1:].splitlines())}
    assert notes["SECOND LOOK"].split("; ")[-1] == "from ProtocolName"
    assert "from" not in notes["US THYROYD BIOPSY"]
