"""A page of titled rows, each with facts and pictures, for a reviewer to look at without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.files import jpeg_url, write_text
from pipeline.markdown import one_line
from pipeline.pages.templates import page_templates

PICTURE_HEIGHT: Final = 300
"""Pixels: an organ can be recognized, and three pictures fit side by side."""


@dataclass(frozen=True)
class PictureRow:
    """What a reviewer decides on: a title, facts with their names, and pictures as JPEG (`pipeline.dicom.grey`)."""

    title: str
    facts: Sequence[tuple[str, str]]
    pictures: Sequence[bytes]


@dataclass(frozen=True)
class Intro:
    """The beginning of a page: paragraphs, then numbered steps."""

    paragraphs: Sequence[str]
    steps: Sequence[str] = ()


def write_page(path: Path, title: str, intro: Intro, rows: Sequence[PictureRow], made_from: str = "") -> None:
    """Write `page_html` to `path`, accessible to the user alone. `made_from` is a digest for `is_made_from`."""
    write_text(path, page_html(title, intro, rows, made_from))


def page_html(title: str, intro: Intro, rows: Sequence[PictureRow], made_from: str = "") -> str:
    """One self-contained page; the same rows give the same text. All texts are shown literally, each on one line."""
    pages = page_templates()
    pages.filters["one_line"] = one_line
    shown = [(row.title, row.facts, [jpeg_url(picture) for picture in row.pictures]) for row in rows]
    page = pages.get_template("picture_page.html")
    return page.render(title=one_line(title), intro=intro, rows=shown, made_from=made_from)


def is_made_from(path: Path, digest: str) -> bool:
    """Whether `write_page` has written `path` with this digest (hex)."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as page:
        return f'<meta name="made-from" content="{digest}">' in page.read(1000)  # in the head, before any other text
