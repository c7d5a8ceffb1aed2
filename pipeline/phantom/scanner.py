"""Probes, the scan conversion of their beams, the grey map, and the screen around the image."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from pipeline.phantom.acoustics import Beams, Tuning, echoes
from pipeline.phantom.anatomy import Bits, Bytes, Floats, Indices, Points, Scene, Tissue, class_map, label_map

_Kind = TypeVar("_Kind", bound=np.generic)

SAMPLES, BEAMS = 256, 176  # of every acquisition
STEERED = 0.3  # radians from the middle: the outermost beam of a linear probe in a widening picture
ENLARGED_FROM = 0.2  # upper edge of an enlarged part of a sector, as a share of the depth
LEVELS = 4096  # of echoes before the grey map
SPREAD_DB = (7.0, 12.0)  # standard deviation of a picture's echoes once gain is set
MOST_SHADE_DB = 26.0  # between lit and unlit parts, per half a picture


class Format(Enum):
    """The shape of the tissue region on the screen, which the operator chooses for any probe.

    `BOX` has lit corners: a linear probe's own shape, or a part of a sector, enlarged. `WIDENING` is narrow above
    and flat below: a linear probe's beams fanned out, or a sector cut off by the screen. `FAN` has an arc below: a
    curvilinear probe's own shape, or a linear probe's virtual convex one.
    """

    BOX = "box"
    WIDENING = "widening"
    FAN = "fan"


@dataclass(frozen=True)
class Probe:
    """A probe: `face_mm` wide; `radius_mm` of its curve, 0 for a linear one; names as in DICOM tags."""

    model: str
    kind: str
    face_mm: float
    radius_mm: float
    depths_mm: tuple[int, ...]


CURVILINEAR = Probe("SC6-1", "CURVED LINEAR", 62.0, 60.0, (110, 130, 150, 170))
LINEAR_LOW = Probe("SL10-2", "LINEAR", 38.0, 0.0, (40, 50, 60))
LINEAR_HIGH = Probe("SL15-4", "LINEAR", 50.0, 0.0, (30, 35, 40, 45))


@dataclass(frozen=True)
class Screen:
    """A scanner's screen: its size in pixels, the box that holds the image (top, left, height, width), its marks."""

    height: int
    width: int
    box: tuple[int, int, int, int]
    title: str
    bar_left: bool
    ruler_right: bool


@dataclass(frozen=True)
class Scanner:
    """A scanner's look: its screen and the ranges its tuning is drawn from (low, high).

    `brightness` and `contrast` are those of its grey map, see `_map_to_grey`. Its filter removes the share `speckle` of
    speckle, keeps echoes that differ by `edge_db` from their surroundings, and sharpens those by `crispness`.
    """

    manufacturer: str
    model: str
    screen: Screen
    axial: tuple[float, float]
    lateral: tuple[float, float]
    smooth: tuple[float, float]
    noise_db: tuple[float, float]
    haze_db: tuple[float, float]
    brightness: tuple[float, float]
    contrast: tuple[float, float]
    speckle: float
    edge_db: float
    crispness: float

    def random_tuning(self, rng: Generator) -> Tuning:
        """One examination's settings."""
        return Tuning(
            axial=rng.uniform(*self.axial),
            lateral=rng.uniform(*self.lateral),
            spread=rng.uniform(1.4, 2.0),
            focus=rng.uniform(0.3, 0.65),
            smooth=rng.uniform(*self.smooth),
            fading_db=rng.uniform(0, 14),
            noise_db=rng.uniform(*self.noise_db),
            haze_db=rng.uniform(*self.haze_db),
        )


