"""A folder of DICOM files through a fine-tuned model, to a table and masks.

Belongs here: the batch and its table, in which every file has a row. Not here: reading an image, the network, writing a
mask.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from pipeline.archive.workers import Failed, each_in_worker
from pipeline.dicom.rejections import Reason, UnreadableFile
from pipeline.downstream.model_folder import MODEL
from pipeline.downstream.predictor import Predictor, classes_at
from pipeline.errors import UserError, user_error
from pipeline.files import write_table
from pipeline.prediction.new_images import FlaggedFrame, NewFile, NewImage, NewImageReader, flagged_file
from pipeline.prediction.seg_writer import MaskWriter
from pipeline.progress import Log, Progress
from pipeline.tables import column

TABLE = "predictions.parquet"
MASKS = "masks"
UNREADABLE, UNLISTED = "unreadable", "unlisted_folder"
"""Reasons beside those of the quarantine: the system does not let a file be read, or a folder be listed."""

_NOT_LISTED = "a folder that the system does not let be listed, so that its files have no row"
_BATCH = 16  # images; batch norm is fixed, so the size changes nothing but speed

_text, _count = pa.string(), pa.int64()

NEW_PREDICTIONS = pa.schema(
    [
        column("file", _text, "the file, as it was named to the command"),
        column("frame", _count, "frame number, from 0; null where no frame could be read", nullable=True),
        column("frames", _count, "frames that the file has; null where that could not be read", nullable=True),
        column("status", _text, "scored, or flagged: unlike what the model has learnt from, or not readable"),
        column("reason", _text, "flagged: reason code", nullable=True),
        column("detail", _text, "flagged: one line", nullable=True),
        column("cropped_by", _text, "scored: how the insonated area was found", nullable=True),
        column("scores", pa.list_(pa.field("element", pa.float32())), "ordinal: P(class > t) by t", nullable=True),
        column("class", _text, "ordinal: name of the likeliest class", nullable=True),
        column("mask", _text, "segmentation: the DICOM SEG, relative to this table", nullable=True),
        column(
            "pixels", pa.list_(pa.field("element", _count)), "segmentation: of each foreground class", nullable=True
        ),
    ]
)
"""One row per frame that was looked at, and one for a file of which none could be."""


@dataclass(frozen=True)
class Summary:
    """What became of a batch: `files` given, `images` looked at (rows), of them `scored`, and the others by reason."""

    files: int
    images: int
    scored: int
    flagged: dict[str, int]

    @property
    def unlisted(self) -> int:
        """Folders that could not be listed: their files have no row."""
        return self.flagged.get(UNLISTED, 0)


@dataclass(frozen=True)
class _Unread:
    """A file that the system does not let be read."""

    detail: str
    frame: None = None
    frames: None = None


@dataclass(frozen=True)
class _Read:
    """An image or a flag with the file that it is of."""

    file: str
    found: NewImage | FlaggedFrame | _Unread
    reference: dict[str, str]


@dataclass(frozen=True)
class Inputs:
    """The `files` that inputs name and hold, and the folders among them that the system does not let be listed."""

    files: tuple[Path, ...]
    unlisted: tuple[Path, ...]


def predict(
    model: Path, files: Sequence[Path], out: Path, frames_per_cine: int, log: Log, unlisted: Sequence[Path] = ()
) -> Summary:
    """Apply the model in the folder `model` to `files`, and write `out`/predictions.parquet (NEW_PREDICTIONS).

    Each image is read, cut to its insonated area and resized as the model's training images were. A segmentation model
    writes a DICOM SEG per image to `out`/masks; these name the patient as their images do. Of a cine `frames_per_cine`
    frames are looked at, evenly spaced. Every file has a row, in the order given, whatever is wrong with it, and then
    every folder of `unlisted`; the table is written last. Raises `UserError` where there is no model or it gives no
    numbers, and where `out` holds predictions or cannot be written.
    """
    predictor = Predictor(model)
    if (out / TABLE).exists() or (out / MASKS).exists():
        raise UserError(f"{out} holds predictions already: name a new folder.")
    try:
        rows = list(_Batch(predictor, model, out).rows(_read_all(predictor, files, frames_per_cine, log)))
        rows += [{"file": _shown(folder)} | _flag(UNLISTED, _NOT_LISTED) for folder in unlisted]
        write_table(out / TABLE, pa.Table.from_pylist(rows, schema=NEW_PREDICTIONS))
    except OSError as error:
        raise user_error(f"{out} cannot be written: {error.strerror or type(error).__name__}.", error) from None
    reasons = Counter(row["reason"] for row in rows if row["status"] == "flagged")
    scored = len(rows) - reasons.total()
    return Summary(len(files), len(rows) - len(unlisted), scored, dict(sorted(reasons.items())))


def list_inputs(inputs: Sequence[Path], out: Path) -> Inputs:
    """Every file that `inputs`, files and folders, name or hold, each once; a folder's sorted by path.

    Symbolic links within a folder are not followed. Raises `UserError` for an input that does not exist, where there is
    no file at all, and where `out`, to which predictions will be written, lies in one of the folders.
    """
    found: dict[Path, None] = {}
    unlisted: dict[Path, None] = {}
    for given in inputs:
        if _is_folder(given):
            if out.resolve().is_relative_to(given.resolve()):
                raise UserError(f"{out} lies in {given}: its masks would be taken for new images.")
            found |= dict.fromkeys(sorted(_walk(given, unlisted)))
        else:
            found[given] = None
    if not found and not unlisted:
        raise UserError(f"{', '.join(map(str, inputs))} holds no file.")
    return Inputs(tuple(found), tuple(sorted(unlisted)))


def _is_folder(given: Path) -> bool:
    try:
        return stat.S_ISDIR(given.stat().st_mode)
    except FileNotFoundError:
        raise UserError(f"{given} does not exist.") from None
    except OSError as error:
        raise user_error(f"{given} cannot be opened: {error.strerror}.", error) from None


def _walk(folder: Path, unlisted: dict[Path, None]) -> Iterator[Path]:
    """The files below `folder`; folders that cannot be listed are added to `unlisted`."""
    folders = [folder]
    while folders:
        parent = folders.pop()
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        yield Path(entry.path)
        except OSError:
            unlisted[parent] = None


def _read_all(predictor: Predictor, files: Sequence[Path], frames_per_cine: int, log: Log) -> Iterator[_Read]:
    """Each file's frames, in the files' order."""
    model = predictor.description
    reader = NewImageReader(
        model.height,
        model.width,
        model.modalities,
        "whole" in model.cropped_by,
        frames_per_cine,
        for_masks=model.kind == "segmentation",
    )
    with Progress("prediction", len(files), "files", log) as progress:
        names = [str(path) for path in files]
        for path, read in zip(files, each_in_worker(reader, names, chunk=1, readable=names), strict=True):
            images, reference = _found(read)
            yield from (_Read(_shown(path), found, reference) for found in images)
            progress.advance()


def _shown(path: Path) -> str:
    """The path as the table holds it: bytes that are no UTF-8, as file names may have, as their escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _found(
    read: NewFile | UnreadableFile | Failed,
) -> tuple[tuple[NewImage | FlaggedFrame | _Unread, ...], dict[str, str]]:
    """What is in a file, and the reference to it."""
    match read:
        case NewFile():
            return read.images, dict(read.reference)
        case Failed():
            return flagged_file(read.rejection).images, {}
        case UnreadableFile():
            return (_Unread(f"the system does not let it be read: {read.why}"),), {}


