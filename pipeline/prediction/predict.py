"""Apply a fine-tuned model to a batch of DICOM files, and write one table with a row per file, and masks."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""Reasons in addition to those of the quarantine: the system refuses to read a file, or to list a folder."""

_NOT_LISTED = "the system refuses to list this folder, so that its files have no row"
_BATCH = 16  # images; batch norm is fixed, so the size affects only speed

_text, _count, _counts = pa.string(), pa.int64(), pa.list_(pa.field("element", pa.int64()))

NEW_PREDICTIONS = pa.schema(
    [
        column("file", _text, "the file, as given to the command"),
        column("frame", _count, "frame number, from 0; null if no frame could be read", nullable=True),
        column("frames", _count, "number of frames of the file; null if it could not be read", nullable=True),
        column("status", _text, "scored, or flagged: unlike the training images, or unreadable"),
        column("reason", _text, "flagged: reason code", nullable=True),
        column("detail", _text, "flagged: one line", nullable=True),
        column("cropped_by", _text, "scored: how the insonated area was found", nullable=True),
        column("scores", pa.list_(pa.field("element", pa.float32())), "ordinal: P(class > t) by t", nullable=True),
        column("class", _text, "ordinal: name of the most likely class", nullable=True),
        column("mask", _text, "segmentation: the DICOM SEG, relative to this table", nullable=True),
        column("pixels", _counts, "segmentation: count per foreground class", nullable=True),
    ]
)
"""One row per examined frame, and one per file without a readable frame."""


@dataclass(frozen=True)
class Summary:
    """Counts of a batch: `files`, `images` (rows), those `scored`, and the others by reason."""

    files: int
    images: int
    scored: int
    flagged: dict[str, int]

    @property
    def unlisted(self) -> int:
        """Number of folders that could not be listed: their files have no row."""
        return self.flagged.get(UNLISTED, 0)


@dataclass(frozen=True)
class _Frame:
    """A frame of `file`: an image, or the row's columns if it is flagged."""

    file: str
    image: NewImage | dict[str, Any]
    reference: Mapping[str, str]

    @property
    def columns(self) -> dict[str, Any]:
        """The file's columns of the frame's row."""
        if isinstance(self.image, NewImage):
            return {"file": self.file, "frame": self.image.frame, "frames": self.image.frames}
        return {"file": self.file, **self.image}


@dataclass(frozen=True)
class Inputs:
    """The `files` among and below the inputs, and the folders that the system refuses to list."""

    files: tuple[Path, ...]
    unlisted: tuple[Path, ...]


def predict(
    model: Path, files: Sequence[Path], out: Path, frames_per_cine: int, log: Log, unlisted: Sequence[Path] = ()
) -> Summary:
    """Apply the model in the folder `model` to `files`, and write `out`/predictions.parquet (NEW_PREDICTIONS).

    A segmentation model writes a DICOM SEG per image to `out`/masks, which identifies the patient like its image. Of a
    cine `frames_per_cine` evenly spaced frames are examined. Every file has a row, in the order given, even if it is
    unreadable, followed by every folder of `unlisted`; the table is written last. Raises `UserError` without a model,
    if its output is not finite, and if `out` has predictions already or cannot be written.
    """
    predictor = Predictor(model)
    if (out / TABLE).exists() or (out / MASKS).exists():
        raise UserError(f"{out} has predictions already: choose a new folder.")
    try:
        rows = list(_Batch(predictor, model, out).rows(_read_all(predictor, files, frames_per_cine, log)))
        rows += [{"file": _printable(folder)} | _flag(UNLISTED, _NOT_LISTED) for folder in unlisted]
        write_table(out / TABLE, pa.Table.from_pylist(rows, schema=NEW_PREDICTIONS))
    except OSError as error:
        raise user_error(f"{out} cannot be written: {error.strerror or type(error).__name__}.", error) from None
    reasons = Counter(row["reason"] for row in rows if row["status"] == "flagged")
    scored = len(rows) - reasons.total()
    return Summary(len(files), len(rows) - len(unlisted), scored, dict(sorted(reasons.items())))


def list_inputs(inputs: Sequence[Path], out: Path) -> Inputs:
    """The files among and below `inputs`, each once; those of a folder sorted by path.

    Symbolic links within a folder are not followed. Raises `UserError` for an input that does not exist, without any
    file, and if `out`, the folder for predictions, is within one of the folders.
    """
    found: dict[Path, None] = {}
    unlisted: list[Path] = []
    for given in inputs:
        if _is_folder(given):
            if out.resolve().is_relative_to(given.resolve()):
                raise UserError(f"{out} is within {given}: its masks would be taken for new images.")
            found |= dict.fromkeys(_files_below(given, unlisted))
        else:
            found[given] = None
    if not found and not unlisted:
        raise UserError(f"{', '.join(map(str, inputs))} has no file.")
    return Inputs(tuple(found), tuple(sorted(set(unlisted))))


def _is_folder(given: Path) -> bool:
    try:
        return stat.S_ISDIR(given.stat().st_mode)
    except FileNotFoundError:
        raise UserError(f"{given} does not exist.") from None
    except OSError as error:
        raise user_error(f"{given} cannot be opened: {error.strerror}.", error) from None


