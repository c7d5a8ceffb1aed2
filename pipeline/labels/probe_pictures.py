"""The shape of a probe by its pictures: their outlines, and where their headers have the probe's face."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.dicom.face import Face
from pipeline.labels.outline import Outline, outline_of
from pipeline.recipe.labels import Shape

PICTURES: Final = 9
"""Images of a probe that are looked at, each of another patient."""
LEAST_SHARE: Final = 0.2
"""Share of the images that must show the suggested shape; no other shape may have half as many."""


class Picture(NamedTuple):
    """The outline of an image, and the position of the face in its header; None if there is none."""

    outline: Outline | None
    face: Face | None = None


@dataclass(frozen=True)
class Suggestion:
    """A shape, None if the reasons do not suggest one, and what it rests on."""

    shape: Shape | None
    why: str


_SHAPES: Final[Mapping[Picture, Shape]] = {
    **{Picture("arc", face): "curvilinear" for face in (None, "above", "edge", "below")},
    **{Picture("point", face): "phased" for face in (None, "above", "edge", "below")},
    # A straight upper edge that is not the face is where a sector was cut off. A rectangle is then a part of some
    # larger picture, which can be of any probe.
    **{Picture(outline, face): "curvilinear" for outline in ("narrow", "trapezoid") for face in ("above", "below")},
    Picture("narrow"): "curvilinear",
    Picture("rectangle"): "linear",
    Picture("rectangle", "edge"): "linear",
    Picture("trapezoid", "edge"): "linear",
    Picture(None, "below"): "curvilinear",
}
"""What a picture suggests. A trapezoid without a position is a linear probe's fan as often as a cut-off sector."""

_OUTLINES: Final[Mapping[Outline | None, str]] = {
    "arc": "an arc as upper edge",
    "narrow": "an upper edge less than half as wide as the picture",
    "point": "a sector's point",
    "rectangle": "a rectangle",
    "trapezoid": "a narrower straight upper edge",
    None: "no clear outline",
}
_FACES: Final[Mapping[Face, str]] = {
    "above": "the face above the picture",
    "edge": "the face at the upper edge",
    "below": "the face below the upper edge",
}


def picture_of(grey_HW: npt.NDArray[np.uint8], cropped_by: str, face: Face | None) -> Picture:
    """What a cropped image shows; `cropped_by` is that of IMAGES.

    A rectangle that is the whole frame is no outline: somebody may have cut it out of the middle of any picture.
    """
    outline = outline_of(grey_HW)
    return Picture(None if outline == "rectangle" and cropped_by == "whole" else outline, face)


def shape_shown(picture: Picture) -> Shape | None:
    """The shape that one picture suggests, None if it suggests none."""
    return _SHAPES.get(picture)


def suggestion_of(pictures: Sequence[Picture]) -> Suggestion | None:
    """The shape that most of the `pictures` of a probe show, with counts as its reason; None without pictures.

    Its shape is None if fewer than `LEAST_SHARE` show it, or if another shape has half as many.
    """
    if not pictures:
        return None
    ranked = Counter(shape for picture in pictures if (shape := shape_shown(picture))).most_common(2)
    sure = ranked and ranked[0][1] >= LEAST_SHARE * len(pictures)
    alone = len(ranked) < 2 or ranked[0][1] > 2 * ranked[1][1]
    return Suggestion(ranked[0][0] if sure and alone else None, _reason(pictures))


def _reason(pictures: Sequence[Picture]) -> str:
    outlines = Counter(picture.outline for picture in pictures)
    faces = Counter(picture.face for picture in pictures if picture.face)
    shown = [f"{count} with {_OUTLINES[outline]}" for outline, count in outlines.most_common()]
    stated = [f"{count} with {_FACES[face]} by the header" for face, count in faces.most_common()]
    return f"of {len(pictures)} image{'s' * (len(pictures) > 1)}, {', '.join([*shown, *stated])}"
