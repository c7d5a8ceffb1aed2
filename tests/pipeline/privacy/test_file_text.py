"""The text of each kind of file."""

import json
import sqlite3
from pathlib import Path

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.privacy.file_text import OVERLAP, PIECE, files_below, text_pieces

WORD = "Sentinel^Anna"


def seen(path: Path) -> str:
    return "\n".join(piece.text for piece in text_pieces(path))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", WORD]),
        pa.array([b"a", WORD.encode()]),
        pa.array([WORD], pa.large_string()),
        pa.array(["a", WORD]).dictionary_encode(),
        pa.array([["a"], ["b", WORD]]),
        pa.array([{"n": 1, "inner": {"text": WORD}}]),
        pa.array([[{"text": [WORD]}]]),
    ],
    ids=["text", "bytes", "large", "dictionary", "list", "struct", "both"],
)
def test_every_cell_of_text_in_a_table(tmp_path: Path, column: pa.Array) -> None:
    path = tmp_path / "table"
    pq.write_table(pa.table({"n": range(len(column)), "c": column}), path)
    assert WORD in seen(path)
    assert [piece.in_cells for piece in text_pieces(path)] == [False, True]


def test_names_and_metadata_of_a_tables_columns(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("one", pa.int64(), metadata={"description": "in the field"})], {"archive": "in all"})
    pq.write_table(pa.table({"one": [1]}, schema=schema), tmp_path / "table")
    assert {"one", "in the field", "in all"} <= set(seen(tmp_path / "table").splitlines())


def test_pixels_are_not_read(tmp_path: Path) -> None:
    pixels = pa.array([WORD.encode()], pa.binary(len(WORD)))
    pq.write_table(pa.table({"pixels": pixels, "name": ["a"]}), tmp_path / "table")
    assert WORD not in seen(tmp_path / "table")


def test_every_row_of_a_database_of_any_name(tmp_path: Path) -> None:
    path = tmp_path / "mlflow's 100%.data"
    database = sqlite3.connect(path)
    database.execute('CREATE TABLE "odd ""name" (n, t, b)')
    database.execute('INSERT INTO "odd ""name" VALUES (1, ?, NULL), (2, ?, ?)', ("x" * 9000 + WORD, "ä", b"\xff blob"))
    database.execute("CREATE TABLE other (t)")
    database.execute("INSERT INTO other VALUES ('second table')")
    database.commit()
    database.close()
    before = path.read_bytes()
    assert all(word in seen(path) for word in (WORD, "ä", "blob", "second table"))
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_database_that_is_being_written_is_read(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "db")
    database.execute("PRAGMA journal_mode = wal")
    database.execute("CREATE TABLE one (t)")
    database.execute("INSERT INTO one VALUES (?)", (WORD,))
    database.commit()
    database.execute("INSERT INTO one VALUES ('not yet')")
    assert WORD in seen(tmp_path / "db")
    database.close()


def test_the_header_of_weights_is_read_and_not_the_weights(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"note": WORD}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"weights")
    assert WORD in seen(path) and "weights" not in seen(path)


def test_names_and_notes_of_a_graph_are_read_and_not_its_weights(tmp_path: Path) -> None:
    weights = onnx.helper.make_tensor("first layer", onnx.TensorProto.UINT8, [7], b"weights", raw=True)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["Müller"])], "g", [], [], [weights])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"note": WORD})
    onnx.save(model, tmp_path / "encoder.onnx")
    text = seen(tmp_path / "encoder.onnx")
    assert WORD in text and "Müller" in text and "first layer" in text
    assert "weights" not in text


@pytest.mark.parametrize("name", ["run.log", "noted.JSON", "no_extension", "card.md", "odd.bin"])
def test_any_other_file_is_read_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\x00" + WORD.encode() + b"\xc3")
    (piece,) = text_pieces(tmp_path / name)
    assert WORD in piece.text and not piece.in_cells


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_wide_text_is_read_to_its_last_letter(tmp_path: Path, order: str) -> None:
    (tmp_path / "x.txt").write_bytes("NOWAKOWSKI".encode(order))
    assert any("NOWAKOWSKI" in text.text for text in text_pieces(tmp_path / "x.txt"))


def test_the_cells_of_a_csv_are_cells(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"a,b\n1,{WORD}\n", encoding="utf-8")
    assert [piece.in_cells for piece in text_pieces(tmp_path / "table.csv")] == [True]


@pytest.mark.parametrize("shift", [-20, -5, 0, 5])
def test_a_match_across_two_pieces_is_whole_in_one_of_them(tmp_path: Path, shift: int) -> None:
    long = WORD * (OVERLAP // len(WORD) // 2)
    (tmp_path / "log").write_bytes(b"." * (PIECE + shift - len(long) // 2) + long.encode() + b"." * 100)
    assert any(long in piece.text for piece in text_pieces(tmp_path / "log"))


@pytest.mark.parametrize(
    ("name", "head"), [("broken", b"PAR1"), ("broken", b"SQLite format 3\0"), ("broken.onnx", b"\xff")]
)
def test_a_damaged_table_database_or_graph_is_read_as_bytes(tmp_path: Path, name: str, head: bytes) -> None:
    (tmp_path / name).write_bytes(head + b"\x01" * 200 + WORD.encode())
    assert WORD in seen(tmp_path / name)


def test_pictures_empty_files_and_vanished_ones_have_no_text(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "picture.png")
    (tmp_path / "empty.parquet").touch()
    assert [seen(tmp_path / name) for name in ("picture.png", "empty.parquet", "vanished")] == ["", "", ""]


@pytest.mark.parametrize("size", [50, PIECE + OVERLAP, 3 * PIECE])
def test_a_picture_inside_a_page_is_no_text_and_what_follows_is(tmp_path: Path, size: int) -> None:
    letters = "ANNA" * (size // 4)
    (tmp_path / "page.html").write_text(f'<img src="data:image/png;base64,{letters}=="><p>{WORD}</p>{"x" * 9000}{WORD}')
    assert "ANNA" not in seen(tmp_path / "page.html")
    assert seen(tmp_path / "page.html").count(WORD) >= 2


def test_a_picture_inside_a_databases_cell_is_no_text_and_what_follows_is(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "events.db")
    database.execute("CREATE TABLE events (t)")
    database.execute("INSERT INTO events VALUES (?)", (f"![](data:image/png;base64,{'ANNA' * 99}) {WORD}",))
    database.commit()
    assert "ANNA" not in seen(tmp_path / "events.db") and WORD in seen(tmp_path / "events.db")


def test_walking_leaves_out_folders_and_follows_no_link(tmp_path: Path) -> None:
    for name in ("a/one", "a/private/key", "b/two", "three"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/link").symlink_to(tmp_path / "three")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    without = [tmp_path / "a" / ".." / "a" / "private"]
    assert [path.name for path in files_below(tmp_path, without)] == ["three", "one", "two"]
    assert [path.name for path in files_below(tmp_path / "a" / "private", without)] == []
    assert [path.name for path in files_below(tmp_path / "three", ())] == ["three"]
    assert [*files_below(tmp_path / "a/link", ())] == [*files_below(tmp_path / "nowhere", ())] == []
