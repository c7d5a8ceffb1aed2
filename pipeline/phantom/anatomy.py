"""Anatomy as painted shapes, in millimetres: the tissue at each point of the body."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, auto
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int32]


class Tissue(IntEnum):
    """Tissues; `acoustics` has their properties."""

    SKIN = 0
    FAT = auto()
    MUSCLE = auto()
    FASCIA = auto()
    LIVER = auto()
    LIVER_VEIN = auto()
    PORTAL_WALL = auto()
    LIVER_LESION = auto()
    CORTEX = auto()
    PYRAMID = auto()
    SINUS = auto()
    RENAL_CYST = auto()
    CAPSULE = auto()
    PERIRENAL_FAT = auto()
    DIAPHRAGM = auto()
    MIRROR = auto()
    BONE = auto()
    GAS = auto()
    PLEURA = auto()
    AIR_FILLED_LUNG = auto()
    REVERBERATION = auto()
    COMET = auto()
    CONSOLIDATED_LUNG = auto()
    FLUID = auto()
    DEBRIS = auto()
    BOWEL = auto()
    BOWEL_WALL = auto()
    STONE = auto()
    THYROID = auto()
    BLOOD = auto()
    ARTERY_WALL = auto()
    CARTILAGE = auto()
    NODULE = auto()
    NODULE_HALO = auto()
    NODULE_CORE = auto()
    NODULE_CYST = auto()
    NODULE_CALCIUM = auto()
    LYMPH_NODE = auto()
    HILUM = auto()
    NEEDLE = auto()
    DRAIN = auto()


Bumps = tuple[tuple[int, float, float], ...]
"""Deviations of an outline from an ellipse: waves around it, as (number, share of the radius, phase)."""


class Shape(Protocol):
    """A region of the plane."""

    def outline(self) -> Floats:
        """Its corners in mm, (n, 2): x and z."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An ellipse with centre (x, z) and half axes (rx, rz) in mm, turned by `angle` radians, dented by `bumps`."""

    x: float
    z: float
    rx: float
    rz: float
    angle: float = 0.0
    bumps: Bumps = ()

    def outline(self) -> Floats:
        """Its corners in mm, (n, 2)."""
        at, cosines, sines = _unit_circle(max(16, min(64, int(3 * (self.rx + self.rz)))))
        corners = np.empty((len(at), 2), np.float32)
        radius: Floats | float = 1.0
        if self.bumps:
            number, share, phase = _bump_columns(self.bumps)
            radius = 1 + (share * np.sin(number * at + phase)).sum(0)
        along, across = radius * cosines, radius * sines
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        corners[:, 0] = (self.rx * cosine) * along - (self.rz * sine) * across + self.x
        corners[:, 1] = (self.rx * sine) * along + (self.rz * cosine) * across + self.z
        return corners

    def grow(self, by: float) -> "Ellipse":
        """The ellipse with `by` mm more on each half axis."""
        return Ellipse(self.x, self.z, self.rx + by, self.rz + by, self.angle, self.bumps)

    def part(self, along: float, across: float, rx: float, rz: float, turn: float = 0.0) -> "Ellipse":
        """A smooth ellipse in this one's own axes: its centre and half axes as shares of this one's."""
        cosine, sine = float(np.cos(self.angle)), float(np.sin(self.angle))
        u, v = along * self.rx, across * self.rz
        centre = self.x + u * cosine - v * sine, self.z + u * sine + v * cosine
        return Ellipse(*centre, rx * self.rx, rz * self.rz, self.angle + turn)


@dataclass(frozen=True)
class Band:
    """The band between two parallel curves z = top|bottom + slope·x + bend·x², in mm."""

    top: float
    bottom: float
    slope: float = 0.0
    bend: float = 0.0

    def outline(self) -> Floats:
        """Its corners in mm, (n, 2), as far to both sides as a picture reaches."""
        x = _across()
        curve, half = x * (np.float32(self.slope) + np.float32(self.bend) * x), len(x)
        corners = np.empty((2 * half, 2), np.float32)
        corners[:half, 0], corners[half:, 0] = x, x[::-1]
        corners[:half, 1], corners[half:, 1] = curve + np.float32(self.top), curve[::-1] + np.float32(self.bottom)
        return corners