AIXPLORER_LIKE = Scanner(
    "Phantom Imaging",
    "Speckle One",
    Screen(288, 384, (26, 34, 254, 316), "SPECKLE ONE", bar_left=True, ruler_right=True),
    axial=(0.5, 0.7),
    lateral=(0.55, 0.8),
    smooth=(0.5, 0.8),
    noise_db=(-36, -26),
    haze_db=(20, 30),
    brightness=(38, 72),
    contrast=(0.62, 1.02),
    speckle=0.68,
    edge_db=8.0,
    crispness=0.0,
)
LOGIQ_LIKE = Scanner(
    "Phantom Imaging",
    "Grain Nine",
    Screen(288, 384, (22, 20, 262, 320), "GRAIN 9", bar_left=False, ruler_right=False),
    axial=(0.55, 0.75),
    lateral=(0.65, 0.9),
    smooth=(0.6, 1.0),
    noise_db=(-34, -22),
    haze_db=(16, 26),
    brightness=(34, 62),
    contrast=(0.75, 1.15),
    speckle=0.55,
    edge_db=7.0,
    crispness=0.5,
)
THIRD = Scanner(
    "Phantom Imaging",
    "Third",
    Screen(272, 400, (22, 34, 246, 332), "THIRD", bar_left=True, ruler_right=False),
    axial=(0.7, 1.0),
    lateral=(0.8, 1.2),
    smooth=(0.3, 0.7),
    noise_db=(-32, -18),
    haze_db=(15, 24),
    brightness=(45, 85),
    contrast=(0.55, 0.9),
    speckle=0.35,
    edge_db=9.0,
    crispness=0.2,
)


@dataclass(frozen=True)
class View:
    """One picture of the scanner's screen: `grey`, and the position of the tissue.

    `inside` marks the pixels that the beams reach; `box` is (top, left, height, width) of their region, `pixel_mm` the
    side of a pixel, `origin` (row, column) the pixel at the middle of the probe's face, which is above the box if only
    a part of the sector is shown. `scene` and `pixels` (of the box) are what it shows.
    """

    grey: Bytes
    inside: Bits
    box: tuple[int, int, int, int]
    pixel_mm: float
    origin: tuple[int, int]
    scene: Scene
    pixels: Points

    @cached_property
    def labels(self) -> Bytes:
        """The tissue at every pixel of the screen, as values of `Tissue`; 0 outside the box."""
        return _on_screen(label_map(self.scene, self.pixels), self.box, self.grey.shape)

    def mask(self, classes: dict[Tissue, int]) -> Bytes:
        """Class values of the screen's pixels; 0 outside the tissue region."""
        return np.asarray(class_map(self.labels, classes) * self.inside, np.uint8)


@dataclass(frozen=True, eq=False)
class _Conversion:
    """Scan conversion of one probe at one depth: beams' points, screen's points, and the interpolation between them."""

    beams: Beams
    pixels: Points
    inside: Bits
    at: npt.NDArray[np.intp]
    upper_left: Indices
    down: Floats
    across: Floats
    top_left: tuple[int, int]
    origin: tuple[int, int]
    pixel_mm: float

    def read(self, image: Floats) -> Floats:
        """The beams' image at the pixels inside (bilinear), one after the other."""
        flat, at = image.ravel(), self.upper_left
        upper, lower = flat[at], flat[BEAMS:][at]
        upper += (flat[1:][at] - upper) * self.across
        lower += (flat[BEAMS + 1 :][at] - lower) * self.across
        lower -= upper
        lower *= self.down
        upper += lower
        return upper


@dataclass(frozen=True)
class Setup:
    """Scanner, settings, probe, depth (mm) and format of an image."""

    scanner: Scanner
    tuning: Tuning
    probe: Probe
    depth_mm: float
    format: Format | None = None
    """None: random, with the same odds for every probe."""


