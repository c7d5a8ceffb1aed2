"""A record's frames as the images that are cached, made in a worker.

Belongs here: decoding, tissue, size and digests of one file's frames, in their order. Not here: how each is done
(`pixels`, `tissue`), the cache (`images`).
"""

from dataclasses import dataclass

from pipeline.archive.crop_sheet import Pair
from pipeline.archive.indexed import CHANGED, State, Whose
from pipeline.archive.source import open_file
from pipeline.dicom.cine import Cine, CroppedFrame
from pipeline.dicom.crop import crop_frame
from pipeline.dicom.grey import Grey, resize_grey, source_digest
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.quiet import quiet
from pipeline.dicom.rejections import Reason, Rejected, Rejection, UnreadableFile


@dataclass(frozen=True, slots=True)
class Job:
    """Frames, numbered from 0, of the archive's file at `path`; `state`: the one that it must still have."""

    path: str
    frames: tuple[int, ...]
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One image to be cached: `pixels` is height x width; spacings in mm between its rows and columns."""

    pixels: Grey
    source_digest: str
    cropped_by: str
    row_spacing_mm: float | None
    column_spacing_mm: float | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of the frames of a file in its indexed state, and whose image it is."""

    whose: Whose
    images: list[Image | Rejection]


@dataclass(frozen=True, slots=True)
class FrameReader:
    """Makes images of `height` x `width` pixels from files of `archive`; can be sent to a worker."""

    archive: str
    height: int
    width: int
    b_mode_only: bool

    def __call__(self, job: Job) -> Decoded | list[Image | Rejection] | UnreadableFile:
        """An image or a rejection for each frame of `job`; one frame's fault costs that frame.

        Of a job with a state it comes with whose image the file is; if that state has changed, all frames are rejected
        (changed).
        """
        try:
            with quiet():
                images = self._read(job)
                if job.state is None or job.state.is_state_of(self.archive, job.path):
                    return images
                return [CHANGED] * len(job.frames)
        except OSError as error:
            return UnreadableFile.from_error(error)
        except MemoryError:
            return [Rejection(Reason.OVER_LIMITS, "decoding asks for more memory than a worker may hold")] * len(
                job.frames
            )

    def _read(self, job: Job) -> Decoded | list[Image | Rejection]:
        try:
            with open_file(self.archive, job.path, whole=True) as file:
                whose = job.state and job.state.whose(file)
                images = self._images(PixelFile.open(file), job.frames)
                return Decoded(whose, images) if whose else images
        except Rejected as rejected:
            return [rejected.rejection] * len(job.frames)

    def _images(self, file: PixelFile, frames: tuple[int, ...]) -> list[Image | Rejection]:
        cropped = Cine(file, frames).cropped(b_mode_only=self.b_mode_only)
        return [self._image(found) if isinstance(found, CroppedFrame) else found[1] for found in cropped]

    def _image(self, frame: CroppedFrame) -> Image:
        crop = frame.crop
        return Image(
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
    """Makes before-and-after pairs for the crop sheet; can be sent to a worker."""

    archive: str

    def __call__(self, captioned: tuple[str, Job, int]) -> Pair | None:
        """Frame number `captioned[2]` of a job as decoded and as cut out, None where there is no such image."""
        caption, job, shown = captioned
        try:
            with quiet(), open_file(self.archive, job.path, whole=True) as file:
                opened = PixelFile.open(file)
                cine = Cine(opened, job.frames)
                grey, crop = cine.frame(shown).grey, cine.crop_region()
                return Pair(grey, crop, crop_frame(grey, crop), caption)
        except (Rejected, OSError, MemoryError):
            return None
