"""The ultrasound regions that a file states (SequenceOfUltrasoundRegions, PS3.3 section C.8.5.5)."""

from dataclasses import dataclass
from itertools import islice
from typing import Final

from pydicom.dataset import Dataset

from pipeline.dicom.fields import Fields, tag_of
from pipeline.dicom.parsed_file import ParsedFile, element_value
from pipeline.dicom.quiet import quiet

MAX_REGIONS: Final = 64
"""Number of items that are read."""
COLOUR_FLOW: Final = 2
"""Region Data Type of colour flow."""

_MAX_BYTES: Final = 2**18  # of the sequence; a real item takes 300

# C.8.5.5.1.1, Region Spatial Format, and C.8.5.5.1.2, Region Data Type
_TWO_DIMENSIONAL, _M_MODE, _SPECTRAL = 1, 2, 3
_TISSUE: Final = 1
_TRACES: Final = frozenset({5, 6, 7})  # of Doppler: mean, mode, maximum
_CENTIMETRES: Final = 3  # C.8.5.5.1.15

_NUMBERS: Final = (
    *("RegionSpatialFormat", "RegionDataType", "RegionFlags"),
    *("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1"),
    *("PhysicalUnitsXDirection", "PhysicalUnitsYDirection"),
)


@dataclass(frozen=True, slots=True)
class UltrasoundRegion:
    """One item of SequenceOfUltrasoundRegions (0018,6011); None for a field that is absent or unreadable.

    `x0`, `y0`, `x1`, `y1` are RegionLocationMinX0 and so on: columns and rows from 0, the last ones included.
    `delta_x` and `delta_y` are PhysicalDeltaX and Y per pixel, in `units_x` and `units_y` (3 is centimetres).
    `reference_y` is ReferencePixelY0: rows below the region's first one, negative above it.
    """

    spatial_format: int | None
    data_type: int | None
    flags: int | None
    x0: int | None
    y0: int | None
    x1: int | None
    y1: int | None
    units_x: int | None
    units_y: int | None
    delta_x: float | None
    delta_y: float | None
    reference_y: int | None = None

    @property
    def is_colour_flow(self) -> bool:
        """Whether it states a two-dimensional image of colour flow."""
        return self.spatial_format == _TWO_DIMENSIONAL and self.data_type == COLOUR_FLOW

    @property
    def is_m_mode_or_spectrum(self) -> bool:
        """Whether it states an M-mode, a spectrum or a Doppler trace."""
        return self.spatial_format in {_M_MODE, _SPECTRAL} or self.data_type in _TRACES

    @property
    def is_in_centimetres(self) -> bool:
        """Whether both axes are lengths."""
        return self.units_x == self.units_y == _CENTIMETRES

    @property
    def is_tissue(self) -> bool:
        """Whether it is two-dimensional tissue, also if the vendor leaves the format or the type at 0, or out.

        A type of 0 in two dimensions is an image of an unstated kind: flow would show by its colours. A format of 0
        with tissue is an image if both axes are lengths; an M-mode's are length and time.
        """
        if self.spatial_format == _TWO_DIMENSIONAL:
            return self.data_type == _TISSUE or (not self.data_type and self.is_in_centimetres)
        return not self.spatial_format and self.data_type == _TISSUE and self.is_in_centimetres

    def overlaps(self, other: "UltrasoundRegion") -> bool:
        """Whether both share pixels; False if either does not state its position."""
        sides = [(self.x0, self.x1, other.x0, other.x1), (self.y0, self.y1, other.y0, other.y1)]
        for first, last, other_first, other_last in sides:
            if first is None or last is None or other_first is None or other_last is None:
                return False
            if max(first, other_first) > min(last, other_last):
                return False
        return True


def read_regions(parsed: ParsedFile) -> tuple[UltrasoundRegion, ...]:
    """The regions of a file; none if the sequence cannot be parsed."""
    element = parsed.elements.get(tag_of("SequenceOfUltrasoundRegions"))
    if element is None or len(getattr(element, "value", None) or b"") > _MAX_BYTES:
        return ()
    try:
        with quiet():
            items = islice(element_value(element, parsed.encodings), MAX_REGIONS)
            return tuple(_region(item, parsed.encodings) for item in items)
    except Exception:
        return ()


def _region(item: Dataset, encodings: tuple[str, ...]) -> UltrasoundRegion:
    fields = Fields({int(element.tag): element for element in item.elements()}, encodings)
    deltas = [fields.decimals(f"PhysicalDelta{axis}") for axis in "XY"]
    return UltrasoundRegion(
        *(fields.number(keyword) for keyword in _NUMBERS),
        *(values[0] if len(values) == 1 else None for values in deltas),
        *(fields.number(keyword) for keyword in ("ReferencePixelY0",)),
    )
