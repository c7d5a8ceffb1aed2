"""Markdown for Dagster's pages, MLflow's notes and reports: escaping of text from files and users, links, tables."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import quote

_SIGNS = re.compile(
    r"[\\`*{}#~|$^]|\[(?![-+−\d])|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|!(?=\[)|(?<![^\W_])_|_(?![^\W_])"
)
"""Markup within a line in CommonMark, its table and footnote extensions and mathematics."""
_BLOCK = re.compile(r"([-+](?=[-+\s]|$)|[=:>])|\d{1,9}(?=[.)](\s|$))")
"""Markup at the start of a line."""
_LINKS = re.compile(r"://|www\.|@|(mailto|xmpp|javascript|data|ftp):(?=\S)", re.IGNORECASE)
"""Text that renderers turn into links, even if escaped."""
_IN_ADDRESSES = "/:?#@!$&'*+,;=%~-._"
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
"""Unicode categories of invisible characters: controls, direction marks, characters without width."""


def inline(text: object) -> str:
    """`text` as one line of Markdown that shows it literally; text that could become a link is shown as code."""
    line = one_line(str(text))
    if _LINKS.search(line):
        return _code(line)
    escaped = _escaped(line)
    start = _BLOCK.match(escaped)
    if start is None:
        return escaped
    number = "" if start[1] else start[0]
    return f"{number}\\{escaped[len(number) :]}"


def cell(text: object) -> str:
    """As `inline` for a table cell, which starts no line; None is empty."""
    line = "" if text is None else one_line(str(text))
    return _code(line).replace("|", r"\|") if _LINKS.search(line) else _escaped(line)


def link(name: str, address: str) -> str:
    """A link with the text `name`; characters that would end `address`, which must be our own, are encoded."""
    return f"[{inline(name)}]({quote(address, safe=_IN_ADDRESSES)})"


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int | None = None) -> str:
    """A pipe table, a line per row; cells are Markdown, columns from the position `numbers_from` on right-aligned."""
    left = len(head) if numbers_from is None else numbers_from
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def one_line(text: str) -> str:
    """`text` as one line with U+FFFD for each invisible character."""
    spaced = "".join(" " if character.isspace() else character for character in text)
    shown = ("�" if unicodedata.category(character) in _UNSEEN else character for character in spaced)
    return " ".join("".join(shown).split())


def _escaped(line: str) -> str:
    return _SIGNS.sub(lambda sign: f"\\{sign[0]}", line)


def _code(line: str) -> str:
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"
