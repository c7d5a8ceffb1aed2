"""The crop sheet: frames before and after cropping, with everything outside the crop made illegible."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from pipeline.archive.frame_reader import SECONDS_PER_FRAME
from pipeline.archive.listing import known_files
from pipeline.archive.location import normalized
from pipeline.archive.source import open_file
from pipeline.archive.workers import SECONDS, Failed, each_in_worker
from pipeline.dicom.cine import Cine
from pipeline.dicom.crop import CropRegion, crop_frame
from pipeline.dicom.grey import Grey
from pipeline.dicom.pixel_file import PixelFile, select_frames
from pipeline.dicom.rejections import outcome_of

MAX_PREVIEWS: Final = 24
"""Previews on a sheet; further ones are left out."""
MOSAIC: Final = 24
"""Blocks across a frame to which everything outside the crop is averaged. Names there have letters of at most a
fiftieth of the width, so that a block covers two or more."""

Row = tuple[str, bytes, int, int]
"""A frame to read: its caption, path, number of frames in the file, and number from 0."""
Result = TypeVar("Result")

_TILE = 220  # pixels, both sides, of one picture
_CAPTION = 18
_ACROSS = 2  # previews in a row: fits Dagster's page without scrolling sideways


@dataclass(frozen=True, slots=True)
class CropPreview:
    """A frame as decoded, its crop region, the cropped frame, and a caption (a file id, never a path)."""

    before_HW: Grey
    crop: CropRegion
    after_HW: Grey
    caption: str


def crop_sheet(previews: Sequence[CropPreview], path: Path) -> None:
    """Write a PNG of up to 24 previews to `path`: before on the left, after on the right, the cropping method below.

    The picture before shows everything outside the crop as coarse blocks.
    """
    drawn = previews[:MAX_PREVIEWS]
    rows = max(1, -(-len(drawn) // _ACROSS))
    sheet = Image.new("L", (_ACROSS * 2 * _TILE, rows * (_TILE + _CAPTION)), 40)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for number, preview in enumerate(drawn):
        left, top = number % _ACROSS * 2 * _TILE, number // _ACROSS * (_TILE + _CAPTION)
        for side, picture in enumerate((_illegible_outside(preview.before_HW, preview.crop), preview.after_HW)):
            tile = Image.fromarray(picture)
            tile.thumbnail((_TILE - 4, _TILE - 4))
            sheet.paste(tile, (left + side * _TILE + 2, top + 2))
        draw.text((left + 2, top + _TILE), f"{preview.caption}  {preview.crop.found_by}", fill=255, font=font)
    if not drawn:
        draw.text((2, 2), "no images", fill=255, font=font)
    sheet.save(path, format="PNG")


def _illegible_outside(grey_HW: Grey, crop: CropRegion) -> Grey:
    """The frame with everything outside the crop averaged to blocks."""
    height, width = grey_HW.shape
    across = min(MOSAIC, width)
    down = max(1, height * across // width)
    coarse = Image.fromarray(grey_HW).resize((across, down), Image.Resampling.BOX)
    blurred = np.array(coarse.resize((width, height), Image.Resampling.NEAREST))
    box = np.s_[crop.top : crop.bottom, crop.left : crop.right]
    blurred[box] = np.where(True if crop.inside is None else crop.inside, grey_HW[box], blurred[box])
    return blurred


def uncropped_with_text(images: pa.Table, records: pa.Table) -> list[str]:
    """Sorted ids of files whose header states burned-in text and whose `images` (IMAGES) were not cropped."""
    instances = images.filter(_has_text(images, records))["sop_instance"]
    return sorted(set(records["file_id"].take(pc.index_in(instances, value_set=records["sop_instance"])).to_pylist()))


def _has_text(images: pa.Table, records: pa.Table) -> pa.ChunkedArray:
    burned_in = records["burned_in"].take(pc.index_in(images["sop_instance"], value_set=records["sop_instance"]))
    return pc.and_(pc.equal(images["cropped_by"], "whole"), burned_in)


def without_legible_text(images: pa.Table, records: pa.Table) -> pa.Table:
    """`images` (IMAGES) without those of `uncropped_with_text`, in which the text would be legible."""
    return images.filter(pc.invert(_has_text(images, records)))


@dataclass(frozen=True)
class FrameSource:
    """Where the frames of cached images are: an archive, its records (DICOM_INDEX), and the store's private folder."""

    records: pa.Table
    archive: str
    private: Path
    per_cine: int
    """Frames of a cine that became images (`archive.frames_per_cine`); all of them determine the crop region."""

    def read_each(self, read: Callable[[str, int, Row], Result], images: pa.Table) -> Iterator[Result | Failed]:
        """`read(archive, per_cine, row)` in a worker for each of `images` (IMAGES), in their order."""
        records, known = self.records, known_files(self.private)
        of_images = records.take(pc.index_in(images["sop_instance"], value_set=records["sop_instance"]))
        paths = known["path"].take(pc.index_in(of_images["file_id"], value_set=known["file_id"]))
        columns = (of_images["file_id"], paths, of_images["frames"], images["frame"])
        archive, seconds = normalized(self.archive), SECONDS + SECONDS_PER_FRAME * self.per_cine
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        return each_in_worker(partial(read, archive, self.per_cine), rows, seconds, readable=[archive])


def crop_previews(images: pa.Table, source: FrameSource, count: int) -> list[CropPreview]:
    """Previews of `count` images (IMAGES) spread evenly over the archive, captioned with their file's id.

    They are cropped as by `build_cache`. Those of `uncropped_with_text` are left out.
    """
    images = without_legible_text(images, source.records)
    chosen = images.take(pa.array(range(0, images.num_rows, max(1, -(-images.num_rows // count))), pa.int64()))
    return [found for found in source.read_each(read_preview, chosen) if isinstance(found, CropPreview)]


def read_preview(archive: str, per_cine: int, row: Row) -> CropPreview | None:
    """In a worker: the preview of a frame. None if the file cannot be read or decoded."""
    caption, path, frames, number = row

    def read() -> CropPreview:
        with open_file(archive, os.fsdecode(path), whole=True) as file:
            cine = Cine(PixelFile.open(file), tuple(select_frames(frames, per_cine)))
            grey, crop = cine.frame(number).grey, cine.crop_region()
            return CropPreview(grey, crop, crop_frame(grey, crop), caption)

    found = outcome_of(read)
    return found if isinstance(found, CropPreview) else None
