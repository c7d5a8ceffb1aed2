"""CSV files that people edit with spreadsheets: encodings, separators, blank rows, column names."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import UserError, user_error

NOT_REVIEWED = "?"
"""First character of a worklist's cell that is not reviewed yet; such a row counts as absent."""

_SEPARATORS = (",", ";", "\t")
_AS_UTF_8 = "save it as “CSV UTF-8”"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_GARBLED_MARK = "\xef\xbb\xbf"  # UTF-8's byte order mark, read as Windows-1252
_OTHER_SCRIPT = re.compile("[\xc0-\xff]{3}")
_LONE_DASH = re.compile(r"(?<![^\W\d_])–(?![^\W\d_])")  # Mac OS Roman and DOS code pages have a letter at its byte
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # the first line of some exports; Excel honours it


@dataclass(frozen=True)
class Row:
    """A row of the table `name` at `path`; `cells` are stripped, by column name."""

    name: str
    path: Path
    line: int
    cells: Mapping[str, str]

    @property
    def location(self) -> str:
        """The row as error messages name it."""
        return f"{self.name} {self.path}, line {self.line}"


def read_csv(name: str, path: Path, required: Sequence[str], optional: Collection[str] = ()) -> Iterator[Row]:
    """The rows of the CSV at `path` without blank ones; error messages call the table `name`.

    The separator is a comma, semicolon or tab, whichever yields the `required` columns in the first line. Missing cells
    at the end of a row are empty if their columns are `optional`. UTF-8 that was once read as Windows-1252 is repaired
    if the byte order mark shows it. Raises `UserError` for an unknown encoding and for columns and cells that do not
    fit; it names file, line and column and quotes no cell below the first line.
    """
    text = _text(name, path)
    lines, skipped = _lines(text)
    columns: tuple[str, ...] | None = None
    for line, cells in _cells(name, path, lines, _separator(lines, required)):
        row = Row(name, path, line + skipped, {})
        read = [_cell(cell, garbled=text.startswith(_GARBLED_MARK)) for cell in cells]
        if columns is None:
            columns = _columns(row.location, read, required, optional)
        elif any(read):
            yield replace(row, cells=_by_column(row.location, columns, read, required))
    if columns is None:
        raise UserError(f"{name} {path}, line 1: no column {required[0]!r}; the table is empty.")


def has_columns(name: str, path: Path, columns: Sequence[str]) -> bool:
    """Whether the first line of the CSV at `path` names all of `columns`, in any case and order.

    Raises `UserError` for an unknown encoding.
    """
    lines, _ = _lines(_text(name, path))
    _, first = next(_cells(name, path, lines, _separator(lines, columns)), (0, []))
    return {_cell(cell).lower() for cell in first}.issuperset(columns)


def csv_files_in(name: str, folder: Path) -> list[Path]:
    """The CSV files in `folder` by name, without hidden and temporary ones."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    except OSError as error:
        raise user_error(f"{name} {folder} cannot be listed: {error.strerror}.", error) from None
    return [path for path in found if not path.name.startswith((".", "~$")) and not path.is_dir()]


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV with the header `columns` and `rows`, separated by commas; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def fix_mojibake(text: str) -> str:
    """`text` before its UTF-8 was read as Windows-1252; `text` itself if that did not happen."""
    try:
        return b"".join(_byte(sign) for sign in text).decode("utf-8")
    except UnicodeError:
        return text


def _byte(sign: str) -> bytes:
    """The byte of `sign` in Windows-1252; programs read its five unused bytes as control characters."""
    return bytes([ord(sign)]) if "\x80" <= sign <= "\x9f" else sign.encode("cp1252")


def _text(name: str, path: Path) -> str:
    try:
        if not path.is_file():
            raise UserError(f"{name} {path} is not a file.")
        content = path.read_bytes()
    except OSError as error:
        raise user_error(f"{name} {path} cannot be opened: {error.strerror}.", error) from None
    if content.startswith(_WORKBOOKS):
        raise UserError(f"{name} {path} is a workbook, not a CSV: {_AS_UTF_8}.")
    text = _decoded(name, path, content)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{name} {path}, line {line}: it contains zero bytes, so it is not text: {_AS_UTF_8}.")
    return text


def _decoded(name: str, path: Path, content: bytes) -> str:
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        western = _western(content) if encoding == "utf-8" else None
        if western is not None:
            return western
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{name} {path}, line {line}: unknown encoding, neither UTF-8 nor certainly Windows-1252: {_AS_UTF_8}."
        ) from None


def _western(content: bytes) -> str | None:
    """`content` as Windows-1252, None if it could be in another single-byte encoding.

    Beyond ASCII it may contain the degree sign, no-break spaces, en dashes beside no letter, and accented letters of
    western Europe, but not three in a row, as other scripts would give. Mac OS Roman and central European encodings use
    other bytes for letters.
    """
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return None
    beyond = {sign for sign in _LONE_DASH.sub("", text) if sign > "\x7f"} - {"\xa0", "\xb0"}
    western = all("\xc0" <= sign <= "\xff" and sign not in "×÷ÐðÞþÿ" for sign in beyond)
    return text if western and not _OTHER_SCRIPT.search(text) else None


def _lines(text: str) -> tuple[str, int]:
    """The table's text without byte order mark and `sep=` line, and the number of lines removed."""
    shown = text.removeprefix("\ufeff").removeprefix(_GARBLED_MARK)
    stated = _SEPARATOR_LINE.match(shown)
    return (shown[stated.end() :], 1) if stated else (shown, 0)


def _separator(text: str, required: Sequence[str]) -> str:
    """The separator that yields most of the `required` columns in the first non-blank line; else a comma."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip(' ,;\t\r\n"')), "")

    def shown(separator: str) -> int:
        cells = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        return len({_cell(cell).lower() for cell in cells}.intersection(required))

    return max(_SEPARATORS, key=shown)


def _cells(name: str, path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each row's first line number and cells, from the first non-blank row on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    begun, line = False, 1
    try:
        for cells in reader:
            begun = begun or any(cell.strip() for cell in cells)
            if begun:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name} {path}, line {line}: cannot be read as CSV: {error}.") from None


def _cell(cell: str, garbled: bool = False) -> str:
    return (fix_mojibake(cell) if garbled else cell).strip().strip("\ufeff")


def _columns(
    location: str, named: Sequence[str], required: Sequence[str], optional: Collection[str]
) -> tuple[str, ...]:
    """The checked column names in lower case, without empty ones at the end."""
    known = [*required, *optional]
    columns = [cell.lower() for cell in named]
    while columns and not columns[-1]:
        columns.pop()
    for column in required:
        if column not in columns:
            raise UserError(f"{location}: no column {column!r}; the columns are {', '.join(known)}.")
    for column, cell in zip(columns, named, strict=False):
        if column not in known:
            raise UserError(f"{location}: unknown column {cell!r}; known are {', '.join(known)}.")
    for column, times in Counter(columns).items():
        if times > 1:
            raise UserError(f"{location}: column {column!r} occurs {times} times.")
    return tuple(columns)


def _by_column(
    location: str, columns: Sequence[str], cells: Sequence[str], required: Iterable[str]
) -> Mapping[str, str]:
    surplus = any(cells[len(columns) :])
    if surplus or any(columns.index(column) >= len(cells) for column in required):
        raise UserError(f"{location}: not as many cells as columns; quote cells that hold a separator.")
    return dict(zip(columns, [*cells, *[""] * len(columns)], strict=False))
