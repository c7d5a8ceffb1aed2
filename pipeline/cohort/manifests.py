"""A task's manifest: labelled images from a CSV to one table.

Belongs here: reading and checking the CSV, its images and labels, and splitting where it does not. Not here: training.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from pipeline.archive.frames import LabelledPicture, labelled_picture, source_digest
from pipeline.archive.pixels import is_dicom, resize_grey
from pipeline.archive.quarantine import Rejected, Rejection
from pipeline.archive.reading import Unopened
from pipeline.archive.segments import Segments, read_segments
from pipeline.archive.tissue import cut_out
from pipeline.archive.workers import Failed, each_in_worker
from pipeline.errors import UserError
from pipeline.progress import Progress, Say, silent
from pipeline.recipe import Images, Task, existing_file
from pipeline.sheets import Row, read_sheet

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
    image (height x width bytes, grey), image_digest (SHA-256 of those), source_digest and cropped_by (as in IMAGES),
    modality (of DICOM images, null of others), and quality (0 to K-1) or mask (height x width bytes, class numbers,
    nearest neighbour). A mask is a PNG of class numbers, where of two classes 255 means 1, or a DICOM SEG whose
    segments are called as the classes are. A DICOM image is its first frame, cut to its insonated area, and its mask
    with it. Without a split column patients are split 70/10/20 by a hash of their name.
    Raises `UserError`, naming file, line and field, for whatever is missing, unreadable or contradictory.
    """
    path = existing_file(task.manifest, f"downstream.tasks.{name}.manifest")
    label = "quality" if task.kind == "ordinal" else "mask"
    rows = _read_rows(path, label)
    splits = _splits(path, rows)
    files = [str(_file(path, row, "image", row.image)) for row in rows]
    segmentations = _segmentations(path, rows) if label == "mask" else iter(())
    made: list[dict[str, Any]] = []
    with Progress(f"{name} images", len(rows), "images", say) as progress:
        for row, split, read in zip(rows, splits, each_in_worker(labelled_picture, files), strict=True):
            picture = _image(row, read)
            named = {"image_id": len(made), "patient": pseudonym(row.patient), "split": split}
            value = (
                _quality(row, task) if label == "quality" else _mask(path, row, picture, task, images, segmentations)
            )
            made.append(named | _pixels(picture, images) | {label: value})
            progress.advance()
    return pa.Table.from_pylist(made, schema=_schema(label, images))


def _pixels(picture: LabelledPicture, images: Images) -> dict[str, Any]:
    """What the table says of an image's pixels."""
    pixels = resize_grey(cut_out(picture.grey, picture.area), images.height, images.width).tobytes()
    return {
        "image": pixels,
        "image_digest": hashlib.sha256(pixels).hexdigest(),
        "source_digest": source_digest(picture.grey),
        "cropped_by": picture.area.found_by,
        "modality": picture.modality,
    }


def _schema(label: str, images: Images) -> pa.Schema:
    text, number, pixels = pa.string(), pa.int64(), pa.binary(images.height * images.width)
    columns = {"image_id": number, "patient": text, "split": text, "image": pixels, "image_digest": text}
    columns |= {"source_digest": text, "cropped_by": text, "modality": text}
    return pa.schema(list((columns | {label: number if label == "quality" else pixels}).items()))


def _read_rows(path: Path, label: str) -> list[_Row]:
    rows = [_row(row, label) for row in read_sheet("Manifest", path, ("image", "patient", label), ("split",))]
    if not rows:
        raise UserError(f"Manifest {path} has no rows.")
    return rows


def _row(row: Row, label: str) -> _Row:
    for column, cell in row.cells.items():
        if not cell:
            raise UserError(f"{row.place}: {column} is empty.")
    split = row.cells.get("split", "")
    if "split" in row.cells and split not in SPLITS:
        raise UserError(f"{row.place}: split is {split!r}, which is none of {', '.join(SPLITS)}.")
    return _Row(row.place, row.cells["image"], row.cells["patient"], row.cells[label], split)


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


def _image(row: _Row, read: LabelledPicture | Rejection | Unopened | Failed) -> LabelledPicture:
    match read:
        case LabelledPicture():
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


