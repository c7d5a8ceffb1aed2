"""Images of different patients that nearly agree.

Belongs here: comparing perceptual hashes. Not here: computing them (`pipeline.archive.perceptual`), exact repeats,
which the split treats itself.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.tables import NEAR_DUPLICATES

CROWD: Final = 500
"""Hashes in one bucket that are compared all with all. Blank frames come by the thousand and have nearly one hash:
of larger buckets each hash is compared with the next few in sorted order alone, so that pairs in them are missed."""
CROWD_REACH: Final = 20
"""How many of the next."""

_BITS = 64
_Hashes = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.int64]


def near_duplicates(images: pa.Table, distance: int = 4) -> pa.Table:
    """Pairs of `images` (schema IMAGES) whose perceptual hashes differ in `distance` bits at most.

    Returns schema NEAR_DUPLICATES, each pair once, sorted by instance and frame. Left out are pairs of one patient and
    exact repeats (equal `source_digest`). Complete, but for buckets larger than `CROWD`: hashes are cut into
    `distance` + 1 bands, and two that differ in `distance` bits agree in one band at least (the pigeonhole principle);
    only hashes that share a band are compared. Raises `ValueError` for a distance outside 0 to 16, beyond which bands
    are too short to tell images apart.
    """
    if not 0 <= distance <= 16:
        raise ValueError(f"distance is {distance}; it must be 0 to 16 bits.")
    images = images.sort_by([("sop_instance", "ascending"), ("frame", "ascending")])
    hashes = np.array([int(text, 16) for text in images["perceptual_hash"].to_pylist()], np.uint64)
    patients, sources = (_codes(images[name]) for name in ("patient", "source_digest"))
    found = [np.empty((0, 2), np.int64)]
    for keys in _bands(hashes, distance + 1):
        for first, second in _candidates(keys, hashes):
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
            near &= (patients[first] != patients[second]) & (sources[first] != sources[second])
            found.append(np.sort(np.stack([first[near], second[near]], axis=1), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return _rows(images, pairs, np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]))


def _codes(column: pa.ChunkedArray) -> _Indices:
    """A number for each value, equal where the values are."""
    return np.asarray(column.combine_chunks().dictionary_encode().indices, np.int64)


def _bands(hashes: _Hashes, count: int) -> Iterator[_Hashes]:
    """The hashes' bits in `count` bands of nearly equal length, one after the other."""
    edges = [_BITS * band // count for band in range(count + 1)]
    for low, high in pairwise(edges):
        mask = (1 << (high - low)) - 1
        yield (hashes >> np.uint64(low)) & np.uint64(mask)


def _candidates(keys: _Hashes, hashes: _Hashes) -> Iterator[tuple[_Indices, _Indices]]:
    """Pairs of indices that share a key, in batches: those that lie `step` apart in sorted order, for each step."""
    order = np.lexsort((hashes, keys))
    starts = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1])) if len(order) else np.empty(0, int)
    sizes = np.diff(np.append(starts, len(order)))
    reach = np.where(sizes <= CROWD, sizes - 1, CROWD_REACH)
    for step in range(1, int(reach.max(initial=0)) + 1):
        wide = reach >= step
        left = _ranges(starts[wide], sizes[wide] - step)
        yield order[left], order[left + step]


def _ranges(starts: _Indices, lengths: _Indices) -> _Indices:
    """The numbers `start` to `start` + `length` - 1 of each pair, joined."""
    shifts = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(lengths.sum()) + np.repeat(starts - shifts, lengths), np.int64)


def _rows(images: pa.Table, pairs: npt.NDArray[np.int64], distances: npt.NDArray[np.uint8]) -> pa.Table:
    """The pairs as a table, in the order of the images."""
    sides = [images.select(["sop_instance", "frame", "patient"]).take(pairs[:, side]) for side in (0, 1)]
    columns = [column for side in sides for column in side.columns]
    return pa.table([*columns, pa.array(distances, pa.int64())], schema=NEAR_DUPLICATES.schema)
