"""A table for reading, in Markdown and in LaTeX.

Belongs here: rows of text to either format. Not here: what the text says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
class Grid:
    """A table: `head`, and rows as wide as it; columns from `numbers_from` on are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int

    def markdown(self) -> str:
        """As a Markdown table, a line per row."""
        rule = ["---" if column < self.numbers_from else "---:" for column in range(len(self.head))]
        lines = [f"| {' | '.join(map(_markdown_cell, row))} |" for row in (self.head, rule, *self.rows)]
        return "\n".join(lines) + "\n"

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


def _markdown_cell(cell: str) -> str:
    text = cell.replace("|", "/")
    return f"**{text}**" if isinstance(cell, Bold) else text


def _latex_cell(cell: str) -> str:
    text = cell.translate(_LATEX)
    return f"\\textbf{{{text}}}" if isinstance(cell, Bold) else text
