"""Read a task's manifest, a CSV of labelled images, with its files into one table."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.archive.identifier_scan import RecipeTexts
from pipeline.archive.workers import each_in_worker
from pipeline.cohort.near_duplicate_score import SIDE, thumbnails
from pipeline.csv_files import Row, read_csv
from pipeline.dicom.crop import crop_frame
from pipeline.dicom.grey import resize_grey, source_digest
from pipeline.dicom.image_files import PngMask
from pipeline.errors import UserError
from pipeline.labels.study_groups import printed_descriptions
from pipeline.privacy.identity import canonical_number
from pipeline.progress import Log, Progress, silent
from pipeline.recipe import Recipe
from pipeline.recipe.downstream import Task
from pipeline.recipe.images import Images
from pipeline.recipe.reading import existing_file
from pipeline.tasks.class_masks import ClassNumbers, class_numbers
from pipeline.tasks.labelled_files import Failure, LabelledImage, read_error, read_labelled_image, read_labelled_mask
from pipeline.tasks.seg_reader import Segments

SPLITS = ("train", "val", "test")
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
"""Shares of the patients if a manifest has no split column; the rest are for training."""

_CHUNK: Final = 2  # files per job of a worker, which returns whole images
_MAX_NAMED: Final = 10  # lines in a message
_LONGEST_SOURCE: Final = 64
_WHOLE: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class _Row:
    """One line of the CSV, its cells stripped; `location` is its file and line for messages."""

    location: str
    image: str
    patient: str
    label: str
    split: str
    source: str | None


def read_manifest(
    name: str, task: Task, images: Images, pseudonym: Callable[[str], str], log: Log = silent
) -> pa.Table:
    """The labelled images of the task `name`, in the manifest's order.

    Columns: image_id (number of the row, from 0), patient (`pseudonym` of the manifest's), split (train, val, test),
    image (height x width bytes, grey), image_digest (SHA-256 of those bytes), thumbnails (of the cropped image and of
    its tissue, for near-duplicates), source_digest and cropped_by (as in IMAGES), modality (of DICOM images, otherwise
    null), source (only if the manifest has it), and quality (0 to K-1) or mask (height x width bytes, class numbers,
    nearest neighbour). docs/tasks.md states the rules for images, masks, splits and sources.
    Raises `UserError` with manifest, line and field, quoting no cell, for anything missing, unreadable or
    contradictory: the same pixels for two patients, in two splits or with two labels, or one file twice.
    """
    path = existing_file(task.manifest, f"downstream.tasks.{name}.manifest")
    label = _label_column(task)
    rows = _read_rows(path, label)
    splits = _splits(path, rows)
    files = _files(path, rows, "image")
    read_images = each_in_worker(read_labelled_image, files, chunk=_CHUNK, readable=files)
    files = _files(path, rows, "mask") if label == "mask" else []
    masks = each_in_worker(read_labelled_mask, files, chunk=_CHUNK, readable=files)
    made: list[dict[str, Any]] = []
    labelled: list[_Labelled] = []
    with Progress(f"{name} images", len(rows), "images", log) as progress:
        for row, split, image in zip(rows, splits, read_images, strict=True):
            if isinstance(image, Failure):
                raise read_error(image, row.location, "image")
            pixels = _pixel_columns(image, images)
            stored = _classes(row, next(masks), image, task) if label == "mask" else _quality(row, task)
            value = stored if isinstance(stored, int) else _resized_mask(stored, image, images)
            names = {"image_id": len(made), "patient": pseudonym(row.patient), "split": split, "source": row.source}
            made.append(names | pixels | {label: value})
            labelled.append(_labelled(path, row, split, pixels["source_digest"], stored))
            progress.advance()
    _refuse_contradictions(labelled)
    return pa.Table.from_pylist(made, schema=_schema(label, images, has_sources=rows[0].source is not None))


def named_patients(path: Path, task: Task) -> frozenset[str]:
    """The patients of the manifest at `path`, spelled as there; none if it cannot be read."""
    try:
        return frozenset(row.patient for row in _read_rows(path, _label_column(task)))
    except UserError:
        return frozenset()  # the step that reads the task reports the error


def recipe_texts(recipe: Recipe) -> RecipeTexts:
    """Patients of the recipe's tasks, and names that are published because a person chose them."""
    tasks = recipe.downstream.tasks
    patients = (named_patients(Path(task.manifest), task) for task in tasks.values())
    chosen = {recipe.name, *tasks, *recipe.labels.names, *recipe.pretraining.encoders}
    public = printed_descriptions() | chosen
    return RecipeTexts(frozenset().union(*patients), public, recipe.archive.descriptions)


def held_out_patients(name: str, task: Task) -> list[str]:
    """The patient of each test row of the task `name`, spelled as in its manifest; none if it cannot be read."""
    try:
        path = existing_file(task.manifest, f"downstream.tasks.{name}.manifest")
        rows = _read_rows(path, _label_column(task))
        return [row.patient for row, split in zip(rows, _splits(path, rows), strict=True) if split == "test"]
    except UserError:
        return []  # the step that reads the task reports the error


def _label_column(task: Task) -> str:
    return "quality" if task.kind == "ordinal" else "mask"


def _pixel_columns(image: LabelledImage, images: Images) -> dict[str, Any]:
    """The columns that derive from an image's pixels."""
    kept, tissue = (
        resize_grey(crop_frame(image.grey, crop), images.height, images.width) for crop in (image.crop, image.tissue)
    )
    pixels = kept.tobytes()
    return {
        "image": pixels,
        "thumbnails": thumbnails(np.stack([kept, tissue])).tobytes(),
        "image_digest": hashlib.sha256(pixels).hexdigest(),
        "source_digest": source_digest(image.grey),
        "cropped_by": image.crop.found_by,
        "modality": image.modality,
    }


def _schema(label: str, images: Images, has_sources: bool) -> pa.Schema:
    text, number, pixels = pa.string(), pa.int64(), pa.binary(images.height * images.width)
    columns = {"image_id": number, "patient": text, "split": text, "image": pixels, "image_digest": text}
    columns |= {"thumbnails": pa.binary(2 * SIDE * SIDE), "source_digest": text, "cropped_by": text, "modality": text}
    columns |= {"source": text} if has_sources else {}
    return pa.schema(list((columns | {label: number if label == "quality" else pixels}).items()))


def _read_rows(path: Path, label: str) -> list[_Row]:
    rows = [_row(row, label) for row in read_csv("Manifest", path, ("image", "patient", label), ("split", "source"))]
    if not rows:
        raise UserError(f"Manifest {path} has no rows.")
    return rows


def _row(row: Row, label: str) -> _Row:
    for column, cell in row.cells.items():
        if not cell:
            raise UserError(f"{row.location}: {column} is empty.")
    split = row.cells.get("split", "")
    if "split" in row.cells and split not in SPLITS:
        raise UserError(f"{row.location}: split is not one of {', '.join(SPLITS)}.")
    source = row.cells.get("source")
    if source is not None and (len(source) > _LONGEST_SOURCE or not source.isprintable()):
        raise UserError(f"{row.location}: source is not a text of 1 to {_LONGEST_SOURCE} printable characters.")
    return _Row(row.location, row.cells["image"], row.cells["patient"], row.cells[label], split, source)


def _splits(path: Path, rows: Sequence[_Row]) -> list[str]:
    """Each row's split. Raises `UserError` if a patient is in two, or a split is empty."""
    sides = _split_by_patient(path, rows) if not rows[0].split else {}
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault(canonical_number(row.patient), row)
        if earlier.split != row.split:
            raise UserError(f"{row.location}: split is {row.split} for a patient who is {earlier.split} further up.")
    splits = [sides.get(canonical_number(row.patient), row.split) for row in rows]
    for side in SPLITS:
        if side not in splits:
            raise UserError(f"Manifest {path}: split has no row {side!r}.")
    return splits


def _split_by_patient(path: Path, rows: Sequence[_Row]) -> dict[str, str]:
    spellings = {canonical_number(name): name for name in sorted({row.patient for row in rows})}
    patients = sorted(spellings, key=lambda patient: hashlib.sha256(spellings[patient].encode()).digest())
    if len(patients) < len(SPLITS):
        raise UserError(f"Manifest {path}: without a split column at least {len(SPLITS)} patients are needed.")
    test = max(round(TEST_SHARE * len(patients)), 1)
    held_out = test + max(round(VALIDATION_SHARE * len(patients)), 1)
    sides = ["test"] * test + ["val"] * (held_out - test) + ["train"] * (len(patients) - held_out)
    return dict(zip(patients, sides, strict=True))


def _files(manifest: Path, rows: Sequence[_Row], field: Literal["image", "mask"]) -> list[str]:
    paths = [manifest.parent / (row.image if field == "image" else row.label) for row in rows]
    for row, path in zip(rows, paths, strict=True):
        if not _is_file(path):
            raise UserError(f"{row.location}: {field} does not exist.")
    return [str(path) for path in paths]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that holds a zero byte
        return False


def _quality(row: _Row, task: Task) -> int:
    highest = len(task.classes) - 1
    if not _WHOLE.fullmatch(row.label) or int(row.label) > highest:
        raise UserError(f"{row.location}: quality is not a whole number from 0 to {highest}.")
    return int(row.label)


def _classes(row: _Row, mask: PngMask | Segments | Failure, image: LabelledImage, task: Task) -> ClassNumbers:
    if isinstance(mask, Failure):
        raise read_error(mask, row.location, "mask")
    return class_numbers(row.location, mask, image, task.classes)


def _resized_mask(classes: ClassNumbers, image: LabelledImage, images: Images) -> bytes:
    """The classes at the recipe's size, cropped like the image."""
    kept = Image.fromarray(crop_frame(classes, image.crop))
    return kept.resize((images.width, images.height), Image.Resampling.NEAREST).tobytes()


@dataclass(frozen=True)
class _Labelled:
    """A row with digests of its image's pixels and of its label, as stored."""

    row: _Row
    file: Path
    pixels: str
    patient: str
    split: str
    label: int | str

    def contradicts(self, earlier: "_Labelled") -> str | None:
        """The contradiction between two rows of the same pixels; None if they agree and are two files."""
        differ = [
            what
            for what, same in (
                ("of another patient", self.patient == earlier.patient),
                ("in another split", self.split == earlier.split),
                ("with another label", self.label == earlier.label),
            )
            if not same
        ]
        return " and ".join(differ) or ("which lists the same file" if self.file == earlier.file else None)


def _labelled(manifest: Path, row: _Row, split: str, pixels: str, stored: int | ClassNumbers) -> _Labelled:
    label = stored if isinstance(stored, int) else hashlib.sha256(stored.tobytes()).hexdigest()
    return _Labelled(row, (manifest.parent / row.image).resolve(), pixels, row.patient, split, label)


def _refuse_contradictions(labelled: Sequence[_Labelled]) -> None:
    """Raise `UserError` if rows with equal pixels contradict each other."""
    first: dict[str, _Labelled] = {}
    found: list[tuple[_Labelled, _Labelled, str]] = []
    for one in labelled:
        earlier = first.setdefault(one.pixels, one)
        if earlier is not one and (why := one.contradicts(earlier)):
            found.append((earlier, one, why))
    if not found:
        return
    earlier, one, why = found[0]
    others = f" ({len(found) - 1} more such rows: {_lines([row for _, row, _ in found[1:]])})" * (len(found) > 1)
    raise UserError(
        f"{one.row.location}: image has the same pixels as the one in {_line(earlier.row)}, {why}; keep one of the "
        f"rows{others}."
    )


def _lines(rows: Sequence[_Labelled]) -> str:
    return ", ".join(_line(one.row) for one in rows[:_MAX_NAMED]) + (", …" if len(rows) > _MAX_NAMED else "")


def _line(row: _Row) -> str:
    return row.location.rpartition(", ")[2]
