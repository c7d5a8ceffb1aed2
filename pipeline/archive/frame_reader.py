"""Reads frames of an archive file in a worker, as the images that are cached."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from pipeline.archive.header_reader import patient_identity
from pipeline.archive.source import open_file, stat
from pipeline.dicom.cine import Cine, CroppedFrame
from pipeline.dicom.grey import resize_grey, source_digest
from pipeline.dicom.header import read_header
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile, outcome_of
from pipeline.images.cache import CroppedImage
from pipeline.privacy.identity import pseudonym

SECONDS_PER_FRAME: Final = 2.0
"""Added to a worker's time limit: a large JPEG 2000 frame takes a second."""
CHANGED = Rejection(Reason.CHANGED, "changed since the index: run the job `ingest` again")

Outcome = CroppedImage | Rejection


@dataclass(frozen=True, slots=True)
class RawIdentity:
    """SOP instance and patient of a file, both raw."""

    sop_instance: str = field(repr=False)
    patient: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileState:
    """The state in which a file was indexed, without the key, so that it can be sent to a worker."""

    size: int
    version: str
    modalities: tuple[str, ...]

    def identity(self, file: BinaryIO) -> RawIdentity:
        """The identity in the bytes that are to be decoded. Raises `Rejected` (changed) for no image, or another size.

        Size and time alone are not enough: a copy that keeps both can replace the indexed file.
        """
        size = file.seek(0, 2)
        header = None
        with suppress(Rejected):
            header = read_header(file, size, self.modalities)
        if header is None or size != self.size:
            raise Rejected(CHANGED.reason, CHANGED.detail)
        file.seek(0)
        return RawIdentity(header.sop_instance, patient_identity(header)[1])

    def is_current(self, archive: str, path: str) -> bool:
        """Whether the file at `path`, or the zip of a member, still has this state. Raises `OSError` if unreadable."""
        now = stat(archive, path)
        return now is not None and now.version == self.version and (now.path != path or now.size == self.size)


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """What the index recorded of a file: its state, and its identity under pseudonyms made with `key`."""

    state: FileState
    sop_instance: str
    patient: str
    key: bytes = field(repr=False)

    def matches(self, raw: RawIdentity) -> bool:
        """Whether the pseudonyms of `raw` are the recorded ones."""
        found = (pseudonym(self.key, "sop_instance", raw.sop_instance), pseudonym(self.key, "patient", raw.patient))
        return found == (self.sop_instance, self.patient)


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """Frames, numbered from 0, of the archive's file at `path`, which must still be in `state`."""

    path: str
    frames: tuple[int, ...]
    state: FileState


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """The outcome for each requested frame of a file in its indexed state, and the file's identity."""

    identity: RawIdentity
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class FrameReader:
    """Makes images of `height` x `width` pixels from files of `archive`; can be sent to a worker."""

    archive: str
    height: int
    width: int
    b_mode_only: bool

    def __call__(self, request: FrameRequest) -> DecodedFile | Rejection | UnreadableFile:
        """An image or a rejection per frame, or why there is none; an error in one frame rejects that frame only.

        A file that is not in the requested state is rejected (changed).
        """
        found = outcome_of(lambda: self._read(request))
        if isinstance(found, UnreadableFile):
            return found
        try:
            return found if request.state.is_current(self.archive, request.path) else CHANGED
        except OSError as error:
            return UnreadableFile.from_error(error)

    def _read(self, request: FrameRequest) -> DecodedFile:
        with open_file(self.archive, request.path, whole=True) as file:
            identity = request.state.identity(file)
            cropped = Cine(PixelFile.open(file), request.frames).cropped(b_mode_only=self.b_mode_only)
            outcomes = [self._image(found) if isinstance(found, CroppedFrame) else found[1] for found in cropped]
            return DecodedFile(identity, outcomes)

    def _image(self, frame: CroppedFrame) -> CroppedImage:
        crop = frame.crop
        return CroppedImage(
            resize_grey(frame.pixels, self.height, self.width),
            source_digest(frame.grey),
            crop.found_by,
            _spacing(crop.row_spacing_mm, crop.bottom - crop.top, self.height),
            _spacing(crop.column_spacing_mm, crop.right - crop.left, self.width),
        )


def _spacing(per_pixel_mm: float | None, before: int, after: int) -> float | None:
    """Millimetres between pixels after `before` of them were resized to `after`."""
    return None if per_pixel_mm is None else per_pixel_mm * before / after
