"""Reads frames of an archive file in a worker, as the images that are cached."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pipeline.archive.header_reader import patient_identity
from pipeline.archive.source import ArchiveFile, open_file, stat
from pipeline.dicom.cine import Cine, CroppedFrame
from pipeline.dicom.grey import resize_grey, source_digest
from pipeline.dicom.header import read_header
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile, outcome_of
from pipeline.images.cache import CroppedImage

SECONDS_PER_FRAME: Final = 2.0
"""Added to a worker's time limit: a large JPEG 2000 frame takes a second."""
CHANGED = Rejection(Reason.CHANGED, "changed since the index: run the job `ingest` again")

Outcome = CroppedImage | Rejection


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """Frames, numbered from 0, of a file of the archive, which must still be in this state."""

    file: ArchiveFile
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """The outcome for each requested frame of a file, and its SOP instance and patient, both raw."""

    sop_instance: str = field(repr=False)
    patient: str = field(repr=False)
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class FrameReader:
    """Makes images of `height` x `width` pixels from files of `archive`; can be sent to a worker."""

    archive: str
    modalities: tuple[str, ...]
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
            return found if self._is_current(request.file) else CHANGED
        except OSError as error:
            return UnreadableFile.from_error(error)

    def _is_current(self, file: ArchiveFile) -> bool:
        """Whether the file, or the zip of a member, still has this state. Raises `OSError` if unreadable."""
        now = stat(self.archive, file.path)
        return now is not None and now.version == file.version and (now.path != file.path or now.size == file.size)

    def _read(self, request: FrameRequest) -> DecodedFile:
        """Decode the file, and read its identity from the bytes that are decoded.

        Size and time alone are not enough: a copy that keeps both can replace the indexed file. Raises `Rejected`
        (changed) for a file that is no image, or of another size.
        """
        with open_file(self.archive, request.file.path, whole=True) as file:
            size, header = file.seek(0, 2), None
            with suppress(Rejected):
                header = read_header(file, size, self.modalities)
            if header is None or size != request.file.size:
                raise Rejected(CHANGED.reason, CHANGED.detail)
            cropped = Cine(PixelFile.open(file), request.frames).cropped(b_mode_only=self.b_mode_only)
            outcomes = [self._image(found) if isinstance(found, CroppedFrame) else found[1] for found in cropped]
            return DecodedFile(header.sop_instance, patient_identity(header)[1], outcomes)

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
