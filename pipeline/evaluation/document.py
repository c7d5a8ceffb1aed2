"""Tables for reading, and the chapters around them, in Markdown and in LaTeX; `page` makes HTML of the same.

Belongs here: rows of text to either format. Not here: what the text says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


class Bold(str):
    """A cell that stands out."""

    __slots__ = ()


@dataclass(frozen=True)
class TextTable:
    """A table: `head`, and rows as wide as it; columns from `numbers_from` on are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int

    def markdown(self) -> str:
        """As a Markdown table, a line per row."""
        rule = ["---" if column < self.numbers_from else "---:" for column in range(len(self.head))]
        head, *body = ([_markdown_cell(one) for one in row] for row in (self.head, *self.rows))
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body)) + "\n"

    def latex(self, caption: str) -> str:
        """As a LaTeX table, which needs the package booktabs."""
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
    """A table under its heading, if it has one; below it `notes`, a paragraph each, and `points`, a list."""

    heading: str
    table: TextTable
    notes: Sequence[str] = ()
    points: Sequence[str] = ()

    def markdown(self) -> str:
        """As Markdown; the heading is of the third level."""
        heading = f"### {self.heading}" if self.heading else ""
        points = "\n".join(f"- {point}" for point in self.points)
        parts = (heading, self.table.markdown().rstrip(), *self.notes, points)
        return "\n\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True)
class Picture:
    """A PNG file with the sentence below it, and what it shows for who cannot see it."""

    path: Path
    caption: str
    shows: str


@dataclass(frozen=True)
class Chapter:
    """What a report says under one heading; `anchor` names it in a link. Pictures are left out of Markdown."""

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    sections: Sequence[Section] = ()
    pictures: Sequence[Picture] = ()

    def markdown(self) -> str:
        """As Markdown; the heading is of the second level."""
        return f"## {self.title}\n\n{self.body()}"

    def body(self) -> str:
        """As Markdown without the heading."""
        return "\n\n".join((*self.paragraphs, *(section.markdown().rstrip() for section in self.sections))) + "\n"


def _markdown_cell(cell: str) -> str:
    text = markdown.cell(cell)
    return f"**{text}**" if isinstance(cell, Bold) else text


def _latex_cell(cell: str) -> str:
    text = cell.translate(_LATEX)
    return f"\\textbf{{{text}}}" if isinstance(cell, Bold) else text
