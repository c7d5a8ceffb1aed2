"""The phantom clinic as a folder: archive, labelled sets, ground truth; whole or not at all.

Belongs here: what is made, in which order, how it appears. Not here: how one image or defect is made.
"""

import csv
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.phantom.defects import Rejection, add_defects
from pipeline.phantom.downstream import LabelledSet, cases, write_case, write_manifests
from pipeline.phantom.studies import clinic, write_image
from pipeline.progress import Progress, Say, silent

VERSION = 2  # of what a seed stands for: raise it whenever any byte of the phantom changes


@dataclass(frozen=True)
class Size:
    """How many patients the archive has, and how large each labelled set is."""

    patients: int
    sets: tuple[LabelledSet, ...]


DEMO = Size(
    patients=42,
    sets=(
        LabelledSet("quality", "quality", 5, (24, 6, 10)),
        LabelledSet("liver_kidney", "mask", 4, (18, 4, 9)),
        LabelledSet("thyroid", "mask", 4, (18, 4, 9)),
    ),
)


def make_phantom(folder: Path, seed: int = 0, say: Say = silent) -> None:
    """Write the phantom into `folder`: archive/, downstream/, ground_truth.csv and, last, phantom.json.

    The same seed gives the same bytes, however many cores work on it. A folder that already holds this seed and
    version is left as it is; another phantom is replaced. Raises `UserError` where `folder` holds anything else, and
    for a negative seed.
    """
    write_phantom(folder, seed, DEMO, say)


def write_phantom(folder: Path, seed: int, size: Size, say: Say = silent) -> None:
    """`make_phantom` at a given size."""
    if seed < 0:
        raise UserError(f"The phantom's seed {seed} is negative: give 0 or more.")
    wanted = {"version": VERSION, "seed": seed, "size": asdict(size)}
    if _is_there(folder, wanted):
        say(f"{folder} already holds the phantom of seed {seed}.")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        _fill(unfinished, seed, size, say)
        write_json(unfinished / "phantom.json", wanted)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_there(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether `folder` holds the wanted phantom; raises `UserError` where it holds what is no phantom."""
    if not folder.exists():
        return False
    marker = folder / "phantom.json"
    if marker.is_file():
        return bool(read_json(marker) == json.loads(json.dumps(wanted)))
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(f"{folder} holds something that is no phantom: name a new or empty folder.")
    return False


def _fill(folder: Path, seed: int, size: Size, say: Say) -> None:
    archive, downstream = folder / "archive", folder / "downstream"
    plans = clinic(size.patients, seed)
    jobs = [partial(write_image, archive, plan) for plan in plans]
    labelled = [partial(write_case, downstream, case, seed) for case in cases(size.sets)]
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Progress("phantom", len(jobs) + len(labelled), "images", say) as progress,
    ):
        for _ in pool.map(lambda job: job(), [*jobs, *labelled]):
            progress.advance()
    write_manifests(downstream, size.sets, seed)
    _write_ground_truth(folder / "ground_truth.csv", add_defects(archive, plans, seed))


def _write_ground_truth(path: Path, rejections: list[Rejection]) -> None:
    """What an ingest of the archive must reject; `frame` is empty for a whole file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("path", "level", "reason", "frame"))
        for one in rejections:
            rows.writerow((one.path, one.level, one.reason, "" if one.frame is None else one.frame))
