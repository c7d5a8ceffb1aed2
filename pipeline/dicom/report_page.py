"""Report pages and worksheets told from images: text, tables and curves on an even ground, and no tissue.

Set by measuring: 240 rendered pages (`tests/pipeline/archive/pages.py`: ten templates, seven fonts, six polarities,
through JPEG and scaled) have up to 0.08 textured blocks for each that holds strokes, but for two in a hundred; 6,500
frames of public sources, of toolkits' test files and of the phantom have 0.145 or more.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.dicom.fields import Fields
from pipeline.dicom.regions import CropRegion, Grey

_Mask = npt.NDArray[np.bool_]

ACROSS: Final = 64
"""Blocks along the longer side of a frame."""
SAMPLED: Final = 8
"""Rows and columns of a block that are looked at, about."""
SPARSE: Final = 3
"""Of every third row and column of blocks, a frame with more textured blocks than ones with strokes is an image."""
SMALLEST: Final = 128
"""Pixels of the longer side: on smaller frames nothing can be read."""
EVEN: Final = 10
"""Between their 5th and 95th percentile, blocks of fewer grey levels are even."""
PAPER, GRAIN = 128, 1.5
"""A frame whose blocks are mostly brighter than this even where they are dark is scanned paper: there, blocks are even
up to so many times the range that a quarter of them stays below, if others have twice as much."""
BETWEEN: Final = 0.35
"""Tissue has this share of a block's pixels in the middle half of that range; strokes on a ground are at its ends."""
FEW_STROKES: Final = 3
"""All levels of a block over that range, where a few strokes stand out of what compression left around them."""
NEIGHBOURS: Final = 5
"""Of a block and its eight neighbours so many are textured in tissue."""
INK: Final = 32
"""Grey levels by which a stroke differs from its ground."""
FEWEST_STROKES: Final = 0.005
"""Share of the blocks with strokes from which there is something to read."""
PAGE, PAGE_BY_HEADER, PAGE_IN_REGION = 0.1, 0.3, 0.02
"""Textured blocks for each block with strokes, up to which a frame is a page: by its pixels alone, where the header
says that it may be one, and within regions that the file states as tissue: there air has few echoes, and is no page."""
TEXT_IN_REGION: Final = 0.15
"""Share of blocks with strokes of a page for which a file states regions; calipers and marks are fewer."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and .7.1 to .7.4, its multi-frame classes


def may_be_report_page(fields: Fields) -> bool:
    """Whether the header says secondary capture, conversion, derived or text burned in; scanners' own images do not."""
    kinds = set((fields.text("ImageType") or "").upper().split("\\"))
    captured = (fields.uid("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    converted = fields.text("ConversionType") is not None
    return captured or converted or {"DERIVED", "SECONDARY"} <= kinds or fields.yes("BurnedInAnnotation")


def is_report_page(grey_HW: Grey, area: CropRegion, may_be_report_page: bool) -> bool:
    """Whether `area` of a frame holds strokes and next to no tissue; `may_be_report_page` as the header says."""
    side = max(4, round(max(grey_HW.shape) / ACROSS))
    if max(grey_HW.shape) < SMALLEST or min(grey_HW.shape) < side:
        return False
    _, textured, strokes = _blocks(grey_HW, area, side, SPARSE)
    if np.count_nonzero(textured) > np.count_nonzero(strokes):
        return False
    inside, textured, strokes = _blocks(grey_HW, area, side, 1)
    crowd = ndimage.uniform_filter(textured.astype(np.float32), 3, mode="nearest")
    tissue = np.count_nonzero(textured & (crowd > (NEIGHBOURS - 0.5) / 9))
    written = np.count_nonzero(strokes)
    in_region = area.found_by == "regions"
    most = PAGE_IN_REGION if in_region else PAGE_BY_HEADER if may_be_report_page else PAGE
    fewest = (TEXT_IN_REGION if in_region else FEWEST_STROKES) * np.count_nonzero(inside)
    return bool(written >= fewest and tissue < most * written)


def _blocks(grey_HW: Grey, area: CropRegion, side: int, every: int) -> tuple[_Mask, _Mask, _Mask]:
    """Which blocks, of every so manieth row and column of them, are in `area`, and of these textured, and with strokes.

    Textured as tissue is; with strokes, as text and lines are.
    """
    blocks = _sampled(grey_HW, side, every)
    inside = _inside(area, side, every, blocks.shape[:2])
    ordered = np.sort(blocks.astype(np.int16), axis=-1)  # forty times as fast as bytes
    tail = ordered.shape[-1] // 20
    lowest, low, high, highest = (ordered[..., at] for at in (0, tail, -1 - tail, -1))
    spread = high - low
    above, below = (low + spread // 4).astype(np.uint8), (high - spread // 4).astype(np.uint8)
    between = ((blocks > above[..., None]) & (blocks < below[..., None])).sum(-1, dtype=np.uint16)
    textured = inside & (spread >= _even(low, spread)) & (between >= BETWEEN * blocks.shape[-1])
    textured &= highest - lowest <= FEW_STROKES * spread
    return inside, textured, inside & ~textured & (highest - lowest >= INK)


def _even(low: npt.NDArray[np.int16], spread: npt.NDArray[np.int16]) -> float:
    """The range from which blocks are not even, given their 5th percentiles and their ranges."""
    if not low.size or np.median(low) <= PAPER:
        return EVEN
    grain = GRAIN * float(np.quantile(spread, 0.25))
    return max(EVEN, grain) if 2 * grain <= spread.max() else EVEN


def _sampled(grey_HW: Grey, side: int, every: int) -> Grey:
    """Pixels of blocks of `side` x `side`, of every so manieth row and column of them: rows x columns x pixels."""
    height, width = (length // side for length in grey_HW.shape)
    step = max(1, side // SAMPLED)
    whole = grey_HW[: height * side, : width * side].reshape(height, side, width, side)
    blocks = whole[::every, ::step, ::every, ::step].transpose(0, 2, 1, 3)
    return blocks.reshape(*blocks.shape[:2], -1)


def _inside(area: CropRegion, side: int, every: int, blocks_hw: tuple[int, ...]) -> _Mask:
    """Which blocks have their middle within `area`."""
    rows, columns = (np.arange(count) * side * every + side // 2 for count in blocks_hw)
    across = (columns >= area.left) & (columns < area.right)
    inside: _Mask = ((rows >= area.top) & (rows < area.bottom))[:, None] & across
    if area.inside is not None:
        down = rows.clip(area.top, area.bottom - 1) - area.top
        inside &= area.inside[np.ix_(down, columns.clip(area.left, area.right - 1) - area.left)]
    return inside