@dataclass(frozen=True)
class Tube:
    """A bent tube through `path`, points (x, z, thickness) in mm: a vessel, a sheet of connective tissue, a drain."""

    path: tuple[tuple[float, float, float], ...]

    def outline(self) -> Floats:
        """Its corners in mm, (n, 2)."""
        points = np.array(self.path, np.float32)
        ahead = np.concatenate((points[1:2] - points[:1], points[2:] - points[:-2], points[-1:] - points[-2:-1]))
        length = np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), np.float32(1e-6))
        side = np.stack((-ahead[:, 1], ahead[:, 0]), -1) * (points[:, 2] / (2 * length))[:, None]
        return np.concatenate((points[:, :2] + side, (points[:, :2] - side)[::-1])).astype(np.float32)

    def grow(self, by: float) -> "Tube":
        """The tube, thicker by `by` mm on each side."""
        return Tube(tuple((x, z, thickness + 2 * by) for x, z, thickness in self.path))


Frame = Literal["body", "rigid", "skin"]
_FRAMES: dict[Frame, int] = {"body": 0, "rigid": 1, "skin": 2}
_WARP_SHARES = np.array(
    (1.0, 0.0, 0.25), np.float32
)  # by the body's bending, in the same order: the probe flattens the skin


@dataclass(frozen=True)
class Layer:
    """A shape painted with a tissue, clipped to the shape `within`, if given.

    `frame` is its coordinate system: `body` bends with the patient, `rigid` is straight in the room (needles), `skin`
    follows the face of the probe, which presses the skin into its own curve: x along the face, z along the beam.
    """

    shape: Shape
    tissue: Tissue
    frame: Frame = "body"
    within: Shape | None = None


@dataclass(frozen=True)
class Warp:
    """A smooth bending of the body: sums of waves with amplitude (mm), two wave numbers (rad/mm) and two phases."""

    waves: tuple[tuple[float, float, float, float, float], ...] = ()

    def apply(self, corners: Floats, strength: Floats) -> Floats:
        """Points (n, 2) of the body in room coordinates, mm, each moved by its share `strength` (n,)."""
        if not self.waves:
            return corners
        amplitude, kx, kz, phase, other = (row[:, None] for row in _columns(self.waves))
        along = kx * corners[:, 0] + kz * corners[:, 1]
        shifts = [(amplitude * np.sin(along + p)).sum(0, dtype=np.float32) * strength for p in (phase, other)]
        return np.asarray(corners + np.stack(shifts, -1), np.float32)


@dataclass(frozen=True)
class Scene:
    """What one image shows: a background, layers painted over it in order, and how this patient's tissues differ.

    `wall` (skin, muscle, ribs, needles) is painted after the other layers. `echo_db` raises or lowers a tissue's echo
    for this image, in dB. `fibres` is the slope of muscle's fibres, `grain` chooses the patient's texture.
    """

    background: Tissue
    layers: tuple[Layer, ...]
    wall: tuple[Layer, ...] = ()
    warp: Warp = Warp()
    echo_db: tuple[tuple[Tissue, float], ...] = ()
    fibres: float = 0.0
    grain: int = 0


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the body in mm: `x` to the right, `z` away from the probe's centre; any shape.

    `radius_mm` is that of the probe's face, 0 for a straight one; `step_mm` the resolution of the painted anatomy.
    """

    x: Floats
    z: Floats
    radius_mm: float = 0.0
    step_mm: float = 0.5
    ground: "Ground" = field(init=False)

    def __post_init__(self) -> None:
        """Lay the grid that shapes are painted on."""
        object.__setattr__(self, "ground", Ground.under(self.x, self.z, self.step_mm))


@dataclass(frozen=True, eq=False)
class Ground:
    """The grid that shapes are painted on: its upper left corner and step in mm, size, and the cell of each point."""

    left: float
    top: float
    step: float
    width: int
    height: int
    cells: Indices

    @staticmethod
    def under(x: Floats, z: Floats, step: float) -> "Ground":
        """The grid that covers the given points."""
        left, top = float(x.min()) - step, float(z.min()) - step
        column = np.asarray((x - left) / step, np.int32)
        row = np.asarray((z - top) / step, np.int32)
        width, height = int(column.max()) + 2, int(row.max()) + 2
        return Ground(left, top, step, width, height, row * np.int32(width) + column)


def label_map(scene: Scene, points: Points) -> Bytes:
    """The tissue at each point, as values of `Tissue`; the shape is that of the points."""
    ground = points.ground
    canvas = Image.new("L", (ground.width, ground.height), int(scene.background))
    draw = ImageDraw.Draw(canvas)
    layers = (*scene.layers, *scene.wall)
    drawn = _painted_outlines(layers, scene.warp, points)
    for layer in layers:
        if layer.within is None:
            draw.polygon(next(drawn), fill=int(layer.tissue))
            continue
        stencil = [Image.new("1", canvas.size) for _ in range(2)]
        for one in stencil:
            ImageDraw.Draw(one).polygon(next(drawn), fill=1)
        canvas.paste(int(layer.tissue), mask=ImageChops.logical_and(*stencil))
    return np.asarray(canvas).ravel()[ground.cells]


def class_map(labels: Bytes, classes: dict[Tissue, int]) -> Bytes:
    """The class value of each tissue label; a tissue without one is background, 0."""
    table = np.zeros(len(Tissue), np.uint8)
    for tissue, value in classes.items():
        table[tissue] = value
    return table[labels]


def random_warp(body: Generator, size: float) -> Warp:
    """A patient's random warp: seven waves, the longest about `size` mm, the shorter ones weaker."""
    waves = []
    for order in range(1, 8):
        direction = body.uniform(0, 2 * np.pi)
        number = 2 * np.pi * order / (1.6 * size)
        amplitude = body.uniform(0.4, 1.0) * size * 0.03 / order
        phases = body.uniform(0, 2 * np.pi, 2)
        waves.append((amplitude, number * np.cos(direction), number * np.sin(direction), *map(float, phases)))
    return Warp(tuple((float(a), float(kx), float(kz), p, q) for a, kx, kz, p, q in waves))


