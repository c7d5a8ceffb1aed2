"""How often a probe's pictures suggest its shape: on the phantom, and on real archives if they are at hand.

Patients are halved by a hash. The constants of `outline` and `probe_pictures` were set on the first half of
`real_archive`, and of a phantom clinic of another size.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import BinaryIO

from benchmarks.measure import Figure
from pipeline.dicom.cine import Cine, CroppedFrame
from pipeline.dicom.face import face_position
from pipeline.dicom.grey import resize_grey
from pipeline.dicom.header import read_header
from pipeline.dicom.pixel_file import PixelFile
from pipeline.dicom.rejections import Rejected
from pipeline.labels.probe import ProbeTags, shape_of_probe
from pipeline.labels.probe_pictures import PICTURES, Picture, picture_of, shape_shown, suggestion_of
from pipeline.labels.probe_tables import Probes
from pipeline.recipe.archive import Archive
from pipeline.recipe.labels import ProbeSource

DRAWS = 200
"""Probes that are drawn per source and shape, as up to PICTURES images of different patients."""
HEIGHT, WIDTH = 64, 96
UNUSED = "real_archive_more"
"""The archive that nothing was set on, except that a rectangle must not fill its frame."""
REAL = ("real_archive", UNUSED)


@dataclass(frozen=True)
class Seen:
    """One image: its source, patient and true shape, and what it shows."""

    source: str
    patient: str
    shape: str
    picture: Picture

    @property
    def is_second_half(self) -> bool:
        """Whether its patient is in the half that nothing was set on."""
        return sha256(f"{self.source}/{self.patient}".encode()).digest()[0] % 2 == 1


def figures(clinic: Path, shared: Path) -> list[Figure]:
    """The figures of the phantom at `clinic`, and of the archives that the folder `shared` has."""
    found = _figures("phantom", list(of_phantom(clinic)))
    for archive in REAL:
        if (shared / archive).is_dir():
            found += _figures(archive, list(of_real(shared / archive)))
    return found


def of_phantom(clinic: Path) -> Iterator[Seen]:
    """What the phantom's images show, with the probes that were used, whatever the tags state."""
    with (clinic / "ground_truth" / "records.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if (clinic / "archive" / row["path"]).is_file()]
    paths = [clinic / "archive" / row["path"] for row in rows]
    for row, found in zip(rows, _looked_at(paths), strict=True):
        if found:
            yield Seen("phantom", row["patient_id"], row["true_probe"], found[0])


def of_real(archive: Path) -> Iterator[Seen]:
    """What the images of an archive show whose tags state the shape; folders are sources, then patients."""
    files = sorted(archive.rglob("*.dcm"))
    for file, found in zip(files, _looked_at(files), strict=True):
        source, patient = file.relative_to(archive).parts[:2]
        if found and found[1]:
            yield Seen(source, patient, found[1], found[0])


def _looked_at(paths: list[Path]) -> Iterator[tuple[Picture, str | None] | None]:
    with ProcessPoolExecutor() as pool:
        yield from pool.map(_look_at, paths, chunksize=32)


def _look_at(path: Path) -> tuple[Picture, str | None] | None:
    """What the first frame of a file shows at the size of a cache, and the shape by its tags; None if rejected."""
    try:
        with path.open("rb") as file:
            picture = _picture(file)
            return (picture, _shape_by_tags(file, path.stat().st_size)) if picture else None
    except Rejected:
        return None


def _picture(file: BinaryIO) -> Picture | None:
    opened = PixelFile.open(file)
    frame = next(iter(Cine(opened, (0,)).cropped()))
    if not isinstance(frame, CroppedFrame):
        return None
    grey = resize_grey(frame.pixels, HEIGHT, WIDTH)
    return picture_of(grey, frame.crop.found_by, face_position(opened.regions))


def _shape_by_tags(file: BinaryIO, size: int) -> str | None:
    header = read_header(file, size, Archive().modalities)
    tags = ProbeTags(header.manufacturer, header.transducer_type, header.transducer_data)
    return shape_of_probe(tags, ProbeSource(), Probes())


def _figures(archive: str, seen: list[Seen]) -> list[Figure]:
    halves = {
        "first half": [one for one in seen if not one.is_second_half],
        "second half": [one for one in seen if one.is_second_half],
    }
    parts = {"all": seen} if archive == UNUSED else halves
    frequent = Counter(one.shape for one in next(iter(parts.values()))).most_common(1)[0][0]
    return [figure for part, ones in parts.items() for figure in _of_part(f"{archive}, {part}", ones, frequent)]


def _of_part(name: str, seen: Iterable[Seen], frequent: str) -> Iterator[Figure]:
    groups: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.source, one.shape].append(one)
    for (source, shape), ones in sorted(groups.items()):
        found = score(ones)
        about = f"{name}: {source}, {shape}, {len(ones)} images of {len({one.patient for one in ones})} patients"
        control = f"always {frequent}: {_outcome(frequent, shape)}"
        yield Figure(about, f"{_counts(found.by_image)}; by probe {_counts(found.by_probe)}; {control}")


@dataclass(frozen=True)
class Score:
    """Numbers of images, and of DRAWS probes, whose suggestion is `right`, `wrong` or `none`."""

    by_image: Mapping[str, int]
    by_probe: Mapping[str, int]


def score(ones: Sequence[Seen]) -> Score:
    """The score of images of one source and shape, at least one."""
    shape = ones[0].shape
    return Score(
        Counter(_outcome(shape_shown(one.picture), shape) for one in ones),
        Counter(_outcome(suggested, shape) for suggested in _drawn(ones)),
    )


def _drawn(ones: Sequence[Seen]) -> Iterator[str | None]:
    """The shapes suggested for DRAWS probes."""
    by_patient: dict[str, list[Picture]] = defaultdict(list)
    for one in ones:
        by_patient[one.patient].append(one.picture)
    random, patients = Random(0), sorted(by_patient)
    for _ in range(DRAWS):
        chosen = random.sample(patients, min(PICTURES, len(patients)))
        found = suggestion_of([random.choice(by_patient[patient]) for patient in chosen])
        yield None if found is None else found.shape


def _outcome(suggested: str | None, shape: str) -> str:
    return "none" if suggested is None else "right" if suggested == shape else "wrong"


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{outcomes.get(outcome, 0)} {outcome}" for outcome in ("right", "wrong", "none"))
