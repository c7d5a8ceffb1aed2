"""CSV files as spreadsheets save them, as bytes written by hand."""

import pytest

from pipeline.csv_files import csv_files_in, fix_mojibake, read_csv
from pipeline.errors import UserError

HEAD = "name,groups,note\r\n"
BODY = 'Échographie hépatique,"liver, abdomen",à jeun\r\nUS X,,\r\n'
CELLS = [
    {"name": "Échographie hépatique", "groups": "liver, abdomen", "note": "à jeun"},
    {"name": "US X", "groups": "", "note": ""},
]


def read(path):
    return list(read_csv("Table", path, ("name", "groups"), ("note",)))


def cells(path, content):
    path.write_bytes(content)
    return [dict(row.cells) for row in read(path)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param((HEAD + BODY).encode("utf-8"), id="utf-8"),
        pytest.param(b"\xef\xbb\xbf" + (HEAD + BODY).encode("utf-8"), id="csv utf-8"),
        pytest.param((HEAD + BODY).encode("cp1252"), id="csv"),
        pytest.param(b"\xff\xfe" + (HEAD + BODY).encode("utf-16-le"), id="utf-16 little endian"),
        pytest.param(b"\xfe\xff" + (HEAD + BODY).encode("utf-16-be"), id="utf-16 big endian"),
        pytest.param(
            b"\xff\xfe"
            + "name\tgroups\tnote\r\nÉchographie hépatique\tliver, abdomen\tà jeun\r\nUS X\t\t\r\n".encode("utf-16-le"),
            id="unicode text",
        ),
        pytest.param(
            "name;groups;note\r\nÉchographie hépatique;liver, abdomen;à jeun\r\nUS X;;\r\n".encode("cp1252"),
            id="european csv",
        ),
        pytest.param(("sep=,\r\n" + HEAD + BODY).encode("cp1252"), id="separator stated"),
        pytest.param((HEAD + BODY).replace("\r\n", "\r").encode("utf-8"), id="carriage returns alone"),
        pytest.param((HEAD + ",,\r\n" + BODY + ",,\r\n\r\n , ,\xa0\r\n").encode("utf-8"), id="blank rows"),
        pytest.param(("\r\n,,\r\n" + HEAD + BODY).encode("utf-8"), id="blank rows first"),
        pytest.param(
            (HEAD.replace("\r\n", ",,\r\n") + BODY.replace("\r\n", ",,\r\n")).encode("utf-8"), id="empty columns"
        ),
        pytest.param((" Name , GROUPS,Note\r\n" + BODY).encode("utf-8"), id="header typed by hand"),
        pytest.param((HEAD + BODY.replace("US X,,", "US X,")).encode("utf-8"), id="optional cell left out"),
    ],
)
def test_what_a_spreadsheet_saves_reads_alike(tmp_path, content):
    assert cells(tmp_path / "x.csv", content) == CELLS


@pytest.mark.parametrize("name", ["US LEBER – NIERE", "US 5–7 MHZ", "– Échographie"])
def test_an_en_dash_beside_no_letter_survives_plain_csv_of_excel(tmp_path, name):
    assert cells(tmp_path / "x.csv", f"name;groups;note\r\n{name};liver;\r\n".encode("cp1252")) == [
        {"name": name, "groups": "liver", "note": ""}
    ]


def test_utf_8_with_a_byte_order_mark_once_read_as_windows_1252_is_repaired(tmp_path):
    garbled = (b"\xef\xbb\xbf" + (HEAD + BODY).encode("utf-8")).decode("cp1252")
    assert cells(tmp_path / "x.csv", garbled.encode("utf-8-sig")) == CELLS


@pytest.mark.parametrize(("text", "right"), [("Ã‰cho", "Écho"), ("Ã\xa0 jeun", "à jeun"), ("Ã\x81", "Á")])
def test_a_garbled_text_is_repaired_and_others_are_unchanged(text, right):
    assert fix_mojibake(text) == right
    assert [fix_mojibake(good) for good in (right, "US X", "Ärzte", "日本")] == [right, "US X", "Ärzte", "日本"]


