"""A task's manifest: labelled images from a CSV to one table.

Belongs here: reading and checking the CSV, its images and labels, and splitting where it does not. Not here: training.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.archive.workers import Failed, each_in_worker
from pipeline.cohort.similarity import SIDE, thumbnails
from pipeline.csv_files import Row, read_csv
from pipeline.dicom.crop import crop_frame
from pipeline.dicom.grey import resize_grey, source_digest
from pipeline.dicom.rejections import Rejection, UnreadableFile
from pipeline.errors import UserError
from pipeline.privacy.identity import canonical_number
from pipeline.progress import Log, Progress, silent
from pipeline.recipe import Images, Task, existing_file
from pipeline.tasks.class_masks import ClassNumbers, MaskRead, class_numbers
from pipeline.tasks.labelled_files import LabelledImage, read_labelled_image, read_labelled_mask

SPLITS = ("train", "val", "test")
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
"""Of the patients, where a manifest has no split column: the rest trains."""

_CHUNK: Final = 2  # files that a worker gets at once: what it returns is whole pictures
_NAMED: Final = 10  # lines that a message names
_WHOLE: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class _Row:
    """One line of the CSV, its cells stripped; `location` names file and line in messages."""

    location: str
    image: str
    patient: str
    label: str
    split: str


def read_manifest(
    name: str, task: Task, images: Images, pseudonym: Callable[[str], str], log: Log = silent
) -> pa.Table:
    """The labelled images of the task called `name`, in the manifest's order.

    Columns: image_id (number of the row, from 0), patient (`pseudonym` of the manifest's), split (train, val, test),
    image (height x width bytes, grey), image_digest (SHA-256 of those), thumbnails (of what is kept and of
    the tissue, to find near-duplicates by), source_digest and cropped_by (as in IMAGES),
    modality (of DICOM images, null of others), and quality (0 to K-1) or mask (height x width bytes, class numbers,
    nearest neighbour). A mask is a PNG of class numbers, where of two classes white means 1, or a DICOM SEG whose
    segments are called as the classes are. A DICOM image is its first frame, cut to its insonated area, and its mask
    with it. Without a split column patients are split 70/10/20 by a hash of their name.
    Raises `UserError`, naming manifest, line and field and quoting no cell, for whatever is missing, unreadable or
    contradictory: one picture (equal pixels) of two patients, in two splits or with two labels, one file twice.
    """
    path = existing_file(task.manifest, f"downstream.tasks.{name}.manifest")
    label = _label_column(task)
    rows = _read_rows(path, label)
    splits = _splits(path, rows)
    files = _files(path, rows, "image")
    pictures = each_in_worker(read_labelled_image, files, chunk=_CHUNK, readable=files)
    files = _files(path, rows, "mask") if label == "mask" else []
    masks = each_in_worker(read_labelled_mask, files, chunk=_CHUNK, readable=files)
    made: list[dict[str, Any]] = []
    labelled: list[_Labelled] = []
    with Progress(f"{name} images", len(rows), "images", log) as progress:
        for row, split, read in zip(rows, splits, pictures, strict=True):
            picture = _image(row, read)
            of_image = _pixels(picture, images)
            named = {"image_id": len(made), "patient": pseudonym(row.patient), "split": split}
            stored = _classes(row, next(masks), picture, task) if label == "mask" else _quality(row, task)
            value = stored if isinstance(stored, int) else _mask(stored, picture, images)
            made.append(named | of_image | {label: value})
            labelled.append(_labelled(path, row, split, of_image["source_digest"], stored))
            progress.advance()
    _refuse_contradictions(labelled)
    return pa.Table.from_pylist(made, schema=_schema(label, images))


def named_patients(path: Path, task: Task) -> frozenset[str]:
    """The patients of the manifest at `path`, in its own words; none of a manifest that cannot be read."""
    try:
        return frozenset(row.patient for row in _read_rows(path, _label_column(task)))
    except UserError:
        return frozenset()  # the step that reads the task says what is wrong with it


def held_out_patients(name: str, task: Task) -> list[str]:
    """The patient of each test row of the task called `name`, in its manifest's words; none if it cannot be read."""
    try:
        path = existing_file(task.manifest, f"downstream.tasks.{name}.manifest")
        rows = _read_rows(path, _label_column(task))
        return [row.patient for row, split in zip(rows, _splits(path, rows), strict=True) if split == "test"]
    except UserError:
        return []  # the step that reads the task says what is wrong with it


def _label_column(task: Task) -> str:
    return "quality" if task.kind == "ordinal" else "mask"


def _pixels(picture: LabelledImage, images: Images) -> dict[str, Any]:
    """What the table says of an image's pixels."""
    kept, tissue = (
        resize_grey(crop_frame(picture.grey, crop), images.height, images.width)
        for crop in (picture.crop, picture.tissue)
    )
    pixels = kept.tobytes()
    return {
        "image": pixels,
        "thumbnails": thumbnails(np.stack([kept, tissue])).tobytes(),
        "image_digest": hashlib.sha256(pixels).hexdigest(),
        "source_digest": source_digest(picture.grey),
        "cropped_by": picture.crop.found_by,
        "modality": picture.modality,
    }


def _schema(label: str, images: Images) -> pa.Schema:
    text, number, pixels = pa.string(), pa.int64(), pa.binary(images.height * images.width)
    columns = {"image_id": number, "patient": text, "split": text, "image": pixels, "image_digest": text}
    columns |= {"thumbnails": pa.binary(2 * SIDE * SIDE), "source_digest": text, "cropped_by": text, "modality": text}
    return pa.schema(list((columns | {label: number if label == "quality" else pixels}).items()))


def _read_rows(path: Path, label: str) -> list[_Row]:
    rows = [_row(row, label) for row in read_csv("Manifest", path, ("image", "patient", label), ("split",))]
    if not rows:
        raise UserError(f"Manifest {path} has no rows.")
    return rows


def _row(row: Row, label: str) -> _Row:
    for column, cell in row.cells.items():
        if not cell:
            raise UserError(f"{row.location}: {column} is empty.")
    split = row.cells.get("split", "")
    if "split" in row.cells and split not in SPLITS:
        raise UserError(f"{row.location}: split is none of {', '.join(SPLITS)}.")
    return _Row(row.location, row.cells["image"], row.cells["patient"], row.cells[label], split)


def _splits(path: Path, rows: Sequence[_Row]) -> list[str]:
    """Each row's split; raises `UserError` where a patient is in two, or a split is empty."""
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


def _image(row: _Row, read: LabelledImage | Rejection | UnreadableFile | Failed) -> LabelledImage:
    match read:
        case LabelledImage():
            return read
        case UnreadableFile():
            raise UserError(f"{row.location}: image cannot be opened: {read.why}.")
        case Failed():
            raise UserError(f"{row.location}: image cannot be decoded: {read.rejection.detail}.")
        case Rejection():
            raise UserError(f"{row.location}: image cannot be decoded: {read.detail}.")


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
        raise UserError(f"{row.location}: quality is no whole number from 0 to {highest}.")
    return int(row.label)


def _classes(row: _Row, read: MaskRead, picture: LabelledImage, task: Task) -> ClassNumbers:
    return class_numbers(row.location, read, picture, task.classes)


def _mask(classes: ClassNumbers, picture: LabelledImage, images: Images) -> bytes:
    """The classes at the recipe's size, cut as the image is."""
    kept = Image.fromarray(crop_frame(classes, picture.crop))
    return kept.resize((images.width, images.height), Image.Resampling.NEAREST).tobytes()


@dataclass(frozen=True)
class _Labelled:
    """A row with what its files hold: a digest of the image's pixels as stored, and its label as stored."""

    row: _Row
    file: Path
    pixels: str
    patient: str
    split: str
    label: int | str

    def contradicts(self, earlier: "_Labelled") -> str | None:
        """How two rows of one picture differ; None where they agree and are two files."""
        differ = [
            said
            for said, same in (
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
    """Raise `UserError` where one picture (equal pixels) is in two rows that cannot both be meant."""
    first: dict[str, _Labelled] = {}
    found: list[tuple[_Labelled, _Labelled, str]] = []
    for one in labelled:
        earlier = first.setdefault(one.pixels, one)
        if earlier is not one and (why := one.contradicts(earlier)):
            found.append((earlier, one, why))
    if found:
        earlier, one, why = found[0]
        others = f" ({len(found) - 1} more such rows: {_lines([row for _, row, _ in found[1:]])})" * (len(found) > 1)
        raise UserError(
            f"{one.row.location}: image has the same pixels as the one in {_line(earlier.row)}, {why}; keep one of the "
            f"rows{others}."
        )


def _lines(rows: Sequence[_Labelled]) -> str:
    return ", ".join(_line(one.row) for one in rows[:_NAMED]) + (", …" if len(rows) > _NAMED else "")


def _line(row: _Row) -> str:
    return row.location.rpartition(", ")[2]
