"""Where in an ultrasound frame the tissue is: by the file's regions, else by the pixels; colour flow recognised.

Belongs here: arrays and regions in, the area to keep out. Not here: files, decoding, resizing, the cache.

The numbers below were set, by measuring and by looking, on 17 ultrasound files of public toolkits' test suites (GE,
Philips, Aloka, Mindray), on samples of eight public sources (all grey, most of them cropped already), and on the
phantom, whose geometry is known. The measured ranges are of 40 frames of each of seven of the sources.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.dicom.regions import CropRegion, Grey, UltrasoundRegion
from pipeline.dicom.rejections import Reason, Rejected

_Floats = npt.NDArray[np.float32]
_Lengths = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]
_Box = tuple[int, int, int, int]  # top, bottom, left, right; half-open
_Spacing = tuple[float, float]  # row, column; millimetres
_Kind = TypeVar("_Kind", bound=np.generic)

# PS3.3 section C.8.5.5.1.1, Region Spatial Format, and C.8.5.5.1.2, Region Data Type
_TWO_DIMENSIONAL, _M_MODE, _SPECTRAL = 1, 2, 3
_TISSUE, COLOUR_FLOW = 1, 2
_TRACES = frozenset({5, 6, 7})  # of Doppler: mean, mode, maximum
_CENTIMETRES = 3  # C.8.5.5.1.15

SMALLEST_SIDE: Final = 0.05
"""A tissue region with a shorter side, as a share of the frame's, is taken for a writer's mistake."""
NEARLY_ALL: Final = 0.97
"""An area that covers this share of the frame is the frame."""

GRID: Final = 128
"""Blocks along the longer side of the reduced copy that detection looks at."""
BLACK: Final = 3
"""Grey levels up to this are black: JPEG leaves some around what it draws on black."""
SPIKE_SHARE, SPIKE_HEIGHT, SPIKES = 0.03, 5.0, 4
"""A level (with its two neighbours) that holds this share of the pixels, and so many times what any level four to ten
away holds, is a fill of the screen; tissue's histogram is smooth. More than so many: an image of few grey levels."""
LIT_SHARE: Final = 0.3
"""Share of a block's pixels that must differ from the screen's fills: 84 to 98 % of blocks within the area have it."""
ROUGHEST: Final = 0.5
"""Mean step between neighbouring pixels over mean level: 0.01 to 0.23 in tissue (5th to 95th percentile), 0.9 in the
middle and above 0.45 in nine of ten blocks of drawn text, ticks and logos."""
THINNEST: Final = 0.07
"""Narrower than this share of the longer side is a ruler, a grey bar or a line of text."""
GROWTH: Final = 3
"""Side of the square that every thick enough part grows to, as a multiple of that thickness."""
SECOND: Final = 0.08
"""A second area, such as the other half of a split screen, must be wider than this in both directions."""
LAYER: Final = (0.045, 0.1)
"""Above or below the rest, as the near field above a full bladder, a piece may be so thin, if it is so wide."""
DIM_PEAK, DIM_BLOCKS, DIM_REACH = 80, 6, 0.2
"""Textured pieces apart from the rest are echoes if nothing written is as dim, from so many blocks, and not farther
aside than this share of the longer side."""
NARROWEST_FACE: Final = 0.1
"""An upper edge that is shorter than this share of the longer side does not tell where the middle is."""
LEAST_AREA: Final = 0.1
"""Less than this share of the frame is too little to be sure of."""
LEAST_FILL: Final = 0.35
"""A hull with a smaller share of lit blocks joins things that do not belong together."""
MOST_LEFT_OUT: Final = 0.5
"""Lit blocks outside over those inside: beyond this the frame is noise, or no screen that is understood."""

BRIGHT: Final = 48
"""Below this level, colour is noise."""
COLOURED: Final = 0.25
"""Saturation, 0 to 1, from which a pixel is coloured; a grey image that went through JPEG as colour has none."""
COLOUR_SHARE, LEAST_COLOURED = 0.01, 0.004
"""Colour flow has more than these shares of the bright pixels, and of all pixels, in colour. Real flow has 0.1 to 0.4
and 0.04 to 0.11; highlighted rows of a table on an otherwise black image have 0.1 and 0.003."""
WEAK_TINT, OFF_TINT, HIGHLIGHT = 0.1, 0.35, 192
"""A median saturation from which a frame is tinted; the distance from the tint that is another colour; the level from
which a tint may fade to white."""
WIDEST_STROKE: Final = 6
"""Pixels of the full frame: colour that is narrower is a letter, a line or a caliper."""
SAMPLES: Final = 60_000
"""Pixels that the judgement of colour looks at, about."""