def test_rows_are_named_by_file_and_first_line(tmp_path):
    rows = 'name,groups\n"two\nlines",a\n\nUS X,b\n'
    (tmp_path / "x.csv").write_text(rows)
    assert [row.location for row in read(tmp_path / "x.csv")] == [
        f"Table {tmp_path / 'x.csv'}, line {line}" for line in (2, 5)
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("name,groups\nwątroba,x\n".encode("cp1250"), "line 2: .*encoding", id="polish"),
        pytest.param("name,groups\nvyšetření,x\n".encode("cp1250"), "line 2: .*encoding", id="czech"),
        pytest.param("name,groups\nпечень,x\n".encode("cp1251"), "line 2: .*encoding", id="russian"),
        pytest.param("name,groups\nήπαρ,x\n".encode("cp1253"), "line 2: .*encoding", id="greek"),
        pytest.param("name,groups\n肝臓,x\n".encode("shift_jis"), "line 2: .*encoding", id="japanese"),
        pytest.param("name,groups\nbüro,x\n".encode("mac_roman"), "line 2: .*encoding", id="macintosh"),
        pytest.param("name,groups\nhépato,x\n".encode("mac_roman"), "line 2: .*encoding", id="macintosh, french"),
        pytest.param("name,groups\nriñón,x\n".encode("mac_roman"), "line 2: .*encoding", id="macintosh, spanish"),
        pytest.param("name,groups\nA–B,x\n".encode("cp1252"), "line 2: .*encoding", id="a dash or a letter"),
        pytest.param("name,groups\nUS A,x\n".encode("utf-16-le"), "line 1: .*zero bytes", id="utf-16 without a mark"),
        pytest.param(b"\xff\xfe" + "name,groups\n".encode("utf-16-le") + b"\0\xd8\n", "encoding", id="half a pair"),
        pytest.param(b"PK\x03\x04\x14\0", "workbook", id="xlsx"),
        pytest.param(b"", "line 1: no column 'name'", id="empty"),
        pytest.param(b",,\n,,\n", "line 1: no column 'name'", id="blank"),
        pytest.param(b"groups\nx\n", "line 1: no column 'name'", id="no column"),
        pytest.param(b"name;groups;colour\nx;;\n", "line 1: unknown column 'colour'", id="unknown column"),
        pytest.param(b"name,groups,,note\nx,,,\n", "line 1: unknown column ''", id="column without a name"),
        pytest.param(b"name,groups,Groups\nx,a,b\n", "line 1: column 'groups' .*2 times", id="column twice"),
        pytest.param(b"name,groups\nMILLER,a,b\n", "line 2: not as many cells", id="too many cells"),
        pytest.param(b"name,groups\n\nMILLER\n", "line 3: not as many cells", id="too few cells"),
        pytest.param(b'name,groups\nMILLER,"a\n', "line 2: cannot be read as CSV", id="open quotation"),
        pytest.param(b"name,groups\nMILLER," + b"a" * 200_000, "line 2: cannot be read as CSV", id="endless cell"),
    ],
)
def test_an_unreadable_table_raises_a_user_error_that_quotes_no_cell(tmp_path, content, says):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        read(tmp_path / "x.csv")
    assert "x.csv" in str(error.value) and "\n" not in str(error.value) and "MILLER" not in str(error.value)


def test_hidden_and_temporary_files_of_a_folder_are_not_tables(tmp_path):
    for name in ("b.csv", "A.CSV", "._b.csv", ".hidden.csv", "~$b.csv", ".~lock.b.csv#", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.csv").mkdir()
    assert [path.name for path in csv_files_in("Tables", tmp_path)] == ["A.CSV", "b.csv"]


def test_a_table_that_cannot_be_opened_raises_a_user_error(tmp_path):
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "gone.csv")
    for path in (tmp_path, *csv_files_in("Tables", tmp_path)):
        with pytest.raises(UserError, match=path.name):
            read(path)
