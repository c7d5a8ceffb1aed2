"""Table A1 as shipped, and tables of users."""

import pytest

from pipeline.errors import UserError
from pipeline.labels.study_groups import printed_descriptions, read_study_groups, shipped_study_groups
from pipeline.recipe.labels import Labels

GROUPS = Labels().groups


def write(path, text, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, **({"encoding": "utf-8"} | options))
    return path


def test_table_a1_is_the_paper_s_44_rows_over_its_eight_groups():
    shipped = read_study_groups(shipped_study_groups(), GROUPS)
    assert len(shipped.mapping) == 44
    assert GROUPS == ("liver", "kidney", "thyroid", "abdomen", "chest", "soft tissue", "nodule", "drainage")
    used = [group for groups in shipped.mapping.values() for group in groups]
    # counted by hand in the printed table
    assert {group: used.count(group) for group in GROUPS} == {
        "liver": 5,
        "kidney": 6,
        "thyroid": 2,
        "abdomen": 23,
        "chest": 7,
        "soft tissue": 13,
        "nodule": 10,
        "drainage": 25,
    }


@pytest.mark.parametrize(
    ("description", "groups"),
    [
        ("US BIOPSY LIVER NONFOCAL", {"liver", "abdomen"}),  # section 3.3
        ("US THYROID ASPIRATION/FNA", {"thyroid", "nodule"}),
        ("US DRAINAGE GALLBLADDER (CHOLECYSTOSTOMY)", {"abdomen", "drainage"}),
        ("US BIOPSY MESENTERY", {"abdomen", "drainage", "soft tissue"}),
        ("US HEAD/NECK INTERVENTION NOT OTHERWISE SPECIFIED", {"soft tissue"}),
        ("CT ABDOMINAL PELVIC BIOPSY NOT OTHERWISE SPECIFIED", {"abdomen"}),
        ("IR PARACENTESIS (THERAPEUTIC)", {"abdomen", "drainage"}),
        ("US BIOPSY KIDNEY FOCAL (LEFT)", {"liver", "abdomen"}),  # as printed
        ("US BIOPSY KIDNEY FOCAL (RIGHT)", {"kidney", "abdomen"}),
    ],
)
def test_rows_of_table_a1_read_as_printed(description, groups):
    assert set(read_study_groups(shipped_study_groups(), GROUPS).groups_of(description)) == groups


def test_the_printed_descriptions_are_those_of_table_a1_for_any_groups_of_a_recipe():
    assert printed_descriptions() == set(read_study_groups(shipped_study_groups(), GROUPS).mapping)


def test_table_a1_s_two_left_right_disagreements_are_found():
    assert read_study_groups(shipped_study_groups(), GROUPS).left_right_disagreements() == [
        ("US BIOPSY KIDNEY FOCAL (LEFT)", "US BIOPSY KIDNEY FOCAL (RIGHT)"),
        ("US DRAINAGE KIDNEY/PARARENAL (LEFT)", "US DRAINAGE KIDNEY/PARARENAL (RIGHT)"),
    ]


def test_a_spreadsheet_s_file_is_read(tmp_path):
    text = "study_description,groups,reviewer,reviewed_on\r\nUs  Liver ,Liver; abdomen,Dr A,2024-01-31\r\n"
    path = write(tmp_path / "x.csv", text.replace("Liver; abdomen", '"Abdomen , LIVER"'), encoding="utf-8-sig")
    groups = read_study_groups(path, GROUPS)
    assert groups.mapping == {"US LIVER": ("liver", "abdomen")}
    assert groups.groups_of(" us   liver") == ("liver", "abdomen")


def test_empty_groups_mean_reviewed_and_in_no_group_unlike_an_absent_row(tmp_path):
    groups = read_study_groups(write(tmp_path / "x.csv", "study_description,groups\nUS FETAL HEAD,\n"), GROUPS)
    assert groups.groups_of("US FETAL HEAD") == () and groups.groups_of("US OTHER") is None
    assert groups.groups_of(None) is None


def test_a_description_may_be_in_every_group_of_the_recipe(tmp_path):
    text = "study_description,groups\nUS A,liver;chest\n"
    assert read_study_groups(write(tmp_path / "x.csv", text), ("chest", "liver")).groups_of("US A") == (
        "chest",
        "liver",
    )


def test_in_a_folder_later_files_win(tmp_path):
    write(tmp_path / "g" / "2024-02.csv", "study_description,groups\nUS A,kidney\n")
    write(tmp_path / "g" / "2024-01.csv", "study_description,groups\nUS A,liver\nUS B,chest\n")
    write(tmp_path / "g" / "notes.txt", "not read")
    assert read_study_groups(tmp_path / "g", GROUPS).mapping == {"US A": ("kidney",), "US B": ("chest",)}


def test_the_row_reviewed_last_wins_regardless_of_its_file_s_name(tmp_path):
    header = "study_description,groups,reviewed_on\n"
    write(tmp_path / "g" / "a.csv", header + "US A,liver,2026-03-01\nUS B,liver,2026-01-01\nUS C,liver,2026-01-01\n")
    write(tmp_path / "g" / "b.csv", header + "US A,kidney,2026-02-28\nUS B,kidney,2026-01-01\nUS C,kidney,\n")
    assert read_study_groups(tmp_path / "g", GROUPS).mapping == {
        "US A": ("liver",),  # a later day, in an earlier file
        "US B": ("kidney",),  # the same day: the later file
        "US C": ("liver",),  # without a date: before all others
    }


def test_within_one_file_a_later_review_replaces_an_earlier_one(tmp_path):
    text = "study_description,groups,reviewed_on\nUS A,liver,2026-03-01\nUS A,kidney,2026-02-01\n"
    assert read_study_groups(write(tmp_path / "x.csv", text), GROUPS).mapping == {"US A": ("liver",)}


