"""Where the ultrasound regions of a file have the probe's face."""

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:  # it imports pydicom, which loading Dagster's definitions must not
    from pipeline.dicom.regions import UltrasoundRegion

Face = Literal["above", "edge", "below"]
"""Where the middle of the probe's face is: above the upper edge of the tissue region, at it, or below it."""
AT_EDGE: Final = 0.03
"""Largest distance from the edge, as a share of the region's height. Curvilinear faces reach 0.05 to 0.08 into the
region (Philips, Aloka, the phantom), those of phased arrays up to 0.01."""


def face_position(regions: "tuple[UltrasoundRegion, ...]") -> Face | None:
    """Where the first tissue region that states a reference pixel has the face; None if there is none.

    The reference pixel is the origin of physical coordinates (C.8.5.5), for which makers take the face's middle.
    """
    for region in regions:
        if region.is_tissue and region.reference_y is not None and region.y0 is not None and region.y1 is not None:
            below = region.reference_y / max(1, region.y1 + 1 - region.y0)
            return "edge" if abs(below) <= AT_EDGE else "below" if below > 0 else "above"
    return None
