"""The text in a store's files: of tables their cells, of databases their rows, of weights their names, else all.

Belongs here: walking the files, telling their kinds by content, reading them in pieces. Not here: what is looked for.
"""

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

PIECE: Final = 2**22
"""Characters or bytes of a text that are looked at together."""
OVERLAP: Final = 2**14
"""Bytes that a piece shares with the one before: what is looked for may lie across their border."""

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
_INSIDE_TEXT: Final = re.compile(rb";base64,[A-Za-z0-9+/=]+")
"""A picture in a page or a cell: so many letters that any short name stands among them by chance."""
_TABLES = {".csv", ".tsv"}
_NO_LETTERS = {0xFEFF: " ", 0xFFFD: " "}  # a byte order mark, and what stands for a byte that is no text
_LONGEST_HEADER = 2**28  # bytes, of a weights file


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a file's text; `in_cells` where it holds cells of a table and nothing else."""

    text: str
    in_cells: bool


def files_below(place: Path, without: Iterable[Path]) -> Iterator[Path]:
    """`place` itself where it is a file, else every regular file below it, but for the folders `without`.

    Symbolic links are not followed.
    """
    left_out = {path.resolve() for path in without}
    if any(place.resolve().is_relative_to(path) for path in left_out):
        return
    if place.is_file() and not place.is_symlink():
        yield place
    for folder, folders, names in os.walk(place):
        here = Path(folder).resolve()
        folders[:] = sorted(name for name in folders if here / name not in left_out)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def texts(path: Path) -> Iterator[Text]:
    """The text of the file at `path`, in pieces; none of a picture, in a text neither, or of a file that has vanished.

    A table, database or graph that cannot be read as such is read as bytes. Raises `OSError` where the file cannot be
    read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(_PICTURES):
            return
        if head.startswith(b"SQLite format 3\0"):
            yield from _or_bytes(_of_database(path), path)
        elif head.startswith(b"PAR1"):
            yield from _or_bytes(_of_table(path), path)
        elif path.suffix == ".onnx":
            yield from _or_bytes(_of_graph(path), path)
        else:
            yield from _of_bytes(path, _weights_header(head) if path.suffix == ".safetensors" else None)
    except FileNotFoundError:
        return


def _or_bytes(pieces: Iterator[Text], path: Path) -> Iterator[Text]:
    try:
        yield from pieces
    except (sqlite3.Error, pa.ArrowException, DecodeError, OSError):  # Arrow says so where a table is cut short
        yield from _of_bytes(path, None)


def _of_bytes(path: Path, end: int | None) -> Iterator[Text]:
    """The file up to byte number `end` as UTF-8, in pieces that overlap."""
    in_cells, left = path.suffix.lower() in _TABLES, end if end is not None else path.stat().st_size
    with path.open("rb") as file:
        before = b""
        while left > 0 and (data := file.read(min(PIECE, left))):
            left -= len(data)
            piece = _without_pictures(before + data)
            yield Text(_decoded(piece), in_cells)
            before = piece[-OVERLAP:]


def _without_pictures(text: bytes) -> bytes:
    """`text` with what announces a picture in base64, and without the picture; so the rest of it is found, too."""
    return _INSIDE_TEXT.sub(b";base64,", text)


def _weights_header(head: bytes) -> int:
    """Where the JSON header of a safetensors file ends: its length stands in the first eight bytes."""
    return min(8 + int.from_bytes(head[:8], "little"), _LONGEST_HEADER)


def _of_table(path: Path) -> Iterator[Text]:
    """Column names and metadata, then every cell of text; pixels are of fixed size and are no text."""
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        columns = [name for name, kind in zip(schema.names, schema.types, strict=True) if _holds_text(kind)]
        yield Text(_described(schema), in_cells=False)
        for batch in file.iter_batches(columns=columns) if columns else ():
            cells = (_as_text(cell) for column in batch.columns for cell in _cells(column))
            yield from (Text(piece, in_cells=True) for piece in _joined(cells))


def _described(schema: pa.Schema) -> str:
    metadata = [schema.metadata, *(field.metadata for field in schema)]
    stated = [part.decode("utf-8", "replace") for one in metadata if one for pair in one.items() for part in pair]
    return "\n".join([*schema.names, *stated])


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_text(kind.field(number).type) for number in range(kind.num_fields))
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _cells(column: pa.Array) -> Iterator[str | bytes]:
    """The different cells of text in `column`, also inside lists and structs."""
    if not _holds_text(column.type):
        return
    if pa.types.is_dictionary(column.type):
        yield from _cells(column.dictionary)
    elif pa.types.is_struct(column.type):
        for child in column.flatten():
            yield from _cells(child)
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield from _cells(column.flatten())
    else:
        yield from (cell for cell in column.unique().to_pylist() if cell)


def _of_graph(path: Path) -> Iterator[Text]:
    """All of an ONNX file but its weights."""
    import onnx  # noqa: PLC0415 - a third of a second, that a store without such files does not cost

    model = onnx.load(path, load_external_data=False)
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")
    yield Text(model.SerializeToString().decode("utf-8", "replace"), in_cells=False)


def _of_database(path: Path) -> Iterator[Text]:
    """Every cell of text or bytes in every table, opened for reading alone."""
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
        database.text_factory = bytes  # texts that are no UTF-8 are read, too
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            table = name.decode("utf-8", "replace").replace('"', '""')
            rows: Iterable[tuple[Any, ...]] = database.execute(f'SELECT * FROM "{table}"')
            cells = (_as_text(cell) for row in rows for cell in row if isinstance(cell, bytes))
            yield from (Text(piece, in_cells=False) for piece in _joined(cells))


def _as_text(cell: str | bytes) -> str:
    return _decoded(_without_pictures(cell.encode("utf-8", "replace") if isinstance(cell, str) else cell))


def _decoded(data: bytes) -> str:
    """`data` as UTF-8, and as UTF-16 if it holds zero bytes, as a spreadsheet's “Unicode text” does.

    Which byte comes first does not matter: text of either order is read from the first or from the second byte on.
    """
    wide = [(data[start:] + b"\0").decode("utf-16-le", "replace") for start in (0, 1)] if b"\0" in data else []
    return "\n".join([data.decode("utf-8", "replace"), *wide]).translate(_NO_LETTERS)


def _joined(cells: Iterable[str]) -> Iterator[str]:
    """The cells, a line each, in pieces of about `PIECE` characters."""
    piece: list[str] = []
    length = 0
    for cell in cells:
        piece.append(cell)
        length += len(cell) + 1
        if length >= PIECE:
            yield "\n".join(piece)
            piece, length = [], 0
    if piece:
        yield "\n".join(piece)
