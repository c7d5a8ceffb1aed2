"""What the worklists have in common: how to fill them in, and their private page of pictures."""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import dagster as dg
import pyarrow as pa

from pipeline.recipe import Recipe
from pipeline.store import Store
from resources.archive import Archive

Name = TypeVar("Name", bound=Hashable)
Rows = Sequence[tuple[Name, str, Sequence[tuple[str, str]]]]
"""Of each row of a worklist its name, its title, and facts with their names."""


_NO_REVIEW = "A suggestion saves typing. It is not a review."


def to_fill_in(worklist: str, recipe: Recipe, steps: Sequence[str]) -> dg.MarkdownMetadataValue:
    """How to fill in `<worklist>.csv`: to look at its page, and `steps`, which are Markdown, as a numbered list."""
    look = f"Look at the pictures: open `private/experiments/{recipe.name}/{worklist}.html` of the store in a browser."
    return dg.MetadataValue.md("".join(f"{number}. {step}\n" for number, step in enumerate((look, *steps), 1)))


def write_pictures(
    store: Store,
    recipe: Recipe,
    archive: Archive,
    worklist: str,
    about: Sequence[str],
    steps: Sequence[str],
    rows: Rows[Name],
    name_of: Mapping[str, Name],
    index: pa.Table,
    images: pa.Table,
) -> None:
    """Write `<worklist>.html` to the recipe's private folder: paragraphs `about`, `steps`, `rows` and their pictures.

    `name_of` maps sop_instance to the name of a row.
    """
    from pipeline.archive.crop_sheet import FrameSource
    from pipeline.archive.worklist_page import Worklist, WorklistRow, write_worklist_page
    from pipeline.pages.picture_page import Intro

    plain = [re.sub(r"[*`]", "", step) for step in steps]
    title = f"{worklist} of the recipe {recipe.name}"
    shown = Worklist(title, Intro([*about, _NO_REVIEW], plain), [WorklistRow(*row) for row in rows], name_of)
    source = FrameSource(index, archive.folder, store.private, recipe.archive.frames_per_cine)
    write_worklist_page(store.private_of(recipe.name) / f"{worklist}.html", shown, images, source)
