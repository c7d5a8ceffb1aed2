"""`python -m pipeline.tasks.thyroid_set FOLDER --out FOLDER`: the public thyroid set as a manifest with masks.

Belongs here: the format of that set (TDID, also called DDTI; Pedraza et al. 2015) and its conversion. Not here: reading
manifests.

A case is one patient: `12.xml` with its pictures `12_1.jpg`, `12_2.jpg` … Of each picture that was outlined the XML
holds a `mark` with the picture's number in `image` and its regions in `svg`, as JSON:
`[{"points": [{"x": 250, "y": 72}, …], "regionType": "freehand"}, …]`, in pixels from the top left.
"""

import argparse
import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import numpy.typing as npt
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field, TypeAdapter

from pipeline.command import command
from pipeline.dicom.image_files import decode_image_file
from pipeline.dicom.rejections import Rejected
from pipeline.errors import UserError
from pipeline.files import atomic_replace, write_text

MANIFEST = "thyroid.csv"
MASKS = "masks"

_LARGEST_XML = 2**22  # bytes; the set's own take 30 thousand
_CORNERS = 3  # a region with fewer points has no area
_ENDINGS = (".jpg", ".jpeg", ".JPG", ".JPEG")

_Points = list[tuple[float, float]]


class _Point(BaseModel):
    x: float = Field(allow_inf_nan=False)
    y: float = Field(allow_inf_nan=False)


class _Region(BaseModel):
    """A region as the set's own tool drew it; what else it says of it is not read."""

    points: list[_Point]


_REGIONS = TypeAdapter(list[_Region])


class _Bad(Exception):  # noqa: N818 - an outcome of reading, not an error of the program
    """Why a case or one of its pictures is left out."""


@dataclass(frozen=True)
class Converted:
    """What became of the set: pictures with a mask, their cases, and a sentence for each case that lost something."""

    images: int
    cases: int
    without_outline: int
    """Pictures of good cases that nobody has outlined: they are not in the manifest."""
    problems: tuple[str, ...]


def convert(source: Path, out: Path) -> Converted:
    """Write `out`/thyroid.csv (image, mask, patient) and a mask per outlined picture of the set in the folder `source`.

    A mask is a PNG of its picture's size: 1 in the union of the picture's regions, 0 elsewhere. Images stay where they
    are. Cases are in the order of their numbers; the manifest has no split, so that whoever reads it splits by patient.
    A case that cannot be read, and a picture whose outline cannot, is left out and said. Raises `UserError` where
    `source` holds no case, or no good one.
    """
    paths = sorted((path for path in source.glob("*.xml") if path.stem.isdecimal()), key=lambda path: int(path.stem))
    if not paths:
        raise UserError(f"{source} holds no case of the thyroid set: no file such as 1.xml.")
    rows: list[dict[str, str]] = []
    problems: list[str] = []
    unmarked = 0
    for path in paths:
        case = _Case(path)
        try:
            rows += case.write(out)
            unmarked += case.without_outline
        except _Bad as why:
            problems.append(f"Case {path.stem} is left out: {why}.")
            continue
        if case.problems:
            problems.append(f"Case {path.stem}: {'; '.join(case.problems)}.")
    if not rows:
        first = f"the first problem: {problems[0]}" if problems else "nobody has outlined any."
        raise UserError(f"{source} holds no outlined picture that can be read; {first}")
    write_text(out / MANIFEST, _as_csv(rows))
    return Converted(len(rows), len({row["patient"] for row in rows}), unmarked, tuple(problems))


