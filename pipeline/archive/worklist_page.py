"""The pictures of a worklist as one private page: frames decoded again, since cached images can be too small."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import pyarrow as pa

from pipeline import code_versions
from pipeline.archive.crop_sheet import FrameSource, Row, read_preview, without_legible_text
from pipeline.archive.workers import Failed
from pipeline.dicom.grey import Grey, jpeg, resize_to_height, source_digest
from pipeline.files import digest
from pipeline.labels.worklist import example_images
from pipeline.pages.picture_page import PICTURE_HEIGHT, Intro, PictureRow, is_made_from, page_html, write_page
from pipeline.tables import IMAGES

MAX_ROWS: Final = 50
"""Rows on a page; the CSV beside it has all."""
PICTURES: Final = 9
"""Pictures per row, each of another patient."""
MAX_BYTES: Final = 24 * 2**20
"""Size of all pictures of a page; later rows have none. A page of 450 usual ones takes 7 MiB."""

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class WorklistRow(Generic[Name]):
    """A row of a worklist: its name in `Worklist.name_of`, its title, and facts with their names."""

    name: Name
    title: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Worklist(Generic[Name]):
    """A worklist to show: `rows` in its order, and the name of each record (by sop_instance) that a row is about."""

    title: str
    intro: Intro
    rows: Sequence[WorklistRow[Name]]
    name_of: Mapping[str, Name]


def write_worklist_page(path: Path, worklist: Worklist[Name], images: pa.Table, source: FrameSource) -> bool:
    """Write the page of the first MAX_ROWS rows; False if the same rows and images have already made it.

    Each row has up to PICTURES pictures of `images` (IMAGES): cropped frames of different patients, without those of
    `uncropped_with_text`. A frame that cannot be read, or whose pixels are no longer those of the image, is left out
    and tried again at the next call.
    """
    rows = worklist.rows[:MAX_ROWS]
    images = without_legible_text(images, source.records)
    chosen = example_images(worklist.name_of, images, [row.name for row in rows], PICTURES)
    digests = {name: [one.encode() for one in found["source_digest"].to_pylist()] for name, found in chosen.items()}
    intro = _with_limits(worklist.intro, len(rows), len(worklist.rows))
    planned = [PictureRow(row.title, row.facts, digests.get(row.name, [])) for row in rows]
    made_from = digest(page_html(worklist.title, intro, planned), code_versions.IMAGES)
    if is_made_from(path, made_from):
        return False
    pictures, complete = _pictures(chosen, source)
    shown = [PictureRow(row.title, row.facts, pictures.get(row.name, [])) for row in rows]
    write_page(path, worklist.title, intro, shown, made_from if complete else "")
    return True


def _with_limits(intro: Intro, shown: int, rows: int) -> Intro:
    """`intro` before what a page can show."""
    more = f" {rows - shown} more are in the CSV beside this page, and follow when these are reviewed."
    limits = (
        f"Rows on this page: {shown} of {rows}, in the order of the CSV.{more if rows > shown else ''}",
        f"A row has up to {PICTURES} pictures, of different patients unless it is about one. They show the insonated "
        "area, without the rest of the frame; images that are not cropped are left out if their header states "
        f"burned-in text. All pictures together take at most {MAX_BYTES >> 20} MiB.",
        "This page is private: it may show descriptions and names that too few patients share to be published.",
    )
    return Intro([*intro.paragraphs, *limits], intro.steps)


def _pictures(chosen: Mapping[Name, pa.Table], source: FrameSource) -> tuple[dict[Name, list[bytes]], bool]:
    """The pictures of `chosen` (rows of IMAGES by name) up to MAX_BYTES, and whether none of these has failed."""
    pictures: dict[Name, list[bytes]] = {name: [] for name in chosen}
    wanted = pa.concat_tables([IMAGES.schema.empty_table(), *chosen.values()])
    names = (name for name, rows in chosen.items() for _ in range(rows.num_rows))
    complete, size = True, 0
    for name, expected, found in zip(
        names, wanted["source_digest"].to_pylist(), source.read_each(read_picture, wanted), strict=True
    ):
        if isinstance(found, Failed) or found is None or found[0] != expected:
            complete = False
            continue
        picture = jpeg(found[1])
        size += len(picture)
        if size <= MAX_BYTES:
            pictures[name].append(picture)
    return pictures, complete


def read_picture(archive: str, per_cine: int, row: Row) -> tuple[str, Grey] | None:
    """In a worker: the digest of a whole frame, and its insonated area at PICTURE_HEIGHT; None if it is unreadable."""
    preview = read_preview(archive, per_cine, row)
    if preview is None:
        return None
    return source_digest(preview.before_HW), resize_to_height(preview.after_HW, PICTURE_HEIGHT)
