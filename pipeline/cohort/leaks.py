"""Leaks by near-duplicates: across a task's splits, between its test images and the pool, between patients.

Not here: finding pairs (`near_duplicate_search`), their review (`leak_review`).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.cohort.near_duplicate_score import SIDE, Thumbs, thumbnails
from pipeline.cohort.near_duplicate_search import duplicates_between, duplicates_within
from pipeline.cohort.patient_links import PatientSets
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.images.cache import load_pixels
from pipeline.tables import NEAR_DUPLICATES

MAX_SIMILAR_PATIENTS: Final = 10
"""An image with near-duplicates of more patients than this links none: it is a test pattern or a probe in air."""

_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_BLOCK = 4096  # images in memory at a time


@dataclass(frozen=True)
class Leak:
    """A pair of near-duplicates: id, score, captions of its images, and their rows in their tables."""

    pair: str
    similarity: float
    first: str
    second: str
    row: int
    other_row: int


def pair_id(one: str, other: str) -> str:
    """The id of a pair of images from their digests, the same in every run and order.

    It consists of letters, since spreadsheets read and round digits, with or without an e, as a number.
    """
    return digest(*sorted((one, other)))[:12].translate(_LETTERS)


def archive_pairs(images: pa.Table, folder: Path) -> pa.Table:
    """The near-duplicates of different patients among the cached `images` (IMAGES): schema NEAR_DUPLICATES.

    Exact repeats (equal `source_digest`) are left out.
    """
    images = images.sort_by([("sop_instance", "ascending"), ("frame", "ascending")])
    found = duplicates_within(cached_thumbnails(images, folder), images["patient"].to_pylist())
    sources = np.asarray(images["source_digest"].to_pylist(), dtype=str)
    other = sources[found.first] != sources[found.second]
    rows = [images.take(of[other]) for of in (found.first, found.second)]
    digests = zip(*(side["image_digest"].to_pylist() for side in rows), strict=True)
    sides = [side[name] for side in rows for name in ("sop_instance", "frame", "patient")]
    scores = pa.array(np.round(found.score[other], 4), pa.float64())
    pairs = pa.array([pair_id(*pair) for pair in digests], pa.string())
    return pa.table([pairs, *sides, scores], schema=NEAR_DUPLICATES.schema)


def similar_patients(similar: pa.Table, cleared: Collection[str]) -> PatientSets:
    """The pairs of patients that near-duplicates (NEAR_DUPLICATES) link, sorted, without `cleared` pairs."""
    pairs = [pair for pair in similar.to_pylist() if pair["pair"] not in cleared]
    patients: dict[_Image, set[str]] = defaultdict(set)
    for pair in pairs:
        one, other = _images(pair)
        patients[one].add(pair["other_patient"])
        patients[other].add(pair["patient"])
    uninformative = {image for image, others in patients.items() if len(others) > MAX_SIMILAR_PATIENTS}
    informative = (pair for pair in pairs if uninformative.isdisjoint(_images(pair)))
    return sorted({frozenset((pair["patient"], pair["other_patient"])) for pair in informative}, key=sorted)


_Image = tuple[str, int]
"""SOP instance and frame of an image."""


def _images(pair: Mapping[str, Any]) -> tuple[_Image, _Image]:
    """The two images of a row of NEAR_DUPLICATES."""
    return (pair["sop_instance"], pair["frame"]), (pair["other_sop_instance"], pair["other_frame"])


def cached_thumbnails(images: pa.Table, folder: Path) -> Thumbs:
    """The thumbnails of `images` (columns as for `load_pixels`) of the image cache at `folder`."""
    starts = range(0, images.num_rows, _BLOCK)
    made = [thumbnails(load_pixels(folder, images.slice(start, _BLOCK))) for start in starts]
    return np.concatenate(made) if made else np.empty((0, SIDE, SIDE), np.uint8)


def split_leaks(name: str, task: pa.Table) -> list[Leak]:
    """The near-duplicates in different splits of the task called `name` (a table of `read_manifest`).

    Two images that are both cropped to the tissue are not compared uncropped: their edges and captions are alike.
    """
    thumbs, rows = _task_thumbnails(task)
    splits = task["split"].to_pylist()
    found = duplicates_within(thumbs, [splits[row] for row in rows])
    uncut = _uncut(thumbs)
    found = found.take(~(uncut[found.first] & uncut[found.second]))
    named = [
        f"{name} image {number}, {side}" for number, side in zip(task["image_id"].to_pylist(), splits, strict=True)
    ]
    side = _Side(task["image_digest"].to_pylist(), named)
    return _leaks(side, rows[found.first], side, rows[found.second], found.score)


def pool_leaks(name: str, task: pa.Table, pool: pa.Table, folder: Path) -> list[Leak]:
    """The near-duplicates of test images of the task called `name` among the images of `pool`, cached at `folder`.

    Equal pixels (`source_digest`) are left out, since no reviewer can clear them.
    """
    tests = np.flatnonzero(np.asarray(task["split"].to_pylist(), dtype=str) == "test")
    thumbs, rows = _task_thumbnails(task.take(tests))
    found = duplicates_between(thumbs, cached_thumbnails(pool, folder))
    named = [f"{name} image {number}, test" for number in task["image_id"].to_pylist()]
    side = _Side(task["image_digest"].to_pylist(), named)
    others = _Side(pool["image_digest"].to_pylist(), ["an image of the pool"] * pool.num_rows)
    first, second = tests[rows[found.first]], found.second
    mine, theirs = (np.asarray(table["source_digest"].to_pylist(), dtype=str) for table in (task, pool))
    near = mine[first] != theirs[second]
    return _leaks(side, first[near], others, second[near], found.score[near])


def archive_leaks(similar: pa.Table, images: pa.Table) -> list[Leak]:
    """The pairs of `similar` (NEAR_DUPLICATES) with the rows of their images in `images` (IMAGES)."""
    keys = zip(images["sop_instance"].to_pylist(), images["frame"].to_pylist(), strict=True)
    rows = {key: row for row, key in enumerate(keys)}
    captions = ("an image of the archive",) * 2
    leaks = [
        Leak(pair["pair"], pair["likeness"], *captions, *(rows[image] for image in _images(pair)))
        for pair in similar.to_pylist()
    ]
    return sorted(leaks, key=lambda leak: (-leak.similarity, leak.pair))


_Rows = npt.NDArray[np.int64]


def _task_thumbnails(task: pa.Table) -> tuple[Thumbs, _Rows]:
    """Both thumbnails of every image of a task's table, and the row of each."""
    if "thumbnails" not in task.column_names:
        raise UserError("A task's table is of an earlier version: run the job `finetune` to make its images again.")
    content = b"".join(task["thumbnails"].to_pylist())
    return np.frombuffer(content, np.uint8).reshape(-1, SIDE, SIDE), np.repeat(np.arange(task.num_rows), 2)


def _uncut(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    """Flags of the thumbnails that show the uncropped image although it has a crop."""
    pairs = thumbs.reshape(-1, 2, SIDE * SIDE)
    cut = (pairs[:, 0] != pairs[:, 1]).any(1)
    return np.stack([cut, np.zeros_like(cut)], axis=1).reshape(-1)


@dataclass(frozen=True)
class _Side:
    """Images of one table: digests, and captions for the worklist."""

    digests: Sequence[str]
    named: Sequence[str]


def _leaks(one: _Side, rows: _Rows, other: _Side, other_rows: _Rows, scores: npt.NDArray[np.float64]) -> list[Leak]:
    """Each pair of images once, with its best score, in descending order of scores."""
    best: dict[str, Leak] = {}
    found = zip(scores.tolist(), rows.tolist(), other_rows.tolist(), strict=True)
    for score, row, second in sorted(found, key=lambda pair: (-pair[0], *pair[1:])):
        pair = pair_id(one.digests[row], other.digests[second])
        best.setdefault(pair, Leak(pair, round(score, 4), one.named[row], other.named[second], row, second))
    return list(best.values())
