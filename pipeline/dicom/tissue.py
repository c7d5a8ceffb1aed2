"""Detect the tissue in an ultrasound frame by its pixels.

The constants were set, by measuring and by looking, on 17 ultrasound files of public toolkits' test suites (GE,
Philips, Aloka, Mindray), on samples of eight public sources (all grey, most of them cropped already), and on the
phantom, whose geometry is known. The measured ranges are of 40 frames of each of seven of the sources.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.dicom.grey import Grey

_Floats = npt.NDArray[np.float32]
_Lengths = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)

NEARLY_ALL: Final = 0.97
"""A region that covers this share of the frame is taken for the frame."""

GRID: Final = 128
"""Blocks along the longer side of the reduced copy that detection works on."""
BLACK: Final = 3
"""Grey levels up to this are black: JPEG leaves some around drawings on black."""
SPIKE_SHARE, SPIKE_HEIGHT, SPIKES = 0.03, 5.0, 4
"""A level (with its two neighbours) that has this share of the pixels, and this many times the share of any level four
to ten away, is a fill of the screen; tissue's histogram is smooth. More than `SPIKES` are an image of few levels."""
LIT_SHARE: Final = 0.3
"""Share of a block's pixels that must differ from the screen's fills: 84 to 98 % of blocks within tissue have it."""
ROUGHEST: Final = 0.5
"""Mean step between neighbouring pixels over mean level: 0.01 to 0.23 in tissue (5th to 95th percentile), 0.9 in the
middle and above 0.45 in nine of ten blocks of drawn text, ticks and logos."""
THINNEST: Final = 0.07
"""Narrower than this share of the longer side is a ruler, a grey bar or a line of text."""
GROWTH: Final = 3
"""Side of the square that every thick enough part grows to, as a multiple of that thickness."""
SECOND: Final = 0.08
"""A second piece, such as the other half of a split screen, must be larger than this in both directions."""
LAYER: Final = (0.045, 0.1)
"""Height and width of a thin piece above or below the rest, such as the near field above a full bladder."""
DIM_PEAK, DIM_BLOCKS, DIM_REACH = 80, 6, 0.2
"""Textured pieces apart from the rest are echoes if they are dimmer than text, have at least this many blocks, and are
not farther aside than this share of the longer side."""
NARROWEST_FACE: Final = 0.1
"""An upper edge shorter than this share of the longer side does not locate the middle."""
LEAST_AREA: Final = 0.1
"""Tissue with a smaller share of the frame is in doubt."""
LEAST_FILL: Final = 0.35
"""A hull with a smaller share of lit blocks joins unrelated pieces."""
MOST_LEFT_OUT: Final = 0.5
"""Lit blocks outside over those inside: beyond this the frame is noise or an unknown screen layout."""


def detect_tissue(greys_HW: Iterable[Grey]) -> _Mask | None:
    """The union of the tissue that each frame clearly shows, height x width; None if it is empty or fills the frame."""
    inside_HW = None
    for grey_HW in greys_HW:
        if (shown_HW := _insonated(grey_HW)) is not None:
            inside_HW = shown_HW if inside_HW is None else inside_HW | shown_HW
    return None if inside_HW is None or inside_HW.all() else inside_HW


def _insonated(grey_HW: Grey) -> _Mask | None:
    """The hull of a frame's tissue; None in doubt.

    Without any texture of tissue, lit parts count, and then parts of one level: coarse noise and phantoms' uniform
    fields are insonated too, and text beside them must be cut away.
    """
    height, width = grey_HW.shape
    for attempt, (blocks, found) in enumerate(_attempts(grey_HW)):
        if found is None:
            continue
        part = _completed(found, blocks.peak)
        if not _is_sure(part, blocks.lit):
            return None
        if np.count_nonzero(part) >= NEARLY_ALL * part.size:  # texture all over is tissue, lit parts may be a page
            return None if attempt else np.ones_like(grey_HW, np.bool_)
        edges = _hull(part, _middles(height, part.shape[0], blocks.side))
        return _between(*edges, _middles(width, part.shape[1], blocks.side))
    return None


def _attempts(grey_HW: Grey) -> Iterator[tuple["_Blocks", _Mask | None]]:
    """Candidates for tissue, the likeliest first; none in an image so small that each pixel would be a block."""
    if max(grey_HW.shape) < GRID:
        return
    blocks = _Blocks.of(grey_HW, _fills(grey_HW))
    yield blocks, _tissue_blocks(blocks)
    yield blocks, _lit_blocks(blocks)
    blocks = _Blocks.of(grey_HW, np.arange(256) <= BLACK)
    yield blocks, _lit_blocks(blocks)


