"""Reads the text in a store's files: cells of tables, rows of databases, names of weights, else all bytes."""

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
"""Characters or bytes of a text that are searched together."""
OVERLAP: Final = 2**14
"""Bytes that a piece shares with the one before, since a match may lie across their border."""

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
_INSIDE_TEXT: Final = re.compile(rb";base64,[A-Za-z0-9+/=]+")
"""A picture in a page or a cell, long enough to hold any short name by chance."""
_TABLES = {".csv", ".tsv"}
_NO_LETTERS = {0xFEFF: " ", 0xFFFD: " "}  # a byte order mark, and the replacement of an invalid byte
_LONGEST_HEADER = 2**28  # bytes, of a weights file


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of a file's text; `in_cells` if it holds nothing but cells of a table."""

    text: str
    in_cells: bool


def files_below(path: Path, excluded: Iterable[Path]) -> Iterator[Path]:
    """`path` itself if it is a file, else every regular file below it, except those in the folders `excluded`.

    Symbolic links are not followed.
    """
    resolved = {folder.resolve() for folder in excluded}
    if any(path.resolve().is_relative_to(folder) for folder in resolved):
        return
    if path.is_file() and not path.is_symlink():
        yield path
    for parent, folders, names in os.walk(path):
        here = Path(parent).resolve()
        folders[:] = sorted(name for name in folders if here / name not in resolved)
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink():
                yield file


def text_pieces(path: Path) -> Iterator[TextPiece]:
    """The text of the file at `path`, in pieces, without pictures; empty if the file has vanished.

    A table, database or graph that cannot be read as such is read as bytes. Raises `OSError` if the file cannot be
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


def _or_bytes(pieces: Iterator[TextPiece], path: Path) -> Iterator[TextPiece]:
    try:
        yield from pieces
    except (sqlite3.Error, pa.ArrowException, DecodeError, OSError):  # OSError: a truncated table
        yield from _of_bytes(path, None)


def _of_bytes(path: Path, end: int | None) -> Iterator[TextPiece]:
    """The first `end` bytes of the file as UTF-8, in pieces that overlap."""
    in_cells, left = path.suffix.lower() in _TABLES, end if end is not None else path.stat().st_size
    with path.open("rb") as file:
        before = b""
        while left > 0 and (data := file.read(min(PIECE, left))):
            left -= len(data)
            piece = _without_pictures(before + data)
            yield TextPiece(_decoded(piece), in_cells)
            before = piece[-OVERLAP:]


def _without_pictures(text: bytes) -> bytes:
    """`text` without its pictures in base64."""
    return _INSIDE_TEXT.sub(b";base64,", text)


def _weights_header(head: bytes) -> int:
    """The end of a safetensors file's JSON header, whose length stands in the first eight bytes."""
    return min(8 + int.from_bytes(head[:8], "little"), _LONGEST_HEADER)


def _of_table(path: Path) -> Iterator[TextPiece]:
    """Column names and metadata, then every cell of text; pixels, of fixed size, are not text."""
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        columns = [name for name, kind in zip(schema.names, schema.types, strict=True) if _is_text(kind)]
        yield TextPiece(_described(schema), in_cells=False)
        for batch in file.iter_batches(columns=columns) if columns else ():
            cells = (_as_text(cell) for column in batch.columns for cell in _cells(column))
            yield from (TextPiece(piece, in_cells=True) for piece in _joined(cells))


def _described(schema: pa.Schema) -> str:
    metadata = [schema.metadata, *(field.metadata for field in schema)]
    stated = [part.decode("utf-8", "replace") for one in metadata if one for pair in one.items() for part in pair]
    return "\n".join([*schema.names, *stated])


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_is_text(field.type) for field in kind)
    return kind in {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}


def _cells(column: pa.Array) -> Iterator[str | bytes]:
    """The distinct cells of text in `column`, also inside lists and structs."""
    if not _is_text(column.type):
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


def _of_graph(path: Path) -> Iterator[TextPiece]:
    """All of an ONNX file except its weights."""
    import onnx  # noqa: PLC0415 - takes a third of a second, only for stores with such files

    model = onnx.load(path, load_external_data=False)
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")
    yield TextPiece(model.SerializeToString().decode("utf-8", "replace"), in_cells=False)


def _of_database(path: Path) -> Iterator[TextPiece]:
    """Every cell of text or bytes in every table, opened read-only."""
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
        database.text_factory = bytes  # reads texts that are not UTF-8, too
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            table = name.decode("utf-8", "replace").replace('"', '""')
            rows: Iterable[tuple[Any, ...]] = database.execute(f'SELECT * FROM "{table}"')
            cells = (_as_text(cell) for row in rows for cell in row if isinstance(cell, bytes))
            yield from (TextPiece(piece, in_cells=False) for piece in _joined(cells))


def _as_text(cell: str | bytes) -> str:
    return _decoded(_without_pictures(cell.encode("utf-8", "replace") if isinstance(cell, str) else cell))


def _decoded(data: bytes) -> str:
    """`data` as UTF-8, and if it holds zero bytes, as a spreadsheet's “Unicode text” does, also as UTF-16.

    UTF-16 is read from the first and from the second byte on, which covers both byte orders.
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
