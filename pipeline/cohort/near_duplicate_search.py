"""Search for pairs of near-duplicate images.

Comparing all pairs takes quadratic time, so the search narrows down in stages: coarse vectors, of images in the same
cells only if there are many; then fine vectors; then the score of `near_duplicate_score`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.cohort.near_duplicate_score import (
    COARSE_NUMBERS,
    FINE_NUMBERS,
    MIN_SIMILARITY,
    Thumbs,
    Vectors,
    coarse_vectors,
    fine_vectors,
    mirrored,
    similarity,
    with_structure,
)

COARSE, FINE = 0.78, 0.65
"""Minimum products of the vectors of a candidate pair; 99 % of planted variants have at least 0.83 and 0.72."""
NEAREST: Final = 64
"""Number of nearest images by coarse vectors whose fine vectors are compared."""
SCORED: Final = 8
"""Number of nearest images by fine vectors that are scored; of an image with more near-duplicates not all are found."""
EXACT: Final = 20_000
"""Maximum number of images whose pairs are all compared; more images are searched by cells."""
PROBED: Final = 6
"""Number of cells in which an image, and its mirror image, is looked up."""

_BLOCK = 2048  # images whose products are in memory at a time
_TRAINED_ON = 65_536  # vectors from which the cells are computed

_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Positions of the two images of each pair, and their score, sorted by position."""

    first: _Indices
    second: _Indices
    score: npt.NDArray[np.float64]

    def take(self, kept: npt.NDArray[np.bool_]) -> "Pairs":
        """The pairs flagged in `kept`."""
        return Pairs(self.first[kept], self.second[kept], self.score[kept])


@dataclass(frozen=True)
class _Described:
    """Thumbnails with their vectors, uncropped and inner; images of one owner are not compared."""

    thumbs: Thumbs
    owners: _Indices
    coarse: tuple[Vectors, Vectors]
    fine: tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]


def duplicates_within(thumbs: Thumbs, owners: Sequence[str]) -> Pairs:
    """The near-duplicates among images of different `owners`, each pair once with first < second.

    Images without structure (blank frames, letters on black) are skipped.
    """
    kept = np.flatnonzero(with_structure(thumbs))
    codes = np.unique(np.asarray(owners, dtype=str), return_inverse=True)[1]
    images = _described(thumbs[kept], codes[kept])
    together = _all_with_all(images, images) if len(kept) <= EXACT else _by_cells(images)
    found = [np.sort(_near(images, one, images, other), axis=1) for one, other in together]
    return _scored(images, kept, images, kept, found)


def duplicates_between(thumbs: Thumbs, others: Thumbs) -> Pairs:
    """The near-duplicates of `thumbs` (positions `first`) among `others` (positions `second`).

    Both sides look up their nearest images, so that an image with more than `SCORED` near-duplicates is found by those.
    Images without structure are skipped.
    """
    kept, other_kept = np.flatnonzero(with_structure(thumbs)), np.flatnonzero(with_structure(others))
    one = _described(thumbs[kept], np.zeros(len(kept), np.int64))
    other = _described(others[other_kept], np.ones(len(other_kept), np.int64))
    found = []
    for rows, columns in _all_with_all(one, other):
        found += [_near(one, rows, other, columns), _near(other, columns, one, rows)[:, ::-1]]
    return _scored(one, kept, other, other_kept, found)


def _described(thumbs: Thumbs, owners: _Indices) -> _Described:
    coarse = np.empty((2, len(thumbs), COARSE_NUMBERS), np.float32)
    fine = np.empty((2, len(thumbs), FINE_NUMBERS), np.float16)
    for start in range(0, len(thumbs), _BLOCK):
        block = slice(start, start + _BLOCK)
        coarse[:, block], fine[:, block] = coarse_vectors(thumbs[block]), fine_vectors(thumbs[block])
    return _Described(thumbs, owners, (coarse[0], coarse[1]), (fine[0], fine[1]))


def _all_with_all(one: _Described, other: _Described) -> Iterator[tuple[_Indices, _Indices]]:
    """Positions to compare, in blocks of both sides."""
    for start, from_ in product(range(0, len(one.thumbs), _BLOCK), range(0, len(other.thumbs), EXACT)):
        rows = np.arange(start, min(start + _BLOCK, len(one.thumbs)))
        yield rows, np.arange(from_, min(from_ + EXACT, len(other.thumbs)))