def test_a_row_with_a_question_mark_is_not_reviewed_and_replaces_nothing(tmp_path):
    write(tmp_path / "g" / "1.csv", "study_description,groups,reviewed_on\nUS A,liver,2026-01-01\n")
    write(tmp_path / "g" / "2.csv", 'study_description,groups,reviewed_on\nUS A,"? spleen",2026-02-01\nUS B, ?,\n')
    assert read_study_groups(tmp_path / "g", GROUPS).mapping == {"US A": ("liver",)}


def test_the_digest_is_that_of_the_mapping_alone(tmp_path):
    one = write(tmp_path / "1.csv", 'study_description,groups\nUS A,liver\nUS B,"chest,nodule"\n')
    two = write(tmp_path / "2.csv", 'groups,study_description,reviewer\n"nodule,chest",us b,X\nliver,US A,Y\n')
    three = write(tmp_path / "3.csv", 'study_description,groups\nUS A,liver\nUS B,"chest"\n')
    first, second, third = (read_study_groups(path, GROUPS).digest for path in (one, two, three))
    assert first == second != third


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "study_description,groups\nUS A,liver\nUS B,spleen\n",
            r"line 3: groups ",
        ),
        ("description,groups\nUS A,liver\n", r"line 1: no column 'study_description'"),
        ("study_description,groups,colour\nUS A,liver,red\n", r"line 1: unknown column 'colour'"),
        (
            "study_description,groups\nUS A,liver\nus  a,kidney\n",
            r"line 3: study_description .*line 2",
        ),
        ("study_description,groups\nUS A,liver,abdomen\n", r"line 2: not as many cells"),
        ("study_description,groups\nUS A\n", r"line 2: not as many cells"),
        ("study_description,groups\n ,liver\n", r"line 2: study_description is empty"),
        ("", r"line 1: no column"),
        (
            "study_description,groups,reviewed_on\nUS A,liver,11/23/2026\n",
            r"line 2: reviewed_on ",
        ),
        (
            "study_description,groups,reviewed_on\nUS A,liver,23.13.2026\n",
            r"line 2: reviewed_on ",
        ),
    ],
)
def test_a_mistake_raises_an_error_that_names_file_and_line(tmp_path, text, says):
    with pytest.raises(UserError, match=says) as error:
        read_study_groups(write(tmp_path / "mine.csv", text), GROUPS)
    assert "mine.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_date_can_have_the_format_of_a_german_spreadsheet(tmp_path):
    text = "study_description,groups,reviewed_on\nUS A,liver,01.12.2026\nUS A,nodule,2026-11-30\n"
    assert read_study_groups(write(tmp_path / "x.csv", text), GROUPS).groups_of("US A") == ("liver",)


def test_combining_accents_equal_precomposed_letters(tmp_path):
    apart, together = "U\u0301LTRASOM FI\u0301GADO", "\u00daltrasom f\u00edgado"
    table = read_study_groups(write(tmp_path / "x.csv", f"study_description,groups\n{apart},liver\n"), GROUPS)
    assert table.groups_of(together) == table.groups_of(apart) == ("liver",)


def test_a_row_repeated_with_the_same_groups_is_no_mistake(tmp_path):
    text = 'study_description,groups\nUS A,"liver,nodule"\nUS A,"nodule,liver"\n'
    assert len(read_study_groups(write(tmp_path / "x.csv", text), GROUPS).mapping) == 1


def test_a_table_that_is_missing_or_not_text_raises_a_user_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"study_description,groups\n\xff\xfe\x00,liver\n")
    for name, says in (("none.csv", "not exist"), ("folder", "without"), ("binary.csv", "UTF-8")):
        with pytest.raises(UserError, match=says):
            read_study_groups(tmp_path / name, GROUPS)


def test_groups_match_in_any_case_and_are_returned_in_the_recipe_s_spelling(tmp_path):
    text = 'study_description,groups\nUS A,Liver\nUS B,"SOFT  tissue; kidney"\n'
    groups = read_study_groups(write(tmp_path / "x.csv", text), ("Liver", "Kidney", "Soft Tissue"))
    assert groups.mapping == {"US A": ("Liver",), "US B": ("Kidney", "Soft Tissue")}


def test_hidden_files_beside_a_table_are_not_read(tmp_path):
    write(tmp_path / "g" / "a.csv", "study_description,groups\nUS A,liver\n")
    (tmp_path / "g" / "._a.csv").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        \xa3")
    assert read_study_groups(tmp_path / "g", GROUPS).mapping == {"US A": ("liver",)}


def test_a_garbled_description_is_repaired(tmp_path):
    text = "study_description,groups\nÃ‰chographie hÃ©patique,liver\nUS Ã\xa0 JEUN,liver\n"
    read = read_study_groups(write(tmp_path / "x.csv", text), GROUPS)
    assert set(read.mapping) == {"ÉCHOGRAPHIE HÉPATIQUE", "US À JEUN"}


@pytest.mark.parametrize(
    "text",
    [
        "study_description,groups\nUS MRS MILLER,liver\nUS MRS MILLER,kidney\n",
        "study_description,groups\nliver,US MRS MILLER\n",
        "study_description,groups,reviewed_on\nUS A,liver,US MRS MILLER\n",
        "US MRS MILLER,liver\n",
        "study_description,groups\nUS MRS MILLER\n",
        "study_description,groups\nUS A,liver,US MRS MILLER\n",
    ],
)
def test_no_error_quotes_a_description(tmp_path, text):
    with pytest.raises(UserError) as error:
        read_study_groups(write(tmp_path / "x.csv", text), GROUPS)
    assert "MILLER" not in str(error.value)
