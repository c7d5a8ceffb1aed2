"""Text that comes from files or users within Markdown: it is shown, and is never markup.

Belongs here: one way to escape, for Dagster's pages, MLflow's notes and our own reports. Not here: HTML (Jinja does).
"""

import re
import unicodedata
from urllib.parse import quote

_SIGNS = re.compile(
    r"[\\`*{}#~|$^]|\[(?![-+−\d])|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|!(?=\[)|(?<![^\W_])_|_(?![^\W_])"
)
"""What CommonMark, its table and footnote extensions and mathematics give a meaning within a line."""
_BLOCK = re.compile(r"([-+](?=[-+\s]|$)|[=:>])|\d{1,9}(?=[.)](\s|$))")
"""What they give one at the start of a line."""
_LINKS = re.compile(r"://|www\.|@|(mailto|xmpp|javascript|data|ftp):(?=\S)", re.IGNORECASE)
"""What renderers make a link of, though it stands in plain text and is escaped."""
_IN_ADDRESSES = "/:?#@!$&'*+,;=%~-._"
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
"""Unicode categories of what is not shown as it is: controls, marks of direction, characters without width."""


def inline(text: object) -> str:
    """`text` as Markdown that shows these characters, in one line; what could become a link is shown as code."""
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
    """The same for a cell of a table, where no line starts; None is nothing."""
    line = "" if text is None else one_line(str(text))
    return _code(line).replace("|", r"\|") if _LINKS.search(line) else _escaped(line)


def link(name: str, address: str) -> str:
    """A link that shows `name`; `address` is our own, and what would end it is encoded."""
    return f"[{inline(name)}]({quote(address, safe=_IN_ADDRESSES)})"


def one_line(text: str) -> str:
    """`text` without line breaks, and with a question mark in a diamond for each character that is not shown."""
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