def bumps(rng: Generator, amount: float) -> Bumps:
    """Dents of an outline, together about `amount` of its radius."""
    drawn = zip(range(2, 8), rng.uniform(0.3, 1.0, 6), rng.uniform(0, 2 * np.pi, 6), strict=True)
    return tuple((number, float(amount * share / (number - 0.5)), float(phase)) for number, share, phase in drawn)


def _painted_outlines(layers: tuple[Layer, ...], warp: Warp, points: Points) -> Iterator[list[float]]:
    """Corners of every layer's shape and of its `within`, on the points' ground, as column, row and so on.

    All are transformed at once: a picture has some fifty shapes of some forty corners. A scene without layers requests
    none.
    """
    frames = [layer.frame for layer in layers for _ in ((0,) if layer.within is None else (0, 1))]
    shapes = [shape for layer in layers for shape in (layer.shape, layer.within) if shape is not None]
    outlines = [shape.outline() for shape in shapes]
    ends = np.cumsum([len(outline) for outline in outlines])
    corners = np.concatenate(outlines)
    frame_of = np.repeat(np.array([_FRAMES[frame] for frame in frames]), [len(outline) for outline in outlines])
    corners = warp.apply(corners, _WARP_SHARES[frame_of])
    pressed = frame_of == _FRAMES["skin"]
    corners[pressed] = _press_to_face(corners[pressed], points.radius_mm)
    ground = points.ground
    corner = np.array((ground.left, ground.top), np.float32)
    flat: list[float] = ((corners - corner) * np.float32(1 / ground.step)).ravel().tolist()
    for start, end in zip((0, *ends[:-1]), ends, strict=True):
        yield flat[2 * start : 2 * end]


def _press_to_face(corners: Floats, radius: float) -> Floats:
    """Points (mm along the probe's face, mm along the beam) in room coordinates."""
    if not radius:
        return corners
    # Beyond a right angle the face would bend back on itself.
    angle = np.clip(corners[:, 0] / np.float32(radius), -1.5, 1.5)
    reach = corners[:, 1] + np.float32(radius)
    return np.stack((reach * np.sin(angle), reach * np.cos(angle) - np.float32(radius)), -1).astype(np.float32)


@lru_cache(maxsize=64)
def _unit_circle(corners: int) -> tuple[Floats, Floats, Floats]:
    """Angles around a circle, their cosines and sines."""
    at = np.linspace(0, 2 * np.pi, corners, endpoint=False, dtype=np.float32)
    return at, np.cos(at), np.sin(at)


@lru_cache(maxsize=64)
def _bump_columns(bumps: Bumps) -> tuple[Floats, Floats, Floats]:
    """Numbers, shares and phases of an outline's waves, each (waves, 1)."""
    columns = np.array(bumps, np.float32).T[..., None]
    return columns[0], columns[1], columns[2]


@lru_cache(maxsize=1)
def _across() -> Floats:
    return np.linspace(-180, 180, 41, dtype=np.float32)


@lru_cache(maxsize=64)
def _columns(waves: tuple[tuple[float, float, float, float, float], ...]) -> Floats:
    return np.array(waves, np.float32).T
