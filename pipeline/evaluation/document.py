"""The parts of a report (tables, sections, pictures, chapters) and their Markdown and LaTeX."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline import markdown

_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": r"$\pm$",
        "−": "$-$",
        "≥": r"$\geq$",
    }
)


@dataclass(frozen=True)
class Bold:
    """A table cell printed in bold."""

    text: str


TableCell = str | Bold
Row = TypeVar("Row")


@dataclass(frozen=True)
class TextTable:
    """A table of text: `head`, and `rows` of the same length; columns from `numbers_from` on are right-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    numbers_from: int

    @staticmethod
    def of(rows: Iterable[Row], columns: Mapping[str, Callable[[Row], TableCell]], numbers_from: int) -> "TextTable":
        """A line per row; each of `columns` has its title and the function that prints its cell of a row."""
        body = [tuple(cell(row) for cell in columns.values()) for row in rows]
        return TextTable(tuple(columns), body, numbers_from)

    def markdown(self) -> str:
        """The table in Markdown, one line per row."""
        head, *body = ([_markdown_cell(cell) for cell in row] for row in (self.head, *self.rows))
        return markdown.pipe_table(head, body, self.numbers_from)

    def latex(self, caption: str) -> str:
        """The table in LaTeX (package booktabs)."""
        columns = "l" * self.numbers_from + "r" * (len(self.head) - self.numbers_from)
        head, *body = (f"{' & '.join(map(_latex_cell, row))} \\\\" for row in (self.head, *self.rows))
        lines = [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{caption.translate(_LATEX)}}}",
            f"\\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Section:
    """A table under an optional heading, followed by `notes` (paragraphs) and `points` (a list)."""

    heading: str
    table: TextTable
    notes: Sequence[str] = ()
    points: Sequence[str] = ()

    def markdown(self) -> str:
        """The section in Markdown, its heading at level 3."""
        heading = f"### {self.heading}" if self.heading else ""
        points = "\n".join(f"- {point}" for point in self.points)
        parts = (heading, self.table.markdown().rstrip(), *self.notes, points)
        return "\n\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True)
class Picture:
    """A PNG file with its caption and its text alternative for screen readers."""

    path: Path
    caption: str
    shows: str


@dataclass(frozen=True)
class Chapter:
    """A titled part of a report; `anchor` is its name in links. Markdown leaves the pictures out."""

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    sections: Sequence[Section] = ()
    pictures: Sequence[Picture] = ()

    def markdown(self) -> str:
        """The chapter in Markdown, its title at level 2."""
        return f"## {self.title}\n\n{self.body()}"

    def body(self) -> str:
        """The chapter in Markdown without its title."""
        return "\n\n".join((*self.paragraphs, *(section.markdown().rstrip() for section in self.sections))) + "\n"


def _markdown_cell(cell: TableCell) -> str:
    return f"**{markdown.cell(cell.text)}**" if isinstance(cell, Bold) else markdown.cell(cell)


def _latex_cell(cell: TableCell) -> str:
    return f"\\textbf{{{_latex_cell(cell.text)}}}" if isinstance(cell, Bold) else cell.translate(_LATEX)
