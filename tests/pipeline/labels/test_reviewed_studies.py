"""Rows for single studies: reading them, the labels they give, and what changes with them."""

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.labels.changes import current_changes, last_studies, save_mapping
from pipeline.labels.reviewed_studies import Decision, ReviewedStudies, reviewed_studies
from pipeline.labels.study_groups import StudyGroups, read_study_groups
from pipeline.labels.weak_labels import weak_labels
from pipeline.recipe import Recipe
from pipeline.recipe.labels import Labels, ProbeSource, StudyGroupsSource
from pipeline.store import Store

SETTINGS = Labels(sources=(StudyGroupsSource(groups=("liver", "kidney", "chest")), ProbeSource()))
GROUPS = StudyGroups({"US LIVER": ("liver",), "US FETAL": ()})
NONE, NO_PROBE = {"liver": 0, "kidney": 0, "chest": 0}, {"linear": None, "curvilinear": None}


def read(folder, *lines, name="studies.csv", columns="study,groups,shape,reviewed_on"):
    (folder / name).write_text("\n".join([columns, *lines]), encoding="utf-8")
    return reviewed_studies(folder, SETTINGS)


def index(*rows):
    """Records of (study, description, transducer type)."""
    none = pa.array([None] * len(rows), pa.string())
    return pa.table(
        {
            "sop_instance": [f"i{number}" for number in range(len(rows))],
            "study": pa.array([row[0] for row in rows], pa.string()),
            "study_description": pa.array([row[1] for row in rows], pa.string()),
            "transducer_type": pa.array([row[2] for row in rows], pa.string()),
            "transducer_data": none,
            "manufacturer": none,
        }
    )


def labelled(studies, *rows):
    return [
        {name: value for name, value in row.items() if name != "sop_instance"}
        for row in weak_labels(index(*rows), GROUPS, SETTINGS, studies=studies).to_pylist()
    ]


def test_a_row_goes_before_the_description_of_its_study_alone(tmp_path):
    studies = read(tmp_path, 's1,"Kidney, chest",,2026-11-30')
    linear = {"linear": 1, "curvilinear": 0}
    assert labelled(studies, ("s1", "US LIVER", "LINEAR"), ("s2", "US LIVER", "LINEAR"), (None, "US LIVER", None)) == [
        {"status": "labelled", "liver": 0, "kidney": 1, "chest": 1, **linear},
        {"status": "labelled", **NONE, "liver": 1, **linear},
        {"status": "unknown_probe", **NONE, "liver": 1, **NO_PROBE},
    ]


def test_a_study_gets_groups_whose_description_is_in_none_or_not_mapped_and_the_other_way(tmp_path):
    studies = read(tmp_path, "s1,liver,,", "s2,liver,,", "s3,,,")
    found = labelled(studies, ("s1", "US FETAL", None), ("s2", "US NEW", None), ("s3", "US LIVER", None))
    assert [row["status"] for row in found] == ["unknown_probe", "unknown_probe", "in_no_group"]
    assert [row["liver"] for row in found] == [1, 1, 0]


def test_a_shape_goes_before_the_tags_of_all_its_images_and_leaves_the_groups(tmp_path):
    studies = read(tmp_path, "s1,? kidney,curvilinear,", "s2,?,phased,", "s3,kidney,? linear,")
    found = labelled(
        studies, ("s1", "US LIVER", "LINEAR"), ("s1", "US LIVER", None), ("s2", "US LIVER", "LINEAR"),
        ("s3", "US LIVER", None),
    )  # fmt: skip
    curved = {"status": "labelled", **NONE, "liver": 1, "linear": 0, "curvilinear": 1}
    assert found[:2] == [curved, curved]
    assert found[2] == {"status": "unknown_probe", **NONE, "liver": 1, **NO_PROBE}
    assert found[3] == {"status": "unknown_probe", **NONE, "kidney": 1, **NO_PROBE}


def test_cells_with_a_question_mark_and_without_a_shape_decide_nothing(tmp_path):
    assert read(tmp_path, "s1,? kidney,,", "s2,?,? linear,2026-11-30").decisions == {}


def test_a_table_of_studies_is_no_table_of_study_groups(tmp_path):
    (tmp_path / "groups.csv").write_text("study_description,groups\nUS LIVER,liver\n", encoding="utf-8")
    studies = read(tmp_path, "s1;kidney;2026-11-30", columns="Study;Groups;Reviewed_on")
    assert studies.decisions == {"s1": Decision(("kidney",))}
    assert studies.locations == {"s1": "studies.csv, line 2"}
    assert read_study_groups(tmp_path, SETTINGS.groups).mapping == {"US LIVER": ("liver",)}
    assert reviewed_studies(tmp_path / "groups.csv", SETTINGS) == ReviewedStudies()