def crop_region_of_frame(
    grey_HW: Grey, regions: tuple[UltrasoundRegion, ...], spacing_mm: tuple[float, float] | None
) -> CropRegion:
    """The part of one frame that shows tissue; see `find_crop_region`."""
    return find_crop_region((grey_HW,), regions, spacing_mm)


def find_crop_region(
    greys_HW: Iterable[Grey], regions: tuple[UltrasoundRegion, ...], spacing_mm: tuple[float, float] | None
) -> CropRegion:
    """The part of a file's frames, at least one, that shows tissue.

    By `regions` where they can be used: the box around all two-dimensional tissue regions, black between them. Else by
    the pixels: the convex hull of the largest textured, filled parts, where text, rulers and grey bars are neither, of
    each frame, and of a cine all of these together. When that is in doubt (dark frames, little tissue, or nearly all
    of the frame) the whole frame.

    `spacing_mm` is (row, column) as PixelSpacing states it; the regions' own spacing goes first.
    Raises `Rejected` (not_b_mode) where the regions say that the frame shows colour flow, or no tissue in two
    dimensions but a spectrum or an M-mode.
    """
    tissue = [region for region in regions if _is_tissue(region)]
    _must_be_b_mode(regions, tissue)
    frames = iter(greys_HW)
    first_HW = next(frames)
    boxes = {region: box for region in tissue if (box := _box(region, first_HW.shape))}
    spacing = _stated_spacing(boxes) or _usable(spacing_mm) or (None, None)
    # A region that is the whole screen, as some makers write it, says nothing about where the tissue is.
    if boxes and not any(_share(box, first_HW.shape) > NEARLY_ALL for box in boxes.values()):
        return _around(list(boxes.values()), spacing)
    return _detected(chain((first_HW,), frames), spacing)


def crop_frame(grey_HW: Grey, area: CropRegion) -> Grey:
    """The box of `area` as an image of its own, black where it is not insonated."""
    box = grey_HW[area.top : area.bottom, area.left : area.right]
    return box.copy() if area.inside is None else box * area.inside


def has_colour_flow(rgb_hwC: npt.NDArray[np.uint8], area: CropRegion, shape_HW: tuple[int, int]) -> bool:
    """Whether the area shows colour flow: red, green and blue of a frame of `shape_HW`, or of a reduced copy of it.

    A frame in one tint (sepia, blue) shows none: what counts is colour that is not the frame's own, and wider than
    what is written or drawn on the tissue. Flow of one hue that fills the whole area looks like a tint.
    """
    colours, inside, step = _samples(rgb_hwC, area, shape_HW)
    peak = colours.max(axis=0)
    bright = inside & (peak > BRIGHT)
    if not bright.any():
        return False
    solid = ndimage.minimum_filter(bright & _off_tint(colours, peak, bright), max(2, round(WIDEST_STROKE / step)))
    return bool(np.count_nonzero(solid) > max(COLOUR_SHARE * np.count_nonzero(bright), LEAST_COLOURED * inside.sum()))


def _off_tint(colours_Chw: _Floats, peak_hw: _Floats, bright_hw: _Mask) -> _Mask:
    """Which pixels have another colour than the frame's greys, or than its one tint."""
    red, green, blue = colours_Chw
    peak = np.maximum(peak_hw, 1)
    # Hue and saturation as a point in the plane: a grey lies at the origin, a pure colour at the distance 1.
    across, up = (red - (green + blue) / 2) / peak, (green - blue) * np.float32(3**0.5 / 2) / peak
    middle = np.median(across[bright_hw]), np.median(up[bright_hw])
    tint, saturation = np.hypot(*middle), np.hypot(across, up)
    if tint < WEAK_TINT:
        return np.asarray(saturation > COLOURED, np.bool_)
    # Tinted maps grow pale in their highlights: that alone is no second colour.
    pale = (peak >= HIGHLIGHT) & (saturation < tint)
    return np.asarray((np.hypot(across - middle[0], up - middle[1]) > OFF_TINT) & ~pale, np.bool_)


def _is_tissue(region: UltrasoundRegion) -> bool:
    """Two-dimensional tissue, also as makers write it who leave the format or the type at 0, or out.

    A type of 0 in two dimensions is an image of an unstated kind: were it flow, its colours would show. A format of 0
    with tissue is an image where both axes are lengths; an M-mode's are length and time.
    """
    lengths = region.units_x == region.units_y == _CENTIMETRES
    if region.spatial_format == _TWO_DIMENSIONAL:
        return region.data_type == _TISSUE or (not region.data_type and lengths)
    return not region.spatial_format and region.data_type == _TISSUE and lengths


