"""Probes, the scan conversion of their beams, and the screen around the image.

Belongs here: geometry in mm and pixels, what a scanner draws beside the tissue. Not here: sound, anatomy, DICOM.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from pipeline.phantom.acoustics import Tuning, b_mode
from pipeline.phantom.anatomy import Bits, Bytes, Floats, Points, Scene, Tissue, class_map, label_map

SAMPLES, BEAMS = 288, 192  # of every acquisition; smooth sizes for the FFT


@dataclass(frozen=True)
class Probe:
    """A probe: `face_mm` wide; `radius_mm` of its curve, 0 for a linear one; names as DICOM tags carry them."""

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
    """A scanner's look: its screen and the ranges its tuning is drawn from (low, high)."""

    manufacturer: str
    model: str
    screen: Screen
    looks: int
    axial: tuple[float, float]
    lateral: tuple[float, float]
    range_db: tuple[float, float]
    gain_db: tuple[float, float]
    noise_db: tuple[float, float]

    def tuned(self, rng: Generator) -> Tuning:
        """One examination's settings."""
        return Tuning(
            axial=rng.uniform(*self.axial),
            lateral=rng.uniform(*self.lateral),
            spread=rng.uniform(1.6, 2.3),
            focus=rng.uniform(0.35, 0.65),
            looks=self.looks,
            range_db=rng.uniform(*self.range_db),
            gain_db=rng.uniform(*self.gain_db),
            fading_db=rng.uniform(0, 9),
            noise_db=rng.uniform(*self.noise_db),
        )


AIXPLORER_LIKE = Scanner(
    "Phantom Imaging",
    "Speckle One",
    Screen(288, 384, (26, 34, 254, 316), "SPECKLE ONE", bar_left=True, ruler_right=True),
    looks=1,
    axial=(0.75, 1.0),
    lateral=(0.8, 1.1),
    range_db=(58, 68),
    gain_db=(-3, 5),
    noise_db=(-34, -24),
)
LOGIQ_LIKE = Scanner(
    "Phantom Imaging",
    "Grain Nine",
    Screen(288, 384, (18, 20, 266, 320), "GRAIN 9", bar_left=False, ruler_right=False),
    looks=2,
    axial=(0.9, 1.2),
    lateral=(1.0, 1.4),
    range_db=(52, 64),
    gain_db=(-6, 6),
    noise_db=(-30, -16),
)
THIRD = Scanner(
    "Phantom Imaging",
    "Third",
    Screen(272, 400, (18, 30, 250, 340), "THIRD", bar_left=True, ruler_right=False),
    looks=1,
    axial=(0.9, 1.3),
    lateral=(1.0, 1.6),
    range_db=(50, 66),
    gain_db=(-6, 6),
    noise_db=(-30, -14),
)


@dataclass(frozen=True)
class View:
    """One picture as the scanner shows it: `grey` and `labels` (tissue, screen-sized), and where the tissue lies.

    `inside` marks the pixels that the beams reach; `box` is (top, left, height, width) of the region that holds them,
    `pixel_mm` the side of a pixel, `origin` (row, column) the pixel at the middle of the probe's face.
    """

    grey: Bytes
    labels: Bytes
    inside: Bits
    box: tuple[int, int, int, int]
    pixel_mm: float
    origin: tuple[int, int]

    def mask(self, classes: dict[Tissue, int]) -> Bytes:
        """Class values of the screen's pixels; 0 outside the tissue region."""
        return np.asarray(class_map(self.labels, classes) * self.inside, np.uint8)


@dataclass(frozen=True)
class _Conversion:
    """Scan conversion of one probe at one depth: beams' points, screen's points, and how one reads the other."""

    beams: Points
    pixels: Points
    inside: Bits
    upper_left: npt.NDArray[np.int32]
    down: Floats
    across: Floats
    top_left: tuple[int, int]
    pixel_mm: float

    def shown(self, image: Bytes) -> Bytes:
        """The beams' image on the screen's pixels (bilinear), black where no beam goes."""
        flat, at = image.ravel().astype(np.float32), self.upper_left
        upper = flat[at] * (1 - self.across) + flat[at + 1] * self.across
        lower = flat[at + BEAMS] * (1 - self.across) + flat[at + BEAMS + 1] * self.across
        grey = np.zeros(self.inside.shape, np.uint8)
        grey[self.inside] = upper * (1 - self.down) + lower * self.down + 0.5
        return grey


@dataclass(frozen=True)
class Setup:
    """How an image is taken: which scanner, its settings, which probe, how deep (mm)."""

    scanner: Scanner
    tuning: Tuning
    probe: Probe
    depth_mm: float