def _is_sure(part: _Mask, lit: _Mask) -> bool:
    """Whether `part` is large, filled, and most of what is lit."""
    covered = np.count_nonzero(part) / part.size
    inside = np.count_nonzero(lit & part)
    if covered < LEAST_AREA or inside < LEAST_FILL * covered * part.size:
        return False
    return bool(np.count_nonzero(lit) - inside <= MOST_LEFT_OUT * inside)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Statistics of each block of `side` x `side` pixels, without the screen's fills.

    `share` is the share of pixels that are no fill, `peak` the highest level, `rough` the mean step to the next column
    over the mean level, of the block and its neighbours.
    """

    side: int
    share: _Floats
    peak: Grey
    rough: _Floats

    @property
    def lit(self) -> _Mask:
        return np.asarray(self.share >= LIT_SHARE, np.bool_)

    @staticmethod
    def of(grey_HW: Grey, fills: _Mask) -> "_Blocks":
        side = max(1, round(max(grey_HW.shape) / GRID))
        lit = ~fills[grey_HW]
        step = np.zeros_like(grey_HW)
        after, before = grey_HW[:, 1:], grey_HW[:, :-1]
        np.subtract(np.maximum(after, before), np.minimum(after, before), out=step[:, 1:])
        level = ndimage.uniform_filter(_means(grey_HW * lit, side), 3)
        rough = ndimage.uniform_filter(_means(step, side), 3) / (level + np.float32(1e-3))
        return _Blocks(side, _means(lit.view(np.uint8), side), _reduced(grey_HW, side, np.maximum), rough)


def _fills(grey_HW: Grey) -> _Mask:
    """Which of the 256 levels are black or the colour of a background, a panel or a banner."""
    counts = np.bincount(grey_HW[::2, ::2].ravel(), minlength=256)
    wide = np.convolve(counts, (1, 1, 1), "same")
    padded = np.pad(wide, 10)
    around = np.max([padded[10 + by : 266 + by] for by in (*range(-10, -3), *range(4, 11))], axis=0)
    # A spike is counted once, at its highest level.
    spikes = (wide >= SPIKE_SHARE * counts.sum()) & (wide > SPIKE_HEIGHT * around)
    spikes &= counts == ndimage.maximum_filter1d(counts, 5, mode="constant")
    if np.count_nonzero(spikes) > SPIKES:
        spikes[:] = False
    fills = np.convolve(spikes, (1, 1, 1), "same") > 0
    fills[: BLACK + 1] = True
    return fills


def _means(values_HW: npt.NDArray[np.uint8], side: int) -> _Floats:
    """Means of blocks; sums of sixteen bits are twice as fast and hold blocks of up to 16 x 16."""
    wide = values_HW.astype(np.uint16) if side <= 16 else values_HW.astype(np.uint32)
    return np.asarray(_reduced(wide, side, np.add).astype(np.float32) / np.float32(side * side))


def _reduced(values_HW: npt.NDArray[_Kind], side: int, combine: np.ufunc) -> npt.NDArray[_Kind]:
    """Blocks of `side` x `side` values combined into one; rows and columns that fill no block are left out."""
    height, width = (length // side * side for length in values_HW.shape)
    rows = reduce(combine, (values_HW[at:height:side, :width] for at in range(side)))
    blocks: npt.NDArray[_Kind] = reduce(combine, (rows[:, at::side] for at in range(side)))
    return blocks


def _tissue_blocks(blocks: _Blocks) -> _Mask | None:
    """The largest filled and textured part, with its layers and dim echoes; None if there is none."""
    closed = _closed(blocks.lit & (blocks.rough < ROUGHEST))
    part = _thick_pieces(closed, THINNEST)
    return None if part is None else part | _layers(closed, part) | _dim(closed, part, blocks.peak)


def _lit_blocks(blocks: _Blocks) -> _Mask | None:
    """The largest lit part; it must be twice as thick, since texture does not exclude letters."""
    return _thick_pieces(_closed(blocks.lit), 2 * THINNEST)


def _closed(mask: _Mask) -> npt.NDArray[np.uint8]:
    """`mask` with gaps of one and two blocks closed."""
    return np.asarray(ndimage.minimum_filter(ndimage.maximum_filter(mask.view(np.uint8), 3), 3), np.uint8)


def _thick_pieces(closed: npt.NDArray[np.uint8], thinnest: float) -> _Mask | None:
    """The largest piece nowhere thinner than a share `thinnest` of the longer side, and other large ones."""
    longest = max(closed.shape)
    thick = 2 * round(thinnest * longest / 2) + 1
    cores = ndimage.minimum_filter(closed, thick)
    # Dilated by more than was eroded, so that corners and a sector's tip return, but not along a line of text.
    pieces, count = ndimage.label(ndimage.maximum_filter(cores, GROWTH * thick, mode="constant") & closed)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    wanted = (sizes == sizes.max()) | (_extents(pieces).min(axis=1) >= SECOND * longest)
    return np.asarray(np.append(False, wanted)[pieces], np.bool_)


def _extents(pieces: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Height and width, in blocks, of each labelled piece from label 1: pieces x 2."""
    boxes = ndimage.find_objects(pieces)
    return np.array([[side.stop - side.start for side in box] for box in boxes], np.intp).reshape(-1, 2)


