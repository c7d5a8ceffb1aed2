"""`python -m pipeline.tasks.thyroid_set FOLDER --out FOLDER`: convert the public thyroid set to a manifest with masks.

The set is TDID, also called DDTI (Pedraza et al. 2015). A case is one patient: `12.xml` with its images `12_1.jpg`,
`12_2.jpg` … For each outlined image the XML has a `mark` with the image's number in `image` and its regions in `svg`:
`[{"points": [{"x": 250, "y": 72}, …], "regionType": "freehand"}, …]`, in pixels from the top left.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import numpy.typing as npt
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field, TypeAdapter

from pipeline.command import command
from pipeline.csv_files import csv_text
from pipeline.dicom.image_files import decode_image_file
from pipeline.dicom.rejections import Rejected
from pipeline.errors import UserError
from pipeline.files import atomic_replace, write_text

MANIFEST = "thyroid.csv"
MASKS = "masks"

_MAX_XML = 2**22  # bytes; the set's own have 30 thousand
_MIN_CORNERS = 3
_ENDINGS = (".jpg", ".jpeg", ".JPG", ".JPEG")

_Points = list[tuple[float, float]]


class _Point(BaseModel):
    x: float = Field(allow_inf_nan=False)
    y: float = Field(allow_inf_nan=False)


class _Region(BaseModel):
    """A region as the set's own tool stores it; its other fields are ignored."""

    points: list[_Point]


_REGIONS = TypeAdapter(list[_Region])


class _Skipped(Exception):  # noqa: N818 - an outcome of reading, not an error of the program
    """Why a case or one of its images is skipped."""


@dataclass(frozen=True)
class Converted:
    """The result: images with a mask, their cases, images without an outline, and one line per case with problems."""

    images: int
    cases: int
    without_outline: int
    problems: tuple[str, ...]


def convert(source: Path, out: Path) -> Converted:
    """Write `out`/thyroid.csv (image, mask, patient) and a mask per outlined image of the set in the folder `source`.

    A mask is a PNG of its image's size: 1 in the union of the image's regions, 0 elsewhere. Images are not copied.
    Cases are in the order of their numbers; the manifest has no split, so that readers split by patient. Unreadable
    cases and outlines are skipped and reported. Raises `UserError` if `source` has no case, or no readable one.
    """
    paths = sorted((path for path in source.glob("*.xml") if path.stem.isdecimal()), key=lambda path: int(path.stem))
    if not paths:
        raise UserError(f"{source} has no case of the thyroid set: no file such as 1.xml.")
    rows: list[dict[str, str]] = []
    problems: list[str] = []
    unmarked = 0
    for path in paths:
        case = _Case(path)
        try:
            rows += case.write(out)
            unmarked += case.without_outline
        except _Skipped as why:
            problems.append(f"Case {path.stem} is skipped: {why}.")
            continue
        if case.problems:
            problems.append(f"Case {path.stem}: {'; '.join(case.problems)}.")
    if not rows:
        first = f"the first problem: {problems[0]}" if problems else "no image is outlined."
        raise UserError(f"{source} has no readable outlined image; {first}")
    write_text(out / MANIFEST, csv_text(list(rows[0]), (list(row.values()) for row in rows)))
    return Converted(len(rows), len({row["patient"] for row in rows}), unmarked, tuple(problems))


class _Case:
    """The conversion of one case; `problems` are the skipped images."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[str] = []
        self.without_outline = 0

    def write(self, out: Path) -> list[dict[str, str]]:
        """Write the masks below `out`, and return the manifest's rows. Raises `_Skipped` if the XML is unreadable."""
        rows, unmarked = [], self._image_numbers()
        for number, marks in sorted(self._marks().items()):
            try:
                outlines = [outline for drawn in marks for outline in _outlines(drawn)]
                if outlines:
                    unmarked.discard(number)
                    rows.append(self._row(out, number, outlines))
            except _Skipped as why:
                unmarked.discard(number)
                self.problems.append(f"image {number} is skipped, since {why}")
        self.without_outline = len(unmarked)
        return rows

    def _image_numbers(self) -> set[int]:
        """The numbers of the images beside the XML."""
        numbers = (path.stem.rpartition("_")[2] for path in self._path.parent.glob(f"{self._path.stem}_*"))
        return {int(number) for number in numbers if number.isdecimal()}

    def _marks(self) -> dict[int, list[str]]:
        """The JSON of the marks by their image's number; marks without any are ignored."""
        marks: dict[int, list[str]] = {}
        for mark in _root(self._path).iter("mark"):
            number, drawn = ((mark.findtext(name) or "").strip() for name in ("image", "svg"))
            if not re.fullmatch(r"[0-9]{1,6}", number):
                raise _Skipped("a mark has no image number")
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
        raise _Skipped(f"there is no {self._path.stem}_{number}.jpg")


def _root(path: Path) -> Element:
    """The XML's root. Document types are refused, since entities can grow without bounds."""
    try:
        if path.stat().st_size > _MAX_XML:
            raise _Skipped(f"its XML has more than {_MAX_XML >> 20} MiB")
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except DefusedXmlException:
        raise _Skipped("its XML declares a document type") from None
    except (ParseError, LookupError, ValueError):  # an unknown encoding is a LookupError
        raise _Skipped("its XML cannot be parsed") from None
    except OSError as error:
        raise _Skipped(f"its XML cannot be opened ({error.strerror})") from None
    return root


def _outlines(drawn: str) -> Iterator[_Points]:
    """The outlines in a mark's JSON, without empty regions."""
    try:
        regions = _REGIONS.validate_python(json.loads(drawn))
    except (ValueError, RecursionError):
        raise _Skipped("its regions are not valid JSON") from None
    for region in regions:
        if region.points:
            yield [(point.x, point.y) for point in region.points]


def _shape(image: Path) -> tuple[int, int]:
    try:
        height, width = decode_image_file(image).shape
    except Rejected as rejected:
        raise _Skipped(f"{image.name} cannot be decoded") from rejected
    except OSError as error:
        raise _Skipped(f"{image.name} cannot be opened ({error.strerror})") from None
    return height, width


def _filled(outlines: Sequence[_Points], shape_HW: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """1 within any of the outlines, their edges included, 0 elsewhere; outlines are clipped at the image's edge."""
    height, width = shape_HW
    canvas = Image.new("L", (width, height))
    for points in outlines:
        if len(points) < _MIN_CORNERS:
            raise _Skipped(f"a region has {len(points)} points")
        # A freehand line may leave the image, but not by its whole size: then it belongs to another one.
        if any(not (-width <= x <= 2 * width and -height <= y <= 2 * height) for x, y in points):
            raise _Skipped("a region is far outside of it")
        ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
    mask = np.asarray(canvas)
    if not mask.any():
        raise _Skipped("no region is within it")
    return mask


@command
def main(arguments: list[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tasks.thyroid_set",
        description="Make a manifest of the public thyroid set (TDID, DDTI): numbered JPEGs with outlines in XML.",
    )
    parser.add_argument("source", type=Path, help="the folder with 1.xml, 1_1.jpg and so on")
    parser.add_argument("--out", type=Path, required=True, help=f"the folder to write {MANIFEST} and {MASKS}/ to")
    options = parser.parse_args(arguments)
    converted = convert(options.source, options.out)
    for problem in converted.problems:
        print(problem, file=sys.stderr)
    print(
        f"{converted.images} images of {converted.cases} cases in {options.out / MANIFEST}; "
        f"{converted.without_outline} images without an outline are skipped."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