def _mask(
    manifest: Path,
    row: _Row,
    picture: LabelledPicture,
    task: Task,
    images: Images,
    segmentations: Iterator[Segments | Rejection | Unopened | Failed],
) -> bytes:
    path = _file(manifest, row, "mask", row.label)
    shape = picture.grey.shape
    mask = _of_segments(next(segmentations), row, picture, task) if _is_dicom(path) else _of_png(path, row, task)
    if mask.shape != shape:
        raise _of_another_size(row, mask.shape, shape)
    kept = cut_out(mask, picture.area)
    resized = Image.fromarray(kept).resize((images.width, images.height), Image.Resampling.NEAREST)
    return resized.tobytes()


def _of_another_size(row: _Row, mask_HW: tuple[int, ...], image_HW: tuple[int, ...]) -> UserError:
    mask, image = (f"{height}x{width}" for height, width in (mask_HW, image_HW))
    return UserError(f"{row.place}: mask {row.label} is {mask} pixels, its image {image}.")


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:  # reading it as a PNG says so
        return False


def _segmentations(manifest: Path, rows: Sequence[_Row]) -> Iterator[Segments | Rejection | Unopened | Failed]:
    """What is in the masks that are DICOM, in the rows' order."""
    paths = [_file(manifest, row, "mask", row.label) for row in rows]
    return each_in_worker(read_segments, [str(path) for path in paths if _is_dicom(path)])


def _of_segments(
    read: Segments | Rejection | Unopened | Failed, row: _Row, picture: LabelledPicture, task: Task
) -> npt.NDArray[np.uint8]:
    """Class numbers, by the segments' labels: numbers are given out anew by every program that writes a SEG."""
    match read:
        case Unopened():
            raise UserError(f"{row.place}: mask {row.label} cannot be opened: {read.why}.")
        case Failed():
            raise UserError(f"{row.place}: mask {row.label} cannot be read: {read.rejection.detail}.")
        case Rejection():
            raise UserError(f"{row.place}: mask {row.label} cannot be read: {read.detail}.")
    try:
        frames = read.of_first_frame(picture.sop_instance)
    except Rejected as rejected:
        raise UserError(f"{row.place}: mask {row.label} cannot be used: {rejected.rejection.detail}.") from None
    values = np.zeros(picture.grey.shape, np.uint8)
    taken = np.zeros(picture.grey.shape, np.bool_)
    for frame in frames:
        if frame.mask.shape != values.shape:
            raise _of_another_size(row, frame.mask.shape, values.shape)
        value = _class_of(row, frame.number, frame.label, task)
        if (frame.mask & taken & (values != value)).any():
            raise UserError(f"{row.place}: mask {row.label} has segments of different classes that overlap.")
        values[frame.mask] = value
        taken |= frame.mask
    return values


def _class_of(row: _Row, number: int, label: str, task: Task) -> int:
    """The class that a segment's label names, whatever its case and the spaces around it."""
    names = [name.casefold() for name in task.classes]
    if label.strip().casefold() not in names:
        raise UserError(
            f"{row.place}: mask {row.label}: the label of segment {number} is none of {', '.join(task.classes)}."
        )
    return names.index(label.strip().casefold())


def _of_png(path: Path, row: _Row, task: Task) -> npt.NDArray[np.uint8]:
    """Class numbers of a PNG."""
    mask = _read_mask(path, row)
    if len(task.classes) == 2 and set(np.unique(mask)) <= {0, 255}:
        mask = mask // 255
    if mask.max() >= len(task.classes):
        raise UserError(
            f"{row.place}: mask {row.label} holds the value {mask.max()}; the classes are 0 to {len(task.classes) - 1}."
        )
    return mask.astype(np.uint8)


def _read_mask(path: Path, row: _Row) -> npt.NDArray[np.integer]:
    """A PNG's values as they are stored: grey levels, or indices into its palette."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            values = np.asarray(image.convert("L") if image.mode in {"1", "LA"} else image)
    except UnidentifiedImageError:
        raise UserError(f"{row.place}: mask {row.label} is neither PNG nor DICOM.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{row.place}: mask {row.label} cannot be decoded: {type(error).__name__}.") from None
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2:
        raise UserError(f"{row.place}: mask {row.label} is coloured; its values must be the numbers of classes.")
    return values
