"""Recall of planted near-duplicates, false pairs among unrelated frames, and time for a million images."""

import io
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from benchmarks.measure import Figure
from pipeline.cohort.near_duplicate_score import SIDE, Thumbs, thumbnails
from pipeline.cohort.near_duplicate_search import duplicates_between, duplicates_within
from pipeline.dicom.crop import crop_frame
from pipeline.dicom.grey import resize_grey
from pipeline.phantom.settings import Amount, Phantom
from pipeline.phantom.studies import clinic, frames_of
from pipeline.tasks.labelled_files import LabelledImage, read_labelled_image

Grey = npt.NDArray[np.uint8]
Variant = Callable[[Grey, np.random.Generator], Grey]
Frame = tuple[str, str, Grey]
"""Source or organ, patient, pixels."""

HEIGHT, WIDTH = 64, 96
PLANTED = 300
NEIGHBOURS = {"THYGLAND", "LUNG", "MUSCLE", "NERVE", "THYCINE", "ABDOMEN", "BREAST", "LIVER", "PLEXUS"}
"""Real sources with neighbouring frames under several patients' names, or with air: pairs are counted separately."""


def jpeg(frame: Grey, random: np.random.Generator) -> Grey:
    """`frame` compressed as JPEG of quality 50 to 90."""
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=int(random.integers(50, 91)))
    return np.asarray(Image.open(content))


def crop(frame: Grey, random: np.random.Generator) -> Grey:
    """`frame` with up to 5 % removed at each side."""
    height, width = frame.shape
    top, bottom, left, right = random.uniform(0, 0.05, 4)
    return frame[
        round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)
    ]


def gain(frame: Grey, random: np.random.Generator) -> Grey:
    """`frame` with gain 0.7 to 1.4, gamma 0.7 to 1.5 and an offset of up to 5 % of the scale, clipped."""
    grey = random.uniform(0.7, 1.4) * (frame / 255) ** random.uniform(0.7, 1.5) + random.uniform(-0.05, 0.05)
    levels: Grey = (np.clip(grey, 0, 1) * 255).round().astype(np.uint8)
    return levels


def flip(frame: Grey, _: np.random.Generator) -> Grey:
    """`frame` mirrored left to right."""
    return frame[:, ::-1]


def together(frame: Grey, random: np.random.Generator) -> Grey:
    """`frame` with all of these changes."""
    return np.ascontiguousarray(flip(jpeg(gain(crop(frame, random), random), random), random))


VARIANTS: dict[str, Variant] = {"JPEG": jpeg, "crop": crop, "gain": gain, "flip": flip, "all together": together}


def figures() -> list[Figure]:
    """Figures for phantom images, and for real ones if SONOTAG_SHARED_DATA has them."""
    sets = {"phantom": phantom_frames()}
    shared = Path(os.environ.get("SONOTAG_SHARED_DATA", ""))
    if (shared / "real_archive").is_dir():
        sets["real"] = list(real_frames(shared))
    return [figure for name, frames in sets.items() for figure in (*recall(name, frames), *false_pairs(name, frames))]


def phantom_frames() -> list[Frame]:
    """700 frames of 140 patients."""
    frames = []
    for plan in clinic(Phantom(archive=Amount(images=700, patients=140)), 0):
        view = frames_of(plan)[0]
        top, left, height, width = view.box
        grey = view.grey[top : top + height, left : left + width] * view.inside[top : top + height, left : left + width]
        frames.append(("phantom", plan.header.person.patient, grey.astype(np.uint8)))
    return frames


def real_frames(shared: Path) -> Iterator[Frame]:
    """The frames of the real archives, cropped to their tissue."""
    folders = [folder for name in ("real_archive", "real_archive_more") for folder in sorted((shared / name).glob("*"))]
    files = [(folder.name, file) for folder in folders for file in sorted(folder.rglob("*.dcm"))]
    for source, file in files:
        picture = read_labelled_image(str(file))
        if isinstance(picture, LabelledImage):
            yield source, f"{source} {file.parent.name}", crop_frame(picture.grey, picture.crop)