class _Case:
    """One case being converted; `problems` name the pictures that were left out of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[str] = []
        self.without_outline = 0

    def write(self, out: Path) -> list[dict[str, str]]:
        """Write the masks below `out`; returns the manifest's rows. Raises `_Bad` where nothing can be read."""
        rows, left_out = [], self._pictures()
        for number, marks in sorted(self._marks().items()):
            try:
                outlines = [outline for drawn in marks for outline in _outlines(drawn)]
                if outlines:
                    left_out.discard(number)
                    rows.append(self._row(out, number, outlines))
            except _Bad as why:
                left_out.discard(number)
                self.problems.append(f"picture {number} is left out, since {why}")
        self.without_outline = len(left_out)
        return rows

    def _pictures(self) -> set[int]:
        """The numbers of the pictures that lie beside the XML."""
        numbers = (path.stem.rpartition("_")[2] for path in self._path.parent.glob(f"{self._path.stem}_*"))
        return {int(number) for number in numbers if number.isdecimal()}

    def _marks(self) -> dict[int, list[str]]:
        """The JSON of the marks by their picture's number; a mark without any is of a picture nobody has outlined."""
        marks: dict[int, list[str]] = {}
        for mark in _root(self._path).iter("mark"):
            number, drawn = ((mark.findtext(name) or "").strip() for name in ("image", "svg"))
            if not re.fullmatch(r"[0-9]{1,6}", number):
                raise _Bad("a mark does not say by a number which picture it is of")
            if drawn:
                marks.setdefault(int(number), []).append(drawn)
        return marks

    def _row(self, out: Path, number: int, outlines: Sequence[_Points]) -> dict[str, str]:
        image = self._image(number)
        mask = _filled(outlines, _shape(image))
        name = f"{MASKS}/{self._path.stem}_{number}.png"
        with atomic_replace(out / name) as temporary:
            Image.fromarray(mask).save(temporary, format="PNG")
        return {"image": os.path.relpath(image, out), "mask": name, "patient": f"case-{self._path.stem}"}

    def _image(self, number: int) -> Path:
        for ending in _ENDINGS:
            path = self._path.with_name(f"{self._path.stem}_{number}{ending}")
            if path.is_file():
                return path
        raise _Bad(f"there is no {self._path.stem}_{number}.jpg")


def _root(path: Path) -> Element:
    """The XML's root. A document type is refused with whatever it declares: entities can grow without bounds."""
    try:
        if path.stat().st_size > _LARGEST_XML:
            raise _Bad(f"its XML has more than {_LARGEST_XML >> 20} MiB")
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except DefusedXmlException:
        raise _Bad("its XML declares a document type, which is not read") from None
    except (ParseError, LookupError, ValueError):  # an unknown encoding is a LookupError
        raise _Bad("its XML cannot be parsed") from None
    except OSError as error:
        raise _Bad(f"its XML cannot be opened ({error.strerror})") from None
    return root


def _outlines(drawn: str) -> Iterator[_Points]:
    """The outlines in a mark's JSON; regions in which no point was set are none."""
    try:
        regions = _REGIONS.validate_python(json.loads(drawn))
    except (ValueError, RecursionError):
        raise _Bad("its regions are not the JSON that they should be, or break off") from None
    for region in regions:
        if region.points:
            yield [(point.x, point.y) for point in region.points]


def _shape(image: Path) -> tuple[int, int]:
    try:
        height, width = decode_image_file(image).shape
    except Rejected as rejected:
        raise _Bad(f"{image.name} cannot be decoded") from rejected
    except OSError as error:
        raise _Bad(f"{image.name} cannot be opened ({error.strerror})") from None
    return height, width


def _filled(outlines: Sequence[_Points], shape_HW: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """1 within any of the outlines, their edges included; what lies beyond the picture's edge is cut off."""
    height, width = shape_HW
    canvas = Image.new("L", (width, height))
    for points in outlines:
        if len(points) < _CORNERS:
            raise _Bad(f"a region has {len(points)} points")
        # A freehand line may leave the picture, but not by its whole size: then it belongs to another one.
        if any(not (-width <= x <= 2 * width and -height <= y <= 2 * height) for x, y in points):
            raise _Bad("a region lies far outside of it")
        ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
    mask = np.asarray(canvas)
    if not mask.any():
        raise _Bad("no region lies within it")
    return mask


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@command
def main(arguments: list[str]) -> None:
    """Run the command; returns the exit code, 1 with a sentence where nothing can be converted."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tasks.thyroid_set",
        description="Make a manifest of the public thyroid set (TDID, DDTI): numbered JPEGs with outlines in XML.",
    )
    parser.add_argument("source", type=Path, help="the folder that holds 1.xml, 1_1.jpg and so on")
    parser.add_argument("--out", type=Path, required=True, help=f"the folder to write {MANIFEST} and {MASKS}/ to")
    asked = parser.parse_args(arguments)
    _tell(convert(asked.source, asked.out), asked.out)


def _tell(converted: Converted, out: Path) -> None:
    for problem in converted.problems:
        print(problem, file=sys.stderr)
    print(
        f"{converted.images} pictures of {converted.cases} cases in {out / MANIFEST}; "
        f"{converted.without_outline} pictures without an outline are left out."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