def _files_below(folder: Path, unlisted: list[Path]) -> list[Path]:
    """The files below `folder`, sorted; folders that cannot be listed are added to `unlisted`."""
    walk = os.walk(folder, onerror=lambda error: unlisted.append(Path(error.filename)))
    paths = (Path(parent, name) for parent, _, names in walk for name in names)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def _read_all(predictor: Predictor, files: Sequence[Path], frames_per_cine: int, log: Log) -> Iterator[_Frame]:
    """The frames of all files, in order."""
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
            yield from _frames(_printable(path), read)
            progress.advance()


def _printable(path: Path) -> str:
    """The path for the table: bytes of a file name that are not UTF-8 become escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _frames(file: str, read: NewFile | UnreadableFile | Failed) -> Iterator[_Frame]:
    """The frames of one file."""
    if isinstance(read, UnreadableFile):
        yield _Frame(file, _flag(UNREADABLE, f"the system refuses to read it: {read.why}"), {})
        return
    found = flagged_file(read.rejection) if isinstance(read, Failed) else read
    for image in found.images:
        if isinstance(image, FlaggedFrame):
            flag = _flag(image.why.reason.value, image.why.detail)
            yield _Frame(file, {"frame": image.frame, "frames": image.frames, **flag}, found.reference)
        else:
            yield _Frame(file, image, found.reference)


class _Batch:
    """Predicts images in batches, and makes the table's rows in order."""

    def __init__(self, predictor: Predictor, model: Path, out: Path) -> None:
        self._predictor, self._model, self._out = predictor, model, out
        description = predictor.description
        with (model / MODEL).open("rb") as file:
            version = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self._writer = MaskWriter(description.name, version, description.classes)
        self._masks: Counter[str] = Counter()

    def rows(self, frames: Iterable[_Frame]) -> Iterator[dict[str, Any]]:
        """A row for each of `frames`."""
        remaining = iter(frames)
        while batch := list(islice(remaining, _BATCH)):
            outputs = iter(self._outputs([frame.image for frame in batch if isinstance(frame.image, NewImage)]))
            for frame in batch:
                image = frame.image
                scored = self._scored(frame, image, next(outputs)) if isinstance(image, NewImage) else {}
                yield frame.columns | scored

    def _outputs(self, images: list[NewImage]) -> Sequence[npt.NDArray[np.float32]] | Tensor:
        """The network's scores of each image, or the probabilities of its pixels. Raises `UserError`."""
        pixels = [image.pixels for image in images]
        if not pixels:
            return []
        if self._predictor.description.kind == "ordinal":
            scores = self._predictor.scores(pixels)
            self._require_finite(bool(np.isfinite(scores).all()))
            return list(scores)
        probabilities = self._predictor.probabilities(pixels)
        self._require_finite(bool(probabilities.isfinite().all()))
        return probabilities

    def _require_finite(self, finite: bool) -> None:
        if not finite:
            raise UserError(f"The model in {self._model} has unusable weights: its output for an image is not finite.")

    def _scored(self, frame: _Frame, image: NewImage, output: npt.NDArray[np.float32] | Tensor) -> dict[str, Any]:
        scored: dict[str, Any] = {"status": "scored", "cropped_by": image.crop.found_by}
        if isinstance(output, Tensor):
            return scored | self._mask(frame, image, output)
        names = self._predictor.description.classes
        (value,) = self._predictor.classes(output[np.newaxis]).tolist()
        return scored | {"scores": output.tolist(), "class": names[value]}

    def _mask(self, frame: _Frame, image: NewImage, probabilities_CHW: Tensor) -> dict[str, Any]:
        """Write the mask of the full frame, and return its columns."""
        classes_HW = full_frame_classes(probabilities_CHW, image)
        series = frame.reference["SeriesInstanceUID"]
        number, name = self._masks[series] + 1, f"{MASKS}/{self._masks.total() + 1:06d}.dcm"
        try:
            self._writer.write(self._out / name, classes_HW, frame.reference, image.frame, image.frames, number)
        except OSError:  # of the disk: no other mask can be written either
            raise
        except Exception as error:  # any error of the libraries about this header
            return _flag(Reason.UNREADABLE_HEADER.value, f"no mask can repeat its header: {type(error).__name__}")
        self._masks[series] = number
        counts = np.bincount(classes_HW.ravel(), minlength=len(self._predictor.description.classes))
        return {"mask": name, "pixels": counts[1:].tolist()}


def full_frame_classes(probabilities_CHW: Tensor, image: NewImage) -> npt.NDArray[np.uint8]:
    """The most likely class of each pixel of the full frame; background outside the insonated area."""
    crop = image.crop
    classes_HW = np.zeros(image.shape, np.uint8)
    inside = classes_at(probabilities_CHW, crop.bottom - crop.top, crop.right - crop.left)
    kept = inside if crop.inside is None else inside * crop.inside
    classes_HW[crop.top : crop.bottom, crop.left : crop.right] = kept
    return classes_HW


def _flag(reason: str, detail: str) -> dict[str, Any]:
    return {"status": "flagged", "reason": reason, "detail": detail, "cropped_by": None}