class _Batch:
    """Rows of the table, in order, from images that are predicted many at a time."""

    def __init__(self, predictor: Predictor, model: Path, out: Path) -> None:
        self._predictor, self._model, self._out = predictor, model, out
        description = predictor.description
        with (model / MODEL).open("rb") as file:
            version = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self._writer = MaskWriter(description.name, version, description.classes)
        self._masks: Counter[str] = Counter()

    def rows(self, all_read: Iterable[_Read]) -> Iterator[dict[str, Any]]:
        """A row for each of `all_read`."""
        left = iter(all_read)
        while read := list(islice(left, _BATCH)):
            images = [one.found for one in read if isinstance(one.found, NewImage)]
            answers = iter(self._answers(images))
            for one in read:
                match one.found:
                    case NewImage():
                        yield _row(one) | self._scored(one, one.found, next(answers))
                    case FlaggedFrame(why=why):
                        yield _row(one) | _flag(why.reason.value, why.detail)
                    case _Unread(detail):
                        yield _row(one) | _flag(UNREADABLE, detail)

    def _answers(self, images: list[NewImage]) -> Sequence[npt.NDArray[np.float32]] | Tensor:
        """What the network says of each image: its scores, or its pixels' probabilities."""
        pixels = [image.pixels for image in images]
        if not pixels:
            return []
        if self._predictor.description.kind == "ordinal":
            scores = self._predictor.scores(pixels)
            self._refuse_unless(bool(np.isfinite(scores).all()))
            return list(scores)
        probabilities = self._predictor.probabilities(pixels)
        self._refuse_unless(bool(probabilities.isfinite().all()))
        return probabilities

    def _refuse_unless(self, finite: bool) -> None:
        if not finite:
            raise UserError(f"The model in {self._model} gives no numbers for an image: its weights are not usable.")

    def _scored(self, read: _Read, image: NewImage, answer: npt.NDArray[np.float32] | Tensor) -> dict[str, Any]:
        scored: dict[str, Any] = {"status": "scored", "cropped_by": image.crop.found_by}
        if isinstance(answer, Tensor):
            return scored | self._mask(read, image, answer)
        names = self._predictor.description.classes
        (value,) = self._predictor.classes(answer[np.newaxis]).tolist()
        return scored | {"scores": answer.tolist(), "class": names[value]}

    def _mask(self, read: _Read, image: NewImage, probabilities_CHW: Tensor) -> dict[str, Any]:
        """Write the mask of the full frame, where nothing lies outside the insonated crop."""
        classes_HW = full_frame_classes(probabilities_CHW, image)
        series = read.reference["SeriesInstanceUID"]
        number, name = self._masks[series] + 1, f"{MASKS}/{self._masks.total() + 1:06d}.dcm"
        try:
            self._writer.write(self._out / name, classes_HW, read.reference, image.frame, image.frames, number)
        except OSError:  # of the disk: no other mask can be written either
            raise
        except Exception as error:  # whatever the libraries make of this header
            return _flag(Reason.UNREADABLE_HEADER.value, f"no mask can repeat its header: {type(error).__name__}")
        self._masks[series] = number
        counts = np.bincount(classes_HW.ravel(), minlength=len(self._predictor.description.classes))
        return {"mask": name, "pixels": counts[1:].tolist()}


def full_frame_classes(probabilities_CHW: Tensor, image: NewImage) -> npt.NDArray[np.uint8]:
    """The likeliest class of each pixel of the image's full frame; background where nothing is insonated."""
    crop = image.crop
    classes_HW = np.zeros(image.shape, np.uint8)
    inside = classes_at(probabilities_CHW, crop.bottom - crop.top, crop.right - crop.left)
    kept = inside if crop.inside is None else inside * crop.inside
    classes_HW[crop.top : crop.bottom, crop.left : crop.right] = kept
    return classes_HW


def _flag(reason: str, detail: str) -> dict[str, Any]:
    return {"status": "flagged", "reason": reason, "detail": detail, "cropped_by": None}


def _row(read: _Read) -> dict[str, Any]:
    return {"file": read.file, "frame": read.found.frame, "frames": read.found.frames}