def picture(scene: Scene, setup: Setup, rng: Generator, turn: int = 0) -> View:
    """Scan `scene` and draw the screen; `turn` moves the probe by that number of beams."""
    screen = setup.scanner.screen
    drawn = tuple(Format)[int(rng.integers(len(Format)))]
    way = _conversion(setup.probe, setup.depth_mm, screen.box[2], screen.box[3], setup.format or drawn)
    beams, pixels = way.beams, way.pixels
    if turn:
        moved = _slide_points(beams.points, setup.probe, turn)
        beams, pixels = Beams(moved, beams.depth, beams.sample_mm), _slide_points(pixels, setup.probe, turn)
    decibels = echoes(label_map(scene, beams.points), scene, setup.tuning, rng, beams, turn=turn)
    shown = way.read(_apply_uneven_gain(_reduce_speckle(decibels, setup.scanner), rng))
    height, width = way.inside.shape
    box = (screen.box[0] + way.top_left[0], screen.box[1] + way.top_left[1], height, width)
    origin = (screen.box[0] + way.origin[0], screen.box[1] + way.origin[1])
    grey = _marks(setup.scanner, setup.probe, setup.depth_mm, way.pixel_mm, origin).copy()
    region = np.zeros(way.inside.shape, np.uint8)
    region.ravel()[way.at] = _map_to_grey(shown, setup.scanner, rng)
    grey[box[0] : box[0] + height, box[1] : box[1] + width] = region
    return View(grey, _on_screen(way.inside, box, grey.shape), box, way.pixel_mm, origin, scene, pixels)