def _must_be_b_mode(regions: tuple[UltrasoundRegion, ...], tissue: list[UltrasoundRegion]) -> None:
    """Raise `Rejected` for colour flow on the tissue, and for frames that hold other ultrasound but no tissue."""
    flow = [r for r in regions if r.spatial_format == _TWO_DIMENSIONAL and r.data_type == COLOUR_FLOW]
    if any(_overlap(region, other) for region in flow for other in tissue) or (flow and not tissue):
        raise Rejected(Reason.NOT_B_MODE, "its regions say colour flow")
    # ECG traces, grey bars and graphics alone say nothing: a maker that lists them need not list the image.
    if not tissue and any(r.spatial_format in {_M_MODE, _SPECTRAL} or r.data_type in _TRACES for r in regions):
        raise Rejected(Reason.NOT_B_MODE, "its regions say M-mode or spectrum, and no tissue in two dimensions")


def _overlap(region: UltrasoundRegion, other: UltrasoundRegion) -> bool:
    """Whether two regions share pixels, as they state it; False where one does not say where it is."""
    sides = [(region.x0, region.x1, other.x0, other.x1), (region.y0, region.y1, other.y0, other.y1)]
    for first, last, other_first, other_last in sides:
        if first is None or last is None or other_first is None or other_last is None:
            return False
        if max(first, other_first) > min(last, other_last):
            return False
    return True


def _box(region: UltrasoundRegion, shape_HW: tuple[int, ...]) -> _Box | None:
    """The region's pixels within the frame; None where it is not to be believed."""
    if region.x0 is None or region.y0 is None or region.x1 is None or region.y1 is None:
        return None
    height, width = shape_HW
    top, bottom = max(region.y0, 0), min(region.y1 + 1, height)
    left, right = max(region.x0, 0), min(region.x1 + 1, width)
    if bottom - top <= SMALLEST_SIDE * height or right - left <= SMALLEST_SIDE * width:
        return None
    # Frames that were scaled down after the regions were written have them mostly outside: clipped, they would cut
    # the tissue. One row or column too many is common, and a frame cut at one side keeps most of its region.
    stated = (region.y1 + 1 - region.y0) * (region.x1 + 1 - region.x0)
    return (top, bottom, left, right) if (bottom - top) * (right - left) * 2 > stated else None


def _share(box: _Box, shape_HW: tuple[int, ...]) -> float:
    return (box[1] - box[0]) * (box[3] - box[2]) / (shape_HW[0] * shape_HW[1])


def _stated_spacing(boxes: dict[UltrasoundRegion, _Box]) -> _Spacing | None:
    """Millimetres between rows and columns, of the largest region that states centimetres on both axes."""
    for region, _ in sorted(boxes.items(), key=lambda pair: -_share(pair[1], (1, 1))):
        if region.units_x == region.units_y == _CENTIMETRES and region.delta_x and region.delta_y:
            # A negative delta counts upwards or leftwards.
            return _usable((abs(region.delta_y) * 10, abs(region.delta_x) * 10))
    return None


def _usable(spacing_mm: _Spacing | None) -> _Spacing | None:
    return spacing_mm if spacing_mm and all(0 < side < np.inf for side in spacing_mm) else None


def _around(boxes: list[_Box], spacing: tuple[float | None, float | None]) -> CropRegion:
    """The box around `boxes`, black between them."""
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    top, bottom, left, right = min(tops), max(bottoms), min(lefts), max(rights)
    inside = np.zeros((bottom - top, right - left), np.bool_)
    for box in boxes:
        inside[box[0] - top : box[1] - top, box[2] - left : box[3] - left] = True
    return CropRegion(top, bottom, left, right, None if inside.all() else inside, "regions", *spacing)


def _detected(greys_HW: Iterable[Grey], spacing: tuple[float | None, float | None]) -> CropRegion:
    """The tissue that any of the frames shows, or the whole frame; a frame in doubt has no say."""
    height, width, inside_HW = 0, 0, None
    for grey_HW in greys_HW:
        height, width = grey_HW.shape
        if (shown_HW := _insonated(grey_HW)) is not None:
            inside_HW = shown_HW if inside_HW is None else inside_HW | shown_HW
    if inside_HW is None or inside_HW.all():
        return CropRegion(0, height, 0, width, None, "whole", *spacing)
    return _boxed(inside_HW, spacing)


