"""A task's manifest: labelled images from a CSV to one table.

Belongs here: reading and checking the CSV, its images and labels, and splitting where it does not. Not here: training.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from pipeline.archive.areas import Area
from pipeline.archive.frames import labelled_picture, source_digest
from pipeline.archive.pixels import Grey, resize_grey
from pipeline.archive.quarantine import Rejection
from pipeline.archive.reading import Unopened
from pipeline.archive.tissue import cut_out
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.errors import UserError
from pipeline.progress import Progress, Say, silent
from pipeline.recipe import Images, Task, existing_file

SPLITS = ("train", "val", "test")
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
"""Of the patients, where a manifest has no split column: the rest trains."""


@dataclass(frozen=True)
class _Row:
    """One line of the CSV, its cells stripped; `place` names file and line in messages."""

    place: str
    image: str
    patient: str
    label: str
    split: str


def read_manifest(
    name: str, task: Task, images: Images, pseudonym: Callable[[str], str], say: Say = silent
) -> pa.Table:
    """The labelled images of the task called `name`, in the manifest's order.

    Columns: image_id (number of the row, from 0), patient (`pseudonym` of the manifest's), split (train, val, test),
    image (height x width bytes, grey), image_digest (SHA-256 of those), source_digest (as in IMAGES), and quality
    (0 to K-1) or mask (height x width bytes, class numbers, nearest neighbour). Of two classes a mask's 255 means 1.
    A DICOM image is cut to its insonated area, and its mask with it. Without a split column patients are split
    70/10/20 by a hash of their name.
    Raises `UserError`, naming file, line and field, for whatever is missing, unreadable or contradictory.
    """
    path = existing_file(task.manifest, f"downstream.tasks.{name}.manifest")
    rows = _read_rows(path, "quality" if task.kind == "ordinal" else "mask")
    splits = _splits(path, rows)
    pixels: list[bytes] = []
    sources: list[str] = []
    labels: list[int | bytes] = []
    files = [str(_file(path, row, "image", row.image)) for row in rows]
    with Progress(f"{name} images", len(rows), "images", say) as progress:
        for row, read in zip(rows, each_in_worker(labelled_picture, files), strict=True):
            image, area = _image(row, read)
            sources.append(source_digest(image))
            pixels.append(resize_grey(cut_out(image, area), images.height, images.width).tobytes())
            labels.append(
                _quality(row, task) if task.kind == "ordinal" else _mask(path, row, image.shape, area, task, images)
            )
            progress.advance()
    area = pa.binary(images.height * images.width)
    columns = {
        "image_id": pa.array(range(len(rows)), pa.int64()),
        "patient": pa.array([pseudonym(row.patient) for row in rows], pa.string()),
        "split": pa.array(splits, pa.string()),
        "image": pa.array(pixels, area),
        "image_digest": pa.array([hashlib.sha256(image).hexdigest() for image in pixels], pa.string()),
        "source_digest": pa.array(sources, pa.string()),
    }
    kind = "quality" if task.kind == "ordinal" else "mask"
    columns[kind] = pa.array(labels, pa.int64() if kind == "quality" else area)
    return pa.table(columns)


def _read_rows(path: Path, label: str) -> list[_Row]:
    required, known = {"image", "patient", label}, {"image", "patient", label, "split"}
    try:
        # utf-8-sig: spreadsheets put a byte order mark first
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for column in sorted(required.difference(columns)):
                raise UserError(f"Manifest {path}, line 1: no column {column!r}.")
            for column in sorted(set(columns) - known):
                raise UserError(f"Manifest {path}, line 1: unknown column {column!r}.")
            rows = [_row(f"Manifest {path}, line {reader.line_num}", cells, label) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Manifest {path} cannot be read as UTF-8 CSV: {error}.") from None
    if not rows:
        raise UserError(f"Manifest {path} has no rows.")
    return rows


def _row(place: str, cells: dict[str, str], label: str) -> _Row:
    if None in cells or None in cells.values():
        raise UserError(f"{place}: not as many cells as columns.")
    for column, cell in cells.items():
        if not cell.strip():
            raise UserError(f"{place}: {column} is empty.")
    split = cells.get("split", "").strip()
    if "split" in cells and split not in SPLITS:
        raise UserError(f"{place}: split is {split!r}, which is none of {', '.join(SPLITS)}.")
    return _Row(place, cells["image"].strip(), cells["patient"].strip(), cells[label].strip(), split)


def _splits(path: Path, rows: Sequence[_Row]) -> list[str]:
    """Each row's split; raises `UserError` where a patient is in two, or a split is empty."""
    sides = _split_by_patient(path, rows) if not rows[0].split else {}
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault(row.patient, row)
        if earlier.split != row.split:
            raise UserError(f"{row.place}: split is {row.split} for a patient who is {earlier.split} further up.")
    splits = [sides.get(row.patient, row.split) for row in rows]
    for side in SPLITS:
        if side not in splits:
            raise UserError(f"Manifest {path}: split has no row {side!r}.")
    return splits


def _split_by_patient(path: Path, rows: Sequence[_Row]) -> dict[str, str]:
    patients = sorted({row.patient for row in rows}, key=lambda patient: hashlib.sha256(patient.encode()).digest())
    if len(patients) < len(SPLITS):
        raise UserError(f"Manifest {path}: without a split column at least {len(SPLITS)} patients are needed.")
    test = max(round(TEST_SHARE * len(patients)), 1)
    held_out = test + max(round(VALIDATION_SHARE * len(patients)), 1)
    sides = ["test"] * test + ["val"] * (held_out - test) + ["train"] * (len(patients) - held_out)
    return dict(zip(patients, sides, strict=True))


def _image(row: _Row, read: tuple[Grey, Area] | Rejection | Unopened | Failed) -> tuple[Grey, Area]:
    match read:
        case tuple():
            return read
        case Unopened():
            raise UserError(f"{row.place}: image {row.image} cannot be opened: {read.why}.")
        case Failed():
            raise UserError(f"{row.place}: image {row.image} cannot be decoded: {read.rejection.detail}.")
        case Rejection():
            raise UserError(f"{row.place}: image {row.image} cannot be decoded: {read.detail}.")


def _file(manifest: Path, row: _Row, field: str, relative: str) -> Path:
    path = manifest.parent / relative
    if not path.is_file():
        raise UserError(f"{row.place}: {field} {relative} does not exist.")
    return path


def _quality(row: _Row, task: Task) -> int:
    highest = len(task.classes) - 1
    if not row.label.isdecimal() or int(row.label) > highest:
        raise UserError(f"{row.place}: quality is {row.label!r}, which is no whole number from 0 to {highest}.")
    return int(row.label)


def _mask(manifest: Path, row: _Row, shape_HW: tuple[int, ...], area: Area, task: Task, images: Images) -> bytes:
    mask = _read_mask(_file(manifest, row, "mask", row.label), row)
    if mask.shape != shape_HW:
        sizes = (f"{shape[0]}x{shape[1]}" for shape in (mask.shape, shape_HW))
        raise UserError(f"{row.place}: mask {row.label} is {next(sizes)} pixels, its image {next(sizes)}.")
    if len(task.classes) == 2 and set(np.unique(mask)) <= {0, 255}:
        mask = mask // 255
    if mask.max() >= len(task.classes):
        raise UserError(
            f"{row.place}: mask {row.label} holds the value {mask.max()}; the classes are 0 to {len(task.classes) - 1}."
        )
    kept = cut_out(mask.astype(np.uint8), area)
    resized = Image.fromarray(kept).resize((images.width, images.height), Image.Resampling.NEAREST)
    return resized.tobytes()


def _read_mask(path: Path, row: _Row) -> npt.NDArray[np.integer]:
    """A PNG's values as they are stored: grey levels, or indices into its palette."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            values = np.asarray(image.convert("L") if image.mode in {"1", "LA"} else image)
    except UnidentifiedImageError:
        raise UserError(f"{row.place}: mask {row.label} is no PNG.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{row.place}: mask {row.label} cannot be decoded: {type(error).__name__}.") from None
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2:
        raise UserError(f"{row.place}: mask {row.label} is coloured; its values must be the numbers of classes.")
    return values
