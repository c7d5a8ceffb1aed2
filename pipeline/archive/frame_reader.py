"""Reads frames of an archive file in a worker, as the images that are cached or shown on the crop sheet."""

from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.archive.crop_sheet import CropPreview
from pipeline.archive.header_reader import patient_identity
from pipeline.archive.source import open_file, stat
from pipeline.dicom.cine import Cine, CroppedFrame
from pipeline.dicom.crop import crop_frame
from pipeline.dicom.grey import resize_grey, source_digest
from pipeline.dicom.header import read_header
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile, outcome_of
from pipeline.images.cache import CroppedImage
from pipeline.privacy.identity import pseudonym

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
        try:
            header = read_header(file, size, self.modalities)
        except Rejected:
            raise Rejected(CHANGED.reason, CHANGED.detail) from None
        if size != self.size:
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
    """Frames, numbered from 0, of the archive's file at `path`, which must still be in `state` if one is given."""

    path: str
    frames: tuple[int, ...]
    state: FileState | None = None


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

    def __call__(self, request: FrameRequest) -> DecodedFile | list[Outcome] | UnreadableFile:
        """An image or a rejection per frame; an error in one frame rejects that frame only.

        If the request has a state, the result includes the file's identity, or rejects all frames (changed) if the
        state has changed.
        """
        found = outcome_of(lambda: self._read(request))
        if isinstance(found, UnreadableFile):
            return found
        try:
            if request.state is not None and not request.state.is_current(self.archive, request.path):
                found = CHANGED
        except OSError as error:
            return UnreadableFile.from_error(error)
        return [found] * len(request.frames) if isinstance(found, Rejection) else found

    def _read(self, request: FrameRequest) -> DecodedFile | list[Outcome]:
        with open_file(self.archive, request.path, whole=True) as file:
            identity = request.state and request.state.identity(file)
            outcomes = self._outcomes(PixelFile.open(file), request.frames)
            return DecodedFile(identity, outcomes) if identity else outcomes

    def _outcomes(self, file: PixelFile, frames: tuple[int, ...]) -> list[Outcome]:
        cropped = Cine(file, frames).cropped(b_mode_only=self.b_mode_only)
        return [self._image(found) if isinstance(found, CroppedFrame) else found[1] for found in cropped]

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


@dataclass(frozen=True, slots=True)
class CropPreviewReader:
    """Makes previews for the crop sheet; can be sent to a worker."""

    archive: str

    def __call__(self, item: tuple[str, FrameRequest, int]) -> CropPreview | None:
        """The preview of one frame, given its caption, the request that read it and its number; None if undecodable."""
        found = outcome_of(lambda: self._read(*item))
        return found if isinstance(found, CropPreview) else None

    def _read(self, caption: str, request: FrameRequest, number: int) -> CropPreview:
        with open_file(self.archive, request.path, whole=True) as file:
            cine = Cine(PixelFile.open(file), request.frames)
            grey, crop = cine.frame(number).grey, cine.crop_region()
            return CropPreview(grey, crop, crop_frame(grey, crop), caption)