def _insonated(grey_HW: Grey) -> _Mask | None:
    """The hull of the tissue that a frame's pixels show; None where that is in doubt.

    Where nothing is textured as tissue is, what is merely lit counts, and then even what is of one level: coarse noise
    and phantoms' uniform fields are insonated too, and what is written beside them is no less to be cut away.
    """
    height, width = grey_HW.shape
    for attempt, (blocks, found) in enumerate(_attempts(grey_HW)):
        if found is None:
            continue
        part = _completed(found, blocks.peak)
        if not _is_sure(part, blocks.lit):
            return None
        if np.count_nonzero(part) >= NEARLY_ALL * part.size:  # texture all over is tissue; other light may be a page
            return None if attempt else np.ones_like(grey_HW, np.bool_)
        edges = _hull(part, _middles(height, part.shape[0], blocks.side))
        return _between(*edges, _middles(width, part.shape[1], blocks.side))
    return None


def _attempts(grey_HW: Grey) -> Iterator[tuple["_Blocks", _Mask | None]]:
    """What may be tissue, the likeliest first; nothing in a picture of which every pixel would be a block."""
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


def _boxed(inside_HW: _Mask, spacing: tuple[float | None, float | None]) -> CropRegion:
    """The box around a mask of the whole frame."""
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    top, bottom, first, last = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    inside = inside_HW[top:bottom, first:last]
    return CropRegion(top, bottom, first, last, None if inside.all() else inside, "detected", *spacing)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A reduced copy: what each block of `side` x `side` pixels holds, and the screen's fills left out of account.

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
    """The largest filled and textured area, and what belongs to it; None where there is none."""
    closed = _closed(blocks.lit & (blocks.rough < ROUGHEST))
    part = _thick_pieces(closed, THINNEST)
    return None if part is None else part | _layers(closed, part) | _dim(closed, part, blocks.peak)


def _lit_blocks(blocks: _Blocks) -> _Mask | None:
    """The largest lit area; no texture keeps letters out, so that only what is twice as thick counts."""
    return _thick_pieces(_closed(blocks.lit), 2 * THINNEST)


def _closed(mask: _Mask) -> npt.NDArray[np.uint8]:
    """`mask` with gaps of one and two blocks closed."""
    return np.asarray(ndimage.minimum_filter(ndimage.maximum_filter(mask.view(np.uint8), 3), 3), np.uint8)


def _thick_pieces(closed: npt.NDArray[np.uint8], thinnest: float) -> _Mask | None:
    """The largest piece nowhere thinner than a share `thinnest` of the longer side, and other large ones."""
    longest = max(closed.shape)
    thick = 2 * round(thinnest * longest / 2) + 1
    cores = ndimage.minimum_filter(closed, thick)
    # Grown back by more than was worn off, so that corners and a sector's tip return, but not along a line of text.
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
    """Pieces of `closed` too dim to be written or drawn, that lie below, above or close beside `part`."""
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
    """The convex hull of `part`, with its mirror image where that adds dark and whole echoes alone.

    Sectors and rectangles are symmetric about the middle of the probe's face: what is dark on one side, behind gas or
    in a bladder, has its counterpart on the other. What is written there is cut by the border, echoes end at it.
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
    """Left and right edge of the convex hull of `part` at the heights `at`, in blocks; both 0 where there is none."""
    rows = np.flatnonzero(part.any(1))
    width = part.shape[1]
    left = _outermost(rows, part[rows].argmax(1), at)
    right = width - _outermost(rows, part[rows, ::-1].argmax(1), at)
    beside = (at < rows[0]) | (at > rows[-1] + 1)
    left[beside] = right[beside] = 0
    return left, right


def _outermost(rows: npt.NDArray[np.intp], first: npt.NDArray[np.intp], at: _Lengths) -> _Lengths:
    """The convex curve that leaves all blocks, of which `first` are the first in each of `rows`, on one side."""
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
    """The middles of `length` pixels, in blocks; those beyond the last whole block belong to it."""
    return np.minimum((np.arange(length, dtype=np.float64) + 0.5) / side, blocks - 0.5)


def _samples(rgb_hwC: npt.NDArray[np.uint8], area: CropRegion, shape_HW: tuple[int, int]) -> tuple[_Floats, _Mask, int]:
    """Colours, three planes, of a grid of about `SAMPLES` pixels of the area's box; which are insonated; the step.

    The step is the grid's, in pixels of the full frame.
    """
    factor = max(1, round(shape_HW[0] / rgb_hwC.shape[0]))
    box = rgb_hwC[area.top // factor : -(-area.bottom // factor), area.left // factor : -(-area.right // factor)]
    every = max(1, round((box.shape[0] * box.shape[1] / SAMPLES) ** 0.5))
    box = box[::every, ::every]
    inside = np.ones(box.shape[:2], np.bool_)
    if area.inside is not None:
        mask = area.inside[:: factor * every, :: factor * every][: box.shape[0], : box.shape[1]]
        inside[:] = False
        inside[: mask.shape[0], : mask.shape[1]] = mask
    return np.ascontiguousarray(np.moveaxis(box, 2, 0), np.float32), inside, factor * every