def test_the_last_review_counts_whichever_file_it_is_in(tmp_path):
    read(tmp_path, "s1,liver,,2026-11-30", "s2,liver,,", name="a.csv")
    studies = read(tmp_path, "s1,kidney,,29.11.2026", "s2,chest,,2026-01-01", name="b.csv")
    assert studies.decisions == {"s1": Decision(("liver",)), "s2": Decision(("chest",))}


@pytest.mark.parametrize("other", ["s1,chest,,2026-11-30", "s1,liver,linear,30.11.2026"])
def test_two_decisions_of_one_day_are_refused_with_both_lines(tmp_path, other):
    with pytest.raises(UserError) as error:
        read(tmp_path, "s1,liver,,2026-11-30", "s1,liver,,2026-11-30", other)
    assert "line 2" in str(error.value) and "line 4" in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("s1,spleen,,", ("line 3", "groups", "liver, kidney, chest")),
        ("s1,liver,round,", ("line 3", "'round'", "curvilinear, phased")),
        (",liver,,", ("line 3", "study is empty")),
        ("s1,liver,,11/30/2026", ("line 3", "reviewed_on")),
    ],
)
def test_a_cell_that_cannot_be_is_named_by_file_and_line(tmp_path, line, parts):
    with pytest.raises(UserError) as error:
        read(tmp_path, "s0,liver,,", line)
    assert all(part in str(error.value) for part in ("studies.csv", *parts))


def test_a_recipe_without_study_groups_reads_the_shapes(tmp_path):
    read(tmp_path, "s1,liver,linear,")
    probes = Labels(sources=(ProbeSource(),))
    studies = reviewed_studies(tmp_path, probes)
    assert studies.decisions == {"s1": Decision(None, "linear")}
    (row,) = weak_labels(index(("s1", "US LIVER", None)), None, probes, studies=studies).to_pylist()
    assert (row["status"], row["linear"]) == ("labelled", 1)


def test_rows_whose_study_no_record_has_are_named(tmp_path):
    studies = read(tmp_path, "s1,liver,,", "s2,liver,,")
    assert studies.unused(["s2", None]) == ["studies.csv, line 2"]


def test_other_groups_change_the_meaning_and_none_the_membership():
    def studies(*groups, shape=None):
        return ReviewedStudies({"s1": Decision(groups, shape)})

    one, other, none, shaped = studies("liver"), studies("kidney"), studies(), studies("liver", shape="linear")
    assert len({one.digest, other.digest, none.digest, shaped.digest, ReviewedStudies().digest}) == 5
    assert one.membership == other.membership
    assert len({one.membership, none.membership, shaped.membership, ReviewedStudies().membership}) == 4
    assert ReviewedStudies({"s1": Decision(None, "linear")}).digest != shaped.digest


def test_changes_since_the_last_run_are_those_of_the_studies(tmp_path):
    store, recipe = Store(tmp_path), Recipe(name="tiny", labels=SETTINGS)
    records = index(("s1", "US LIVER", "LINEAR"), ("s2", "US LIVER", "LINEAR"))
    private, studies = store.private_of("tiny"), ReviewedStudies({"s1": Decision(("kidney",), "curvilinear")})

    def changed(now):
        return current_changes(records, records, GROUPS, recipe, earlier=store, studies=now).to_pylist()

    save_mapping(private, GROUPS)
    (row,) = changed(studies)
    assert (row["sop_instance"], row["before"], row["after"]) == ("i0", "liver, linear", "kidney, curvilinear")
    save_mapping(private, GROUPS, studies)
    assert last_studies(private).decisions == studies.decisions
    assert changed(studies) == []
    (row,) = changed(ReviewedStudies())
    assert (row["before"], row["after"]) == ("kidney, curvilinear", "liver, linear")


@pytest.mark.parametrize("content", ["[]", '{"s1": 1}', '{"s1": {"groups": "liver", "shape": null}}', "no"])
def test_stored_studies_of_another_form_count_as_absent(tmp_path, content):
    (tmp_path / "reviewed_studies.json").write_text(content)
    assert last_studies(tmp_path) == ReviewedStudies()
