"""Detect report pages and worksheets: text, tables and curves on an even ground, without tissue.

The constants are measured: 240 rendered pages (`tests/pipeline/archive/pages.py`: ten templates, seven fonts, six
polarities, through JPEG and scaled) have up to 0.08 textured blocks per block with strokes, but for two in a hundred;
6,500 frames of public sources, of toolkits' test files and of the phantom have 0.145 or more.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.dicom.crop import CropRegion
from pipeline.dicom.fields import Fields
from pipeline.dicom.grey import Grey

_Mask = npt.NDArray[np.bool_]

ACROSS: Final = 64
"""Blocks along the longer side of a frame."""
SAMPLED: Final = 8
"""Approximate number of a block's rows and columns that are examined."""
SPARSE: Final = 3
"""Step between rows and columns of blocks in a first pass, which accepts frames with more texture than strokes."""
SMALLEST: Final = 128
"""Pixels of the longer side: smaller frames have no legible text."""
EVEN: Final = 10
"""A block is even if its 5th and 95th percentile are fewer grey levels apart."""
PAPER, GRAIN = 128, 1.5
"""A frame is scanned paper if the 5th percentile of most blocks is above `PAPER`. There, blocks are even up to `GRAIN`
times the range of the lowest quarter of them, if others have twice as much."""
BETWEEN: Final = 0.35
"""Share of a block's pixels in the middle half of that range, in tissue; strokes on a ground are at its ends."""
FEW_STROKES: Final = 3
"""Full range of a block over that range if a few strokes stand out from compression noise."""
NEIGHBOURS: Final = 5
"""Number of textured blocks among a block and its eight neighbours, in tissue."""
INK: Final = 32
"""Difference of a stroke from its ground, in grey levels."""
FEWEST_STROKES: Final = 0.005
"""Share of blocks with strokes from which a frame has text."""
PAGE, PAGE_BY_HEADER, PAGE_IN_REGION = 0.1, 0.3, 0.02
"""Textured blocks per block with strokes up to which a frame is a page: by its pixels alone, if the header suggests a
page, and within regions that the file states as tissue (air has few echoes, and is no page)."""
TEXT_IN_REGION: Final = 0.15
"""Share of blocks with strokes from which stated regions are a page; calipers and marks have fewer."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and .7.1 to .7.4, its multi-frame classes


def may_be_report_page(fields: Fields) -> bool:
    """Whether the header states secondary capture, conversion, derivation or burned-in text, unlike scanners."""
    image_type = set((fields.text("ImageType") or "").upper().split("\\"))
    captured = (fields.uid("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    converted = fields.text("ConversionType") is not None
    return captured or converted or {"DERIVED", "SECONDARY"} <= image_type or fields.yes("BurnedInAnnotation")


def is_report_page(grey_HW: Grey, crop: CropRegion, may_be_report_page: bool) -> bool:
    """Whether the crop region of a frame has strokes and hardly any tissue."""
    side = max(4, round(max(grey_HW.shape) / ACROSS))
    if max(grey_HW.shape) < SMALLEST or min(grey_HW.shape) < side:
        return False
    _, textured, strokes = _blocks(grey_HW, crop, side, SPARSE)
    if np.count_nonzero(textured) > np.count_nonzero(strokes):
        return False
    inside, textured, strokes = _blocks(grey_HW, crop, side, 1)
    crowd = ndimage.uniform_filter(textured.astype(np.float32), 3, mode="nearest")
    tissue = np.count_nonzero(textured & (crowd > (NEIGHBOURS - 0.5) / 9))
    written = np.count_nonzero(strokes)
    in_region = crop.found_by == "regions"
    most = PAGE_IN_REGION if in_region else PAGE_BY_HEADER if may_be_report_page else PAGE
    fewest = (TEXT_IN_REGION if in_region else FEWEST_STROKES) * np.count_nonzero(inside)
    return bool(written >= fewest and tissue < most * written)


def _blocks(grey_HW: Grey, crop: CropRegion, side: int, every: int) -> tuple[_Mask, _Mask, _Mask]:
    """Masks over every `every`-th row and column of blocks: in `crop`, textured like tissue, with strokes like text."""
    blocks = _sampled(grey_HW, side, every)
    inside = _inside(crop, side, every, blocks.shape[:2])
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
    """The range from which blocks are uneven, given their 5th percentiles and ranges."""
    if not low.size or np.median(low) <= PAPER:
        return EVEN
    grain = GRAIN * float(np.quantile(spread, 0.25))
    return max(EVEN, grain) if 2 * grain <= spread.max() else EVEN


def _sampled(grey_HW: Grey, side: int, every: int) -> Grey:
    """Sampled pixels of every `every`-th row and column of `side` x `side` blocks: rows x columns x pixels."""
    height, width = (length // side for length in grey_HW.shape)
    step = max(1, side // SAMPLED)
    whole = grey_HW[: height * side, : width * side].reshape(height, side, width, side)
    blocks = whole[::every, ::step, ::every, ::step].transpose(0, 2, 1, 3)
    return blocks.reshape(*blocks.shape[:2], -1)


def _inside(crop: CropRegion, side: int, every: int, blocks_hw: tuple[int, ...]) -> _Mask:
    """Which blocks have their centre in `crop`."""
    rows, columns = (np.arange(count) * side * every + side // 2 for count in blocks_hw)
    across = (columns >= crop.left) & (columns < crop.right)
    inside: _Mask = ((rows >= crop.top) & (rows < crop.bottom))[:, None] & across
    if crop.inside is not None:
        down = rows.clip(crop.top, crop.bottom - 1) - crop.top
        inside &= crop.inside[np.ix_(down, columns.clip(crop.left, crop.right - 1) - crop.left)]
    return inside
