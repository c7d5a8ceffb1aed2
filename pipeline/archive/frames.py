"""A record's frames as the images that are cached, made in a worker.

Belongs here: decoding, tissue, size and digests of one file's frames, in their order. Not here: how each is done
(`pixels`, `tissue`), the cache (`images`).
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as Picture

from pipeline.archive.crop_sheet import Pair
from pipeline.archive.indexed import CHANGED, State, Whose
from pipeline.archive.source import open_file
from pipeline.dicom.cine import Cine
from pipeline.dicom.pixels import Frame, Grey, PixelFile, resize_grey
from pipeline.dicom.reading import UnreadableFile, quiet
from pipeline.dicom.regions import CropRegion, UltrasoundRegion
from pipeline.dicom.rejections import Reason, Rejected, Rejection
from pipeline.dicom.tissue import COLOUR_FLOW, crop_frame, has_colour_flow


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
        images: list[Image | Rejection] = []
        cine, area = Cine(file, frames), None
        for number in frames:
            try:
                frame = cine.frame(number)
                area = area or cine.area(self._regions(file))
                cine.reject_report_page(frame.grey, area)
                if self.b_mode_only and file.is_ultrasound:
                    reject_colour_flow(frame, area)
                images.append(self._image(frame.grey, area))
            except Rejected as rejected:
                images.append(rejected.rejection)
        return images

    def _regions(self, file: PixelFile) -> tuple[UltrasoundRegion, ...]:
        """The file's regions; where colour is wanted, without those that say that there is some."""
        return file.regions if self.b_mode_only else tuple(r for r in file.regions if r.data_type != COLOUR_FLOW)

    def _image(self, grey: Grey, area: CropRegion) -> Image:
        cut = crop_frame(grey, area)
        reject_blank(cut)
        pixels = resize_grey(cut, self.height, self.width)
        return Image(
            pixels,
            source_digest(grey),
            area.found_by,
            _spacing(area.row_spacing_mm, area.bottom - area.top, self.height),
            _spacing(area.column_spacing_mm, area.right - area.left, self.width),
        )


NEAR_ONE_LEVEL: Final = 8
"""Grey levels that compression and a receiver's noise put around one level."""
LEAST_SHOWN: Final = 0.005
"""Share of the pixels that must differ by more from the most common level; with a probe on skin it is 0.25 to 1."""


def reject_blank(cut: Grey) -> None:
    """Raise `Rejected` (no_tissue) if what is kept of a frame is of one grey level, but for noise and specks.

    Such frames are equal or alike with many patients, and show none of them.
    """
    counts = np.array(Picture.fromarray(cut).histogram())
    most = int(counts.argmax())
    near = counts[max(0, most - NEAR_ONE_LEVEL) : most + NEAR_ONE_LEVEL + 1].sum()
    if cut.size - near < LEAST_SHOWN * cut.size:
        raise Rejected(Reason.NO_TISSUE, "the frame is of one grey level, or nearly so")


def reject_colour_flow(frame: Frame, area: CropRegion) -> None:
    """Raise `Rejected` (not_b_mode) where the area of an ultrasound frame shows colour flow."""
    if frame.rgb is not None and has_colour_flow(frame.rgb, area, frame.grey.shape):
        raise Rejected(Reason.NOT_B_MODE, "colours within the insonated area")


def _spacing(per_pixel_mm: float | None, before: int, after: int) -> float | None:
    """Millimetres between pixels where `before` of them became `after`."""
    return None if per_pixel_mm is None else per_pixel_mm * before / after


def source_digest(grey: Grey) -> str:
    """SHA-256 of a frame's size and grey pixels: equal for equal pictures, however they are stored."""
    return hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()


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
                grey, area = cine.frame(shown).grey, cine.area(opened.regions)
                return Pair(grey, area, crop_frame(grey, area), caption)
        except (Rejected, OSError, MemoryError):
            return None
