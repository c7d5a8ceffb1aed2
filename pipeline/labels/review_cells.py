"""Cells of the tables that a reviewer fills in: groups, shapes and dates, checked."""

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import cast

from pipeline.csv_files import Row
from pipeline.errors import UserError
from pipeline.recipe.labels import SHAPES, Shape, folded

Groups = tuple[str, ...]


def groups_in(row: Row, known: Sequence[str]) -> Groups:
    """The groups in the cell `groups`, spelt and ordered as in `known`, those of the recipe.

    Raises `UserError` for a name that is not among them.
    """
    spelt = {folded(name): name for name in known}
    named = [name for part in re.split("[,;]", row.cells["groups"]) if (name := folded(part))]
    if not spelt.keys() >= set(named):
        raise UserError(f"{row.location}: groups contains a name that is none of {', '.join(known)}.")
    chosen = {spelt[name] for name in named}
    return tuple(name for name in known if name in chosen)


def shape_in(row: Row) -> Shape:
    """The shape in the cell `shape`; raises `UserError` for an unknown one."""
    shape = row.cells["shape"].lower()
    if shape not in SHAPES:
        raise UserError(f"{row.location}: shape {row.cells['shape']!r} is none of {', '.join(SHAPES)}.")
    return cast(Shape, shape)


def review_day(row: Row) -> str:
    """The cell `reviewed_on` as ISO 8601, whose text order is the order in time; empty if the row has no date.

    DD.MM.YYYY of some spreadsheets is read, too, but no slashes, which are ambiguous. Raises `UserError` for others.
    """
    text = row.cells.get("reviewed_on", "")
    try:
        if "." in text:
            return datetime.strptime(text, "%d.%m.%Y").date().isoformat()
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise UserError(f"{row.location}: reviewed_on is not a date of the form YYYY-MM-DD or DD.MM.YYYY.") from None