def _layers(closed: npt.NDArray[np.uint8], part: _Mask) -> _Mask:
    """Thin wide pieces of `closed` between the columns of `part`."""
    columns = np.flatnonzero(part.any(0))
    pieces, _ = ndimage.label(closed & ~part)
    beside = np.append(pieces[:, : columns[0]], pieces[:, columns[-1] + 1 :])
    wanted = np.append(False, (_extents(pieces) >= np.array(LAYER) * max(part.shape)).all(axis=1))
    wanted[beside] = False
    return np.asarray(wanted[pieces], np.bool_)


def _dim(closed: npt.NDArray[np.uint8], part: _Mask, peak: Grey) -> _Mask:
    """Pieces of `closed` too dim for text and drawings, below, above or close beside `part`."""
    columns = np.flatnonzero(part.any(0))
    reach = round(DIM_REACH * max(part.shape))
    near = np.zeros(part.shape[1], np.bool_)
    near[max(columns[0] - reach, 0) : columns[-1] + 1 + reach] = True
    pieces, count = ndimage.label(closed & ~part)
    bright = pieces[(peak >= DIM_PEAK) | ~near]
    wanted = np.bincount(bright, minlength=count + 1) == 0
    wanted &= np.bincount(pieces.ravel(), minlength=count + 1) >= DIM_BLOCKS
    wanted[0] = False
    return np.asarray(wanted[pieces], np.bool_)


def _completed(part: _Mask, peak: Grey) -> _Mask:
    """The convex hull of `part`, united with its mirror image if that adds only dark pixels and whole echoes.

    Sectors and rectangles are symmetric about the middle of the probe's face: a part that is dark on one side, behind
    gas or in a bladder, has its counterpart on the other. The border cuts through text, but echoes end at it.
    """
    rows, columns = (_middles(blocks, blocks, 1) for blocks in part.shape)
    left, right = _hull(part, rows)
    hull = _between(left, right, columns)
    face = np.flatnonzero(right > left)[1:2]
    if not len(face) or right[face] - left[face] < NARROWEST_FACE * max(part.shape):
        return hull
    mirrored = left[face] + right[face] - right, left[face] + right[face] - left
    if mirrored[0].min() < -1 or mirrored[1].max() > part.shape[1] + 1:  # the frame cuts the sector off
        return hull
    both = hull | (_between(*mirrored, columns) & (right > left)[:, None])
    pieces, _ = ndimage.label((peak >= DIM_PEAK) & ~hull)
    beyond = pieces[~ndimage.maximum_filter(both, 3)]
    return hull if np.isin(pieces[both & ~hull], beyond[beyond > 0]).any() else both


def _hull(part: _Mask, at: _Lengths) -> tuple[_Lengths, _Lengths]:
    """Left and right edge of the convex hull of `part` at the heights `at`, in blocks; both 0 above and below it."""
    rows = np.flatnonzero(part.any(1))
    width = part.shape[1]
    left = _outermost(rows, part[rows].argmax(1), at)
    right = width - _outermost(rows, part[rows, ::-1].argmax(1), at)
    beside = (at < rows[0]) | (at > rows[-1] + 1)
    left[beside] = right[beside] = 0
    return left, right


def _outermost(rows: npt.NDArray[np.intp], first: npt.NDArray[np.intp], at: _Lengths) -> _Lengths:
    """The convex curve that has all blocks on one side; `first` are the first ones in each of `rows`."""
    edge = np.full(rows[-1] - rows[0] + 2, np.inf)
    edge[rows - rows[0]] = first
    edge[rows - rows[0] + 1] = np.minimum(edge[rows - rows[0] + 1], first)
    chain: list[tuple[int, float]] = []
    for height, now in zip(np.flatnonzero(np.isfinite(edge)).tolist(), edge[np.isfinite(edge)].tolist(), strict=True):
        while len(chain) > 1 and _bends_inward(chain[-2], chain[-1], (height, now)):
            chain.pop()
        chain.append((height, now))
    heights, edges = zip(*chain, strict=True)
    return np.asarray(np.interp(at - rows[0], heights, edges), np.float64)


def _bends_inward(start: tuple[int, float], middle: tuple[int, float], end: tuple[int, float]) -> bool:
    """Whether `middle` lies on or beyond the straight line from `start` to `end`."""
    return (middle[1] - start[1]) * (end[0] - start[0]) >= (end[1] - start[1]) * (middle[0] - start[0])


def _between(left: _Lengths, right: _Lengths, at: _Lengths) -> _Mask:
    return np.asarray((at >= left[:, None]) & (at < right[:, None]), np.bool_)


def _middles(length: int, blocks: int, side: int) -> _Lengths:
    """The centres of `length` pixels, in blocks; pixels beyond the last whole block belong to it."""
    return np.minimum((np.arange(length, dtype=np.float64) + 0.5) / side, blocks - 0.5)
