"""The outline of the insonated area, which often shows the kind of probe: a sector's face or apex, a rectangle.

The constants were set on half of the patients of a phantom and of eight public sources; docs/mapping.md states how
often outlines are right on the others.
"""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view as _windows

Outline = Literal["arc", "narrow", "point", "rectangle", "trapezoid"]
"""`arc`: an upper edge that is lower in the middle. The others have a straight one: `rectangle` (also a steered
parallelogram) as wide as the area below, `trapezoid` narrower, `narrow` less than half as wide, `point` much less."""

_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

LIT: Final = 10
"""Grey levels of 3 x 3 pixels, on average, above this are lit: outside the area it is black but for compression."""
LEAST_LIT: Final = (0.05, 0.25)
"""Shares of pixels and of columns that must be lit."""
NEAR_TOP: Final = 0.06
"""The upper edge is sought in columns that begin within this share of the height below the topmost one."""
LEAST_SAG: Final = 0.012
"""An arc's middle is lower than its ends by more than this share of the height: one row of 64."""
UNEVEN: Final = 0.6
"""Largest deviation from a parabola, as a share of its sag."""
ONE_ROW: Final = 0.016
"""Smaller deviations, as a share of the height, are those of a row of 64."""
TILTED: Final = 2 * ONE_ROW
"""The ends of the upper edge of a picture that was not rotated differ by less."""
AS_WIDE: Final = 0.9
HALF: Final = 0.5
"""A linear probe whose beams fan out shows at most twice its width."""
POINT: Final = 0.2
LOW: Final = 0.6
"""A sector is widest below this share of the height; the disc of a rotating probe in its middle."""
ASYMMETRY: Final = 0.12
"""Largest difference between the widths on both sides of a sector's upper edge, as a share of the width."""
_AT: Final = 9
"""Points of the upper edge that are compared with a parabola."""


def outline_of(grey_HW: npt.NDArray[np.uint8]) -> Outline | None:
    """The outline of a cropped image, black outside the insonated area; None if it has none of these forms.

    Sizes are shares of the image's, so that its aspect does not count.
    """
    lit = _means_of_nine(grey_HW) > LIT
    columns = np.flatnonzero(lit.any(0))
    if lit.mean() < LEAST_LIT[0] or len(columns) < LEAST_LIT[1] * lit.shape[1]:
        return None
    top = np.where(lit.any(0), lit.argmax(0), len(lit)) / len(lit)
    left, right = _ends(top)
    edge = _along(top, left, right)
    if abs(edge[-1] - edge[0]) >= TILTED:
        return None
    first, last = int(columns[0]), int(columns[-1])
    across = last + 1 - first
    beside = (left - first) / across, (last - right) / across
    return _form(_sag(edge), (right + 1 - left) / across, beside, lit)


def _form(sag: tuple[float, float], width: float, beside: tuple[float, float], lit: _Mask) -> Outline | None:
    """The form by `_sag`, width of the upper edge, and widths of the area `beside` it, left and right."""
    depth, deviation = sag
    even = abs(beside[0] - beside[1]) <= ASYMMETRY
    if depth >= LEAST_SAG:
        is_arc = even and width >= POINT and deviation <= max(ONE_ROW, UNEVEN * depth)
        return "arc" if is_arc else None
    if depth < -LEAST_SAG or deviation > ONE_ROW:
        return None
    if width >= AS_WIDE or _is_steered(lit):
        return "rectangle"
    if not even:
        return None
    if width < POINT:
        return "point" if _widest(lit) >= LOW else None
    return "narrow" if width < HALF else "trapezoid"


def _means_of_nine(grey_HW: npt.NDArray[np.uint8]) -> _Floats:
    padded = np.pad(grey_HW.astype(np.float64), 1, mode="edge")
    return np.asarray(_windows(padded, (3, 3)).mean((2, 3)))


def _ends(top: _Floats) -> tuple[int, int]:
    """The columns at which the upper edge ends: the outermost topmost ones of its left and of its right half."""
    near = np.flatnonzero(top <= top.min() + NEAR_TOP)
    first, last = int(near[0]), int(near[-1])
    middle = (first + last) // 2
    return first + int(top[first : middle + 1].argmin()), last - int(top[middle : last + 1][::-1].argmin())


def _along(top: _Floats, left: int, right: int) -> _Floats:
    """The upper edge at `_AT` columns; medians of three between the ends, so that a speck does not count."""
    medians = np.median(_windows(np.pad(top, 1, mode="edge"), 3), axis=1)
    inner = medians[np.linspace(left, right, _AT).astype(int)[1:-1]]
    return np.array([top[left], *inner, top[right]])


def _sag(edge: _Floats) -> tuple[float, float]:
    """How much lower than its ends the middle of the edge's best parabola is, and the largest deviation from it."""
    below = edge - np.linspace(edge[0], edge[-1], _AT)
    parabola = 1 - np.linspace(-1, 1, _AT) ** 2
    depth = float(below @ parabola / (parabola @ parabola))
    return depth, float(np.abs(below - depth * parabola).max())


def _is_steered(lit: _Mask) -> bool:
    """Whether the area's rows are as wide as each other and only shifted, as beams steered alike show it."""
    widths = _widths(lit)[lit.any(1)]
    alike = np.abs(widths - np.median(widths)) <= (1 - AS_WIDE) * np.median(widths)
    return bool(alike.mean() >= AS_WIDE)


def _widest(lit: _Mask) -> float:
    """The height of the first row of greatest width, as a share of the image's."""
    return float(_widths(lit).argmax() / len(lit))


def _widths(lit: _Mask) -> npt.NDArray[np.intp]:
    """From the first to the last lit pixel of each row."""
    widths = lit.shape[1] - lit.argmax(1) - lit[:, ::-1].argmax(1)
    return np.where(lit.any(1), widths, 0)