def picture(scene: Scene, setup: Setup, rng: Generator, turn: int = 0) -> View:
    """Scan `scene` and draw the screen; `turn` slides the probe by so many beams."""
    screen, probe = setup.scanner.screen, setup.probe
    way = _conversion(probe, setup.depth_mm, screen.box[2], screen.box[3])
    labels = label_map(scene, _turned(way.beams, probe, turn))
    sample_mm = setup.depth_mm / SAMPLES
    beams = b_mode(labels, scene, setup.tuning, rng, sample_mm=sample_mm, turn=turn)
    height, width = way.inside.shape
    top, left = screen.box[0] + way.top_left[0], screen.box[1] + way.top_left[1]
    box = (top, left, height, width)
    shown = _on_screen(label_map(scene, _turned(way.pixels, probe, turn)), box, screen)
    inside = _on_screen(way.inside, box, screen)
    grey = _on_screen(way.shown(beams), box, screen)
    origin = (top, left + width // 2)
    marks = _marks(setup, way.pixel_mm, origin)
    return View(np.where(inside, grey, marks), shown, inside.astype(np.bool_), box, way.pixel_mm, origin)


def _on_screen(image: Bytes | Bits, box: tuple[int, int, int, int], screen: Screen) -> Bytes:
    """The image in its place on an otherwise empty screen."""
    full = np.zeros((screen.height, screen.width), np.uint8)
    full[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = image
    return full


def _half_angle(probe: Probe) -> float:
    return probe.face_mm / (2 * probe.radius_mm)


def _turned(points: Points, probe: Probe, turn: int) -> Points:
    """The points after the probe has moved by `turn` beams along its face."""
    if not turn:
        return points
    if not probe.radius_mm:
        return Points(points.x + np.float32(turn * probe.face_mm / BEAMS), points.z, points.depth)
    angle = 2 * _half_angle(probe) * turn / BEAMS
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    down = points.z + np.float32(probe.radius_mm)
    return Points(
        points.x * cosine + down * sine, down * cosine - points.x * sine - np.float32(probe.radius_mm), points.depth
    )


@lru_cache(maxsize=64)
def _conversion(probe: Probe, depth_mm: float, height: int, width: int) -> _Conversion:
    """The scan conversion that fits the probe's field of view into height × width pixels."""
    half_width, sagitta = probe.face_mm / 2, 0.0
    if probe.radius_mm:
        half = _half_angle(probe)
        half_width = float((probe.radius_mm + depth_mm) * np.sin(half))
        sagitta = float(probe.radius_mm * (1 - np.cos(half)))
    pixel_mm = max(2 * half_width / width, (depth_mm + sagitta) / height)
    rows, columns = int((depth_mm + sagitta) / pixel_mm), int(2 * half_width / pixel_mm)
    z, x = np.meshgrid(
        (np.arange(rows, dtype=np.float32) + 0.5) * np.float32(pixel_mm) - np.float32(sagitta),
        (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) * np.float32(pixel_mm),
        indexing="ij",
    )
    depth, beam = _polar(probe, np.asarray(x, np.float32), np.asarray(z, np.float32))
    sample, line = depth / depth_mm * SAMPLES - 0.5, (beam + 0.5) * BEAMS - 0.5
    # The FFT's circular convolution smears the skin's echo into the last samples: they are not shown.
    inside = (sample >= 0) & (sample < SAMPLES - 6) & (line >= 0) & (line < BEAMS - 1)
    row, column = np.floor(sample[inside]).astype(np.int32), np.floor(line[inside]).astype(np.int32)
    return _Conversion(
        beams=_beam_points(probe, depth_mm),
        pixels=Points(np.asarray(x, np.float32), np.asarray(z, np.float32), depth),
        inside=inside,
        upper_left=row * BEAMS + column,
        down=np.asarray(sample[inside] - row, np.float32),
        across=np.asarray(line[inside] - column, np.float32),
        top_left=((height - rows) // 2 if not probe.radius_mm else 0, (width - columns) // 2),
        pixel_mm=pixel_mm,
    )


def _polar(probe: Probe, x: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Depth along the beam (mm) and place on the face (-0.5 to 0.5) of points in mm."""
    if not probe.radius_mm:
        return z, x / np.float32(probe.face_mm)
    down = z + np.float32(probe.radius_mm)
    depth = np.hypot(x, down) - np.float32(probe.radius_mm)
    return np.asarray(depth, np.float32), np.asarray(np.arctan2(x, down) / (2 * _half_angle(probe)), np.float32)


def _beam_points(probe: Probe, depth_mm: float) -> Points:
    """The points of every sample of every beam, samples × beams."""
    along = (np.arange(SAMPLES, dtype=np.float32) + 0.5) * np.float32(depth_mm / SAMPLES)
    place = (np.arange(BEAMS, dtype=np.float32) + 0.5) / BEAMS - np.float32(0.5)
    depth = np.repeat(along[:, None], BEAMS, axis=1)
    if not probe.radius_mm:
        return Points(np.repeat(place[None] * np.float32(probe.face_mm), SAMPLES, axis=0), depth, depth)
    angle = (place * np.float32(2 * _half_angle(probe)))[None]
    reach = depth + np.float32(probe.radius_mm)
    return Points(reach * np.sin(angle), reach * np.cos(angle) - np.float32(probe.radius_mm), depth)


def _marks(setup: Setup, pixel_mm: float, origin: tuple[int, int]) -> Bytes:
    """What the scanner draws around the tissue: title, settings, grey bar and a ruler of depth."""
    screen = setup.scanner.screen
    canvas = Image.new("L", (screen.width, screen.height))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default_imagefont()
    settings = f"{setup.probe.model}  {setup.depth_mm / 10:.1f} cm  MI 1.1"
    draw.text((4, 2), screen.title, fill=200, font=font)
    draw.text((screen.width // 2, 2), settings, fill=170, font=font)
    bar = 6 if screen.bar_left else screen.width - 16
    ramp = np.linspace(255, 0, 110).astype(np.uint8)[:, None].repeat(8, axis=1)
    canvas.paste(Image.fromarray(ramp), (bar, 40))
    edge = screen.width - 8 if screen.ruler_right else 2
    for mark in range(int(setup.depth_mm // 10) + 1):
        row = int(origin[0] + mark * 10 / pixel_mm)
        draw.line((edge, row, edge + (6 if mark % 5 == 0 else 3), row), fill=180)
    return np.asarray(canvas, np.uint8)