def _on_screen(image: npt.NDArray[_Kind], box: tuple[int, int, int, int], shape: tuple[int, ...]) -> npt.NDArray[_Kind]:
    """The image in its box on an otherwise empty screen."""
    full = np.zeros(shape, image.dtype)
    full[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = image
    return full


def _reduce_speckle(decibels: Floats, scanner: Scanner) -> Floats:
    """Speckle reduced as by the scanner: small deviations from the surroundings more than large ones."""
    away = decibels - _around(decibels)
    spared = np.maximum(away, np.float32(-0.6) * away)  # the holes in speckle are deep, and no edges
    squared = spared * spared
    edges = squared / (squared + np.float32(scanner.edge_db**2))
    gain = edges * np.float32(scanner.crispness + scanner.speckle) - np.float32(scanner.speckle)
    return np.asarray(decibels + away * gain, np.float32)


def _around(values: Floats) -> Floats:
    """The local mean: that of 16 x 16 blocks, interpolated."""
    rows, columns = values.shape
    blocks = Image.fromarray(values).resize((columns // 16, rows // 16), Image.Resampling.BOX)
    return np.asarray(blocks.resize((columns, rows), Image.Resampling.BILINEAR))


def _apply_uneven_gain(decibels: Floats, rng: Generator) -> Floats:
    """Echoes with uneven gain, as an operator sets it; the more uneven, the more alike all echoes are.

    Otherwise a picture of liver alone would show its speckle from black to white, since every picture's grey levels
    span the same range (`_map_to_grey`).
    """
    rows, beams = decibels.shape
    depth = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    beam = np.linspace(-1, 1, beams, dtype=np.float32)[None]
    low, high = rng.uniform(-0.6, 0.9, 2)
    shade = -np.clip(depth - low, 0, 9) * rng.uniform(0.3, 1.0)
    shade = shade - np.clip(np.abs(beam + rng.normal(0, 0.3)) - high, 0, 9) * rng.uniform(0.0, 1.2)
    shade -= shade.mean()
    # Every third sample of every third beam is enough.
    few, few_shade = decibels[::3, ::3], shade[::3, ::3]
    spread, own, both = rng.uniform(*SPREAD_DB), few.var(), (few_shade * (few - few.mean())).mean()
    power = float((few_shade * few_shade).mean()) + 1e-6
    wanted = float(np.sqrt(max(both * both - power * (own - spread * spread), 0)) - both) / power
    return np.asarray(decibels + shade * np.float32(np.clip(wanted, 0, MOST_SHADE_DB)), np.float32)


def _map_to_grey(decibels: Floats, scanner: Scanner, rng: Generator) -> Bytes:
    """Grey levels: automatic gain and grey map transform the picture's histogram to a random curve.

    The curve has the quantiles of a Weibull distribution, like real pictures; it is independent of the picture's
    content, so that grey levels alone reveal nothing. The map is monotone.
    """
    bright, steep = np.exp(rng.uniform(*np.log(scanner.brightness))), rng.uniform(*scanner.contrast)
    least, most = float(decibels.min()), float(decibels.max())
    level = ((decibels - least) * np.float32((LEVELS - 1) / (most - least + 1e-6))).astype(np.uint16)
    count = np.bincount(level, minlength=LEVELS)
    share = (np.cumsum(count) - 0.5 * count) / level.size
    curve = bright * (-np.log1p(-np.clip(share, 0, 1 - 1e-7))) ** steep
    return np.asarray(np.clip(curve + 0.5, 0, 255), np.uint8)[level]


def _half_angle(probe: Probe) -> float:
    return probe.face_mm / (2 * probe.radius_mm)


def _slide_points(points: Points, probe: Probe, turn: int) -> Points:
    """The points after the probe was moved by `turn` beams along its face."""
    if not probe.radius_mm:
        x, z = points.x + np.float32(turn * probe.face_mm / BEAMS), points.z
    else:
        angle = 2 * _half_angle(probe) * turn / BEAMS
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        down = points.z + np.float32(probe.radius_mm)
        x, z = points.x * cosine + down * sine, down * cosine - points.x * sine - np.float32(probe.radius_mm)
    return Points(x, z, points.radius_mm, points.step_mm)


@dataclass(frozen=True)
class _Fan:
    """The paths of a probe's beams: parallel (`apex_mm` 0), or from an apex that far behind the middle of the face.

    The face is an arc about the apex (`curved`), or straight. `half` of its width is in mm for parallel beams,
    otherwise an angle.
    """

    apex_mm: float
    curved: bool
    half: float

    def polar(self, x: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Depth along the beam (mm) and lateral position on the face (-0.5 to 0.5) of points in mm."""
        if not self.apex_mm:
            return z, x / np.float32(2 * self.half)
        down = z + np.float32(self.apex_mm)
        angle = np.arctan2(x, down)
        return np.hypot(x, down) - self._start(angle), angle / np.float32(2 * self.half)

    def points(self, depth: Floats, lateral: Floats) -> tuple[Floats, Floats]:
        """Points in mm, x and z, at a depth along the beam (mm) and a lateral position on the face (-0.5 to 0.5)."""
        if not self.apex_mm:
            return lateral * np.float32(2 * self.half), depth
        angle = lateral * np.float32(2 * self.half)
        reach = depth + self._start(angle)
        return reach * np.sin(angle), reach * np.cos(angle) - np.float32(self.apex_mm)

    def point(self, depth: float, lateral: float) -> tuple[float, float]:
        """`points` of one point."""
        x, z = self.points(np.full(1, depth, np.float32), np.full(1, lateral, np.float32))
        return float(x[0]), float(z[0])

    def _start(self, angle: Floats) -> Floats:
        """How far the face is from the apex, mm."""
        radius = np.float32(self.apex_mm)
        return np.full_like(angle, radius) if self.curved else np.asarray(radius / np.cos(angle), np.float32)


def _fan(probe: Probe, shape: Format) -> _Fan:
    """The beams of a probe; those of a linear one fan out for a widening picture."""
    if probe.radius_mm:
        return _Fan(probe.radius_mm, curved=True, half=_half_angle(probe))
    if shape is Format.BOX:
        return _Fan(0.0, curved=False, half=probe.face_mm / 2)
    return _Fan(float(probe.face_mm / 2 / np.tan(STEERED)), curved=False, half=STEERED)


def _window(fan: _Fan, depth_mm: float, shape: Format) -> tuple[float, float, float]:
    """The part of the beams' plane in the picture: its upper and lower edge and half its width, mm."""
    (_, top), (wide, low) = fan.point(0.0, 0.5), fan.point(depth_mm, 0.5)
    if shape is Format.FAN:
        return top, depth_mm, wide
    if shape is Format.WIDENING:
        return top, low, 0.85 * wide
    if not fan.apex_mm:
        return 0.0, depth_mm, wide
    top = ENLARGED_FROM * depth_mm
    half = float((top + fan.apex_mm) * np.tan(fan.half))
    return top, float(np.sqrt((fan.apex_mm + depth_mm) ** 2 - half**2)) - fan.apex_mm, half


@lru_cache(maxsize=64)
def _conversion(probe: Probe, depth_mm: float, height: int, width: int, shape: Format) -> _Conversion:
    """The scan conversion that fits the visible part into height x width pixels."""
    fan = _fan(probe, shape)
    top, bottom, half = _window(fan, depth_mm, shape)
    pixel_mm = max(2 * half / width, (bottom - top) / height)
    rows, columns = int((bottom - top) / pixel_mm), int(2 * half / pixel_mm)
    down = (np.arange(rows, dtype=np.float32) + 0.5) * np.float32(pixel_mm) + np.float32(top)
    across = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) * np.float32(pixel_mm)
    x, z = (np.asarray(grid, np.float32) for grid in np.meshgrid(across, down))
    depth, lateral = fan.polar(x, z)
    sample, line = depth / np.float32(depth_mm) * SAMPLES - 0.5, (lateral + np.float32(0.5)) * BEAMS - 0.5
    inside = (sample >= 0) & (sample < SAMPLES - 1) & (line >= 0) & (line < BEAMS - 1)
    row, column = np.floor(sample[inside]).astype(np.int32), np.floor(line[inside]).astype(np.int32)
    corner = (height - rows) // 2 if shape is Format.BOX else 0, (width - columns) // 2
    return _Conversion(
        beams=_beams(probe, fan, depth_mm),
        pixels=Points(x, z, probe.radius_mm, depth_mm / SAMPLES),
        inside=inside,
        at=np.flatnonzero(inside),
        upper_left=row * np.int32(BEAMS) + column,
        down=np.asarray(sample[inside] - row, np.float32),
        across=np.asarray(line[inside] - column, np.float32),
        top_left=corner,
        origin=(corner[0] - round(top / pixel_mm), corner[1] + columns // 2),
        pixel_mm=pixel_mm,
    )


def _beams(probe: Probe, fan: _Fan, depth_mm: float) -> Beams:
    """Every sample of every beam, samples x beams."""
    along = (np.arange(SAMPLES, dtype=np.float32) + np.float32(0.5)) * np.float32(depth_mm / SAMPLES)
    lateral = (np.arange(BEAMS, dtype=np.float32) + np.float32(0.5)) / np.float32(BEAMS) - np.float32(0.5)
    depth, laterals = np.meshgrid(along, lateral, indexing="ij")
    x, z = fan.points(depth, laterals)
    return Beams(Points(x, z, probe.radius_mm, depth_mm / SAMPLES), depth, depth_mm / SAMPLES)


@lru_cache(maxsize=256)
def _marks(scanner: Scanner, probe: Probe, depth_mm: float, pixel_mm: float, origin: tuple[int, int]) -> Bytes:
    """The screen around the tissue: title, settings, grey bar and a ruler of depth."""
    screen = scanner.screen
    canvas = Image.new("L", (screen.width, screen.height))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default_imagefont()
    settings = f"{probe.model}  {depth_mm / 10:.1f} cm  MI 1.1"
    draw.text((4, 2), screen.title, fill=200, font=font)
    draw.text((screen.width // 2, 2), settings, fill=170, font=font)
    bar = 6 if screen.bar_left else screen.width - 16
    ramp = np.linspace(255, 0, 110).astype(np.uint8)[:, None].repeat(8, axis=1)
    canvas.paste(Image.fromarray(ramp), (bar, 40))
    edge = screen.width - 8 if screen.ruler_right else 2
    for mark in range(int(depth_mm // 10) + 1):
        row = int(origin[0] + mark * 10 / pixel_mm)
        if screen.box[0] <= row < screen.box[0] + screen.box[2]:
            draw.line((edge, row, edge + (6 if mark % 5 == 0 else 3), row), fill=180)
    return np.asarray(canvas, np.uint8)