def recall(name: str, frames: list[Frame]) -> Iterator[Figure]:
    """The share of planted variants found among all frames."""
    random = np.random.default_rng(0)
    chosen = random.permutation(len(frames))[:PLANTED]
    everything = _thumbs([frame for *_, frame in frames])
    for variant, made in VARIANTS.items():
        planted = _thumbs([made(frames[number][2], random) for number in chosen])
        found = duplicates_between(planted, everything)
        hit = {
            row for row, other in zip(found.first.tolist(), found.second.tolist(), strict=True) if chosen[row] == other
        }
        yield Figure(f"{name}: found of {len(chosen)} variants, {variant}", f"{len(hit) / len(chosen):.1%}")


def false_pairs(name: str, frames: list[Frame]) -> Iterator[Figure]:
    """Pairs of different patients' frames in one source that count as near-duplicates, and the number of pairs."""
    sources: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        sources[frame[0]].append(frame)
    for clean in (True, False):
        called = compared = 0
        for source, own in sources.items():
            if (source in NEIGHBOURS) != clean:
                patients = [patient for _, patient, _ in own]
                called += len(duplicates_within(_thumbs([frame for *_, frame in own]), patients).first)
                counts = np.unique(patients, return_counts=True)[1]
                compared += (len(own) ** 2 - int((counts**2).sum())) // 2
        if compared:
            of = "unrelated frames of one organ" if clean else "sources with neighbouring frames (most pairs are true)"
            yield Figure(f"{name}: pairs of {of}", f"{called} of {compared:,} ({called / compared:.1e})")


def million(count: int = 1_000_000, planted: int = 1_000) -> list[Figure]:
    """Time and memory for `count` synthetic thumbnails, and the share of planted variants found."""
    thumbs = synthetic(count, planted)
    owners = [str(number) for number in range(count)]
    started = time.perf_counter()
    found = duplicates_within(thumbs, owners)
    seconds = time.perf_counter() - started
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    hit = sum((number, count - planted + number) in pairs for number in range(planted))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [
        Figure(f"{count:,} images compared in", f"{seconds:.0f} s"),
        Figure("peak memory of the process", f"{peak / 2**30:.1f} GiB"),
        Figure(f"found of {planted} planted variants (gain, noise, mirrored)", f"{hit / planted:.1%}"),
        Figure("other pairs", f"{len(pairs) - hit}"),
    ]


def synthetic(count: int, planted: int) -> Thumbs:
    """`count` thumbnails around 200 common shapes; the last `planted` are variants of the first."""
    random = np.random.default_rng(0)
    shapes = _fields(random, 200, 3.0)
    thumbs = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, 8192):
        size = min(8192, count - start)
        field = 0.7 * shapes[random.integers(0, len(shapes), size)] + _fields(random, size, 1.2)
        thumbs[start : start + size] = np.clip(90 + 35 * field, 0, 255)
    changed = thumbs[:planted, :, ::-1] * random.uniform(0.8, 1.2, (planted, 1, 1))
    thumbs[count - planted :] = np.clip(changed + random.normal(0, 4, changed.shape), 0, 255)
    return thumbs


def _fields(random: np.random.Generator, count: int, blur: float) -> npt.NDArray[np.float32]:
    """Smooth random fields with standard deviation 1."""
    white = random.standard_normal((count, SIDE, SIDE), np.float32)
    smooth = gaussian_filter1d(gaussian_filter1d(white, blur, -1), blur, -2)
    fields: npt.NDArray[np.float32] = smooth / smooth.std((1, 2), keepdims=True)
    return fields


def _thumbs(frames: list[Grey]) -> Thumbs:
    return thumbnails(np.stack([resize_grey(frame, HEIGHT, WIDTH) for frame in frames]))