def _by_cells(images: _Described) -> Iterator[tuple[_Indices, _Indices]]:
    """Positions to compare: for each cell, the images looked up there and the images in it by either vector.

    Cells are k-means clusters of a sample; their number is four times the square root of the number of images.
    """
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415 - takes a second to load, and few archives need it

    whole, inner = images.coarse
    sample = whole[:: max(1, len(whole) // _TRAINED_ON)]
    count = min(4 * round(len(whole) ** 0.5), len(sample) // 8)
    model = MiniBatchKMeans(count, random_state=0, n_init=1, batch_size=8192, max_iter=20).fit(sample)
    centres = np.asarray(model.cluster_centers_, np.float32)
    looked_up = [_nearest_cells(vectors, centres, PROBED) for vectors in (whole, mirrored(whole))]
    assigned = [_nearest_cells(vectors, centres, 1) for vectors in (whole, inner)]
    for queries, members in zip(_images_of_cells(looked_up, count), _images_of_cells(assigned, count), strict=True):
        for start in range(0, len(queries), _BLOCK):
            yield queries[start : start + _BLOCK], members


def _nearest_cells(vectors: Vectors, centres: Vectors, count: int) -> _Indices:
    """The `count` nearest centres of each vector, N x count."""
    lengths = np.square(centres).sum(1) / 2
    found = [  # copied: a view would keep all columns in memory
        np.argpartition(lengths - vectors[start : start + _BLOCK] @ centres.T, count - 1, axis=1)[:, :count].copy()
        for start in range(0, len(vectors), _BLOCK)
    ]
    return np.concatenate(found)


def _images_of_cells(cells: Sequence[_Indices], count: int) -> Iterator[_Indices]:
    """The images of each of `count` cells; `cells` are arrays of each image's cells, shape (N, any)."""
    images = np.concatenate([np.repeat(np.arange(len(of)), of.shape[1]) for of in cells])
    numbers = np.concatenate([of.ravel() for of in cells])
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(count + 1))
    for cell in range(count):
        yield np.unique(images[order[edges[cell] : edges[cell + 1]]])


def _near(one: _Described, rows: _Indices, other: _Described, columns: _Indices) -> _Indices:
    """Pairs of close vectors among `rows` of `one` and `columns` of `other`, shape (M, 2)."""
    if not len(rows) or not len(columns):
        return np.empty((0, 2), np.int64)
    products = _products(one.coarse, rows, other.coarse, columns)
    products[one.owners[rows][:, None] == other.owners[columns][None]] = -1
    pairs = _best_of_each(products, NEAREST, COARSE)
    pairs = np.stack([rows[pairs[:, 0]], columns[pairs[:, 1]]], axis=1)
    fine = _fine(one, other, pairs)
    order = np.lexsort((-fine, pairs[:, 0]))
    pairs, fine = pairs[order], fine[order]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    return pairs[(fine >= FINE) & (rank < SCORED)]


def _products(
    one: tuple[Vectors, Vectors], rows: _Indices, other: tuple[Vectors, Vectors], columns: _Indices
) -> npt.NDArray[np.float32]:
    """The maximum product of the vectors of each pair, shape (rows, columns)."""
    mine, theirs = ((whole[at], inner[at]) for (whole, inner), at in ((one, rows), (other, columns)))
    made = (view @ against.T for view, against in _matching_views(mine, theirs))
    return reduce(lambda best, more: np.maximum(best, more, out=best), made)


def _matching_views(one: tuple[Vectors, Vectors], other: tuple[Vectors, Vectors]) -> Iterator[tuple[Vectors, Vectors]]:
    """The pairs of vectors that may be close: one of both is uncropped, the first also mirrored."""
    (whole, inner), (other_whole, other_inner) = one, other
    for mine, theirs in ((whole, other_whole), (whole, other_inner), (inner, other_whole)):
        yield from ((mine, theirs), (mirrored(mine), theirs))


def _best_of_each(products: npt.NDArray[np.float32], count: int, least: float) -> _Indices:
    """Row and column of each row's `count` greatest products of at least `least`."""
    columns = np.argpartition(-products, min(count, products.shape[1]) - 1, axis=1)[:, :count]
    rows = np.repeat(np.arange(len(products)), columns.shape[1])
    chosen = np.stack([rows, columns.ravel()], axis=1)
    return chosen[products[rows, columns.ravel()] >= least]


def _fine(one: _Described, other: _Described, pairs: _Indices) -> npt.NDArray[np.float32]:
    """The maximum product of the fine vectors of each pair."""
    found = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _BLOCK):
        rows, columns = pairs[start : start + _BLOCK].T
        mine, theirs = (
            (whole[at].astype(np.float32), inner[at].astype(np.float32))
            for (whole, inner), at in ((one.fine, rows), (other.fine, columns))
        )
        found.append(np.max([(view * against).sum(1) for view, against in _matching_views(mine, theirs)], axis=0))
    return np.concatenate(found)


def _scored(
    one: _Described, kept: _Indices, other: _Described, other_kept: _Indices, found: Sequence[_Indices]
) -> Pairs:
    pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)
    scores = np.array([similarity(one.thumbs[row], other.thumbs[column]) for row, column in pairs.tolist()], np.float64)
    alike = scores >= MIN_SIMILARITY
    return Pairs(kept[pairs[alike, 0]], other_kept[pairs[alike, 1]], scores[alike])
