"""Anatomy as painted shapes: which tissue lies at which point of the body, in millimetres.

Belongs here: tissues, shapes, scenes and organs made of several shapes. Not here: views of the body, sound, pixels.
"""

from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


class Tissue(IntEnum):
    """What sound meets; acoustics.py says how each echoes, attenuates and reflects."""

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
    CAPSULE = auto()
    PERIRENAL_FAT = auto()
    DIAPHRAGM = auto()
    MIRROR = auto()
    BONE = auto()
    GAS = auto()
    PLEURA = auto()
    AIR_FILLED_LUNG = auto()
    REVERBERATION = auto()
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


@dataclass(frozen=True)
class Points:
    """Points of the body in mm: `x` to the right, `z` away from the probe's centre, `depth` along the beam."""

    x: Floats
    z: Floats
    depth: Floats


class Shape(Protocol):
    """A region of the plane."""

    def holds(self, x: Floats, z: Floats) -> Bits:
        """Which of the points (mm) lie inside."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An ellipse with centre (x, z) and half axes (rx, rz) in mm, turned by `angle` radians."""

    x: float
    z: float
    rx: float
    rz: float
    angle: float = 0.0

    def holds(self, x: Floats, z: Floats) -> Bits:
        """Which points lie inside."""
        cosine, sine = float(np.cos(self.angle)), float(np.sin(self.angle))
        dx, dz = x - self.x, z - self.z
        along, across = (dx * cosine + dz * sine) / self.rx, (dz * cosine - dx * sine) / self.rz
        return np.asarray(along * along + across * across <= 1)

    def grown(self, by: float) -> "Ellipse":
        """The ellipse with `by` mm more on each half axis."""
        return Ellipse(self.x, self.z, self.rx + by, self.rz + by, self.angle)

    def part(self, along: float, across: float, rx: float, rz: float, turn: float = 0.0) -> "Ellipse":
        """An ellipse in this one's own axes: its centre and half axes as shares of this one's."""
        cosine, sine = float(np.cos(self.angle)), float(np.sin(self.angle))
        u, v = along * self.rx, across * self.rz
        centre = self.x + u * cosine - v * sine, self.z + u * sine + v * cosine
        return Ellipse(*centre, rx * self.rx, rz * self.rz, self.angle + turn)


@dataclass(frozen=True)
class Band:
    """What lies between two parallel curves z = top|bottom + slope·x + bend·x², in mm."""

    top: float
    bottom: float
    slope: float = 0.0
    bend: float = 0.0

    def holds(self, x: Floats, z: Floats) -> Bits:
        """Which points lie between the curves."""
        level = z - x * (self.slope + self.bend * x)
        return np.asarray((level >= self.top) & (level < self.bottom))


@dataclass(frozen=True)
class Rod:
    """A straight rod from (x0, z0) to (x1, z1), `width` mm thick: a needle, a drain's wall."""

    x0: float
    z0: float
    x1: float
    z1: float
    width: float

    def holds(self, x: Floats, z: Floats) -> Bits:
        """Which points lie within half a width of the rod's axis."""
        dx, dz = self.x1 - self.x0, self.z1 - self.z0
        length = float(np.hypot(dx, dz))
        along = ((x - self.x0) * dx + (z - self.z0) * dz) / length
        across = ((x - self.x0) * dz - (z - self.z0) * dx) / length
        return np.asarray((along >= 0) & (along <= length) & (np.abs(across) <= self.width / 2))


@dataclass(frozen=True)
class Both:
    """What lies in two shapes at once."""

    one: Shape
    other: Shape

    def holds(self, x: Floats, z: Floats) -> Bits:
        """Which points lie inside both."""
        return self.one.holds(x, z) & self.other.holds(x, z)


Frame = Literal["body", "rigid", "skin"]


@dataclass(frozen=True)
class Layer:
    """A shape painted with a tissue.

    `frame` says in which coordinates: `body` bends with the patient, `rigid` is straight in the room (needles),
    `skin` follows the face of the probe, which presses the skin into its own curve and flattens the body's bending.
    """

    shape: Shape
    tissue: Tissue
    frame: Frame = "body"


@dataclass(frozen=True)
class Warp:
    """A smooth bending of the body: sums of waves with amplitude (mm), two wave numbers (rad/mm) and phases."""

    waves: tuple[tuple[float, float, float, float, float], ...] = ()

    def bent(self, points: Points) -> tuple[Floats, Floats]:
        """The points' coordinates before bending."""
        x, z = points.x, points.z
        for amplitude, kx, kz, phase, other in self.waves:
            along = points.x * np.float32(kx) + points.z * np.float32(kz)
            x = np.asarray(x + np.float32(amplitude) * np.sin(along + np.float32(phase)), np.float32)
            z = np.asarray(z + np.float32(amplitude) * np.sin(along + np.float32(other)), np.float32)
        return x, z


@dataclass(frozen=True)
class Scene:
    """What one image shows: a background, layers painted over it in order, and how this patient's tissues differ.

    `wall` (skin, muscle, ribs, needles) is painted after the other layers. `echo_db` raises or lowers a tissue's echo
    for this image, in dB.
    """

    background: Tissue
    layers: tuple[Layer, ...]
    wall: tuple[Layer, ...] = ()
    warp: Warp = Warp()
    echo_db: tuple[tuple[Tissue, float], ...] = ()


def label_map(scene: Scene, points: Points) -> Bytes:
    """The tissue at each point, as values of `Tissue`; the shape is that of the points."""
    labels = np.full(points.x.shape, scene.background, np.uint8)
    bent = scene.warp.bent(points)
    coordinates = {
        "body": bent,
        "rigid": (points.x, points.z),
        "skin": (points.x, points.depth + np.float32(0.4) * (bent[1] - points.z)),
    }
    for layer in (*scene.layers, *scene.wall):
        labels[layer.shape.holds(*coordinates[layer.frame])] = layer.tissue
    return labels


def class_map(labels: Bytes, classes: dict[Tissue, int]) -> Bytes:
    """The class value of each tissue label; a tissue without one is background, 0."""
    table = np.zeros(len(Tissue), np.uint8)
    for tissue, value in classes.items():
        table[tissue] = value
    return table[labels]


def drawn_warp(body: Generator, size: float) -> Warp:
    """A patient's bending: five waves, the longest about `size` mm, the shorter ones weaker."""
    waves = []
    for order in range(1, 6):
        direction = body.uniform(0, 2 * np.pi)
        number = 2 * np.pi * order / (1.6 * size)
        amplitude = body.uniform(0.4, 1.0) * size * 0.035 / order
        phases = body.uniform(0, 2 * np.pi, 2)
        waves.append((amplitude, number * np.cos(direction), number * np.sin(direction), *map(float, phases)))
    return Warp(tuple((float(a), float(kx), float(kz), p, q) for a, kx, kz, p, q in waves))


def body_wall(fat: float, muscle: float) -> tuple[Layer, ...]:
    """Skin, `fat` mm of fat with a septum, fascia and `muscle` mm of muscle, from the probe's face downwards."""
    under, septum = 1.8 + fat, 1.8 + 0.55 * fat
    return (
        Layer(Band(-99, 1.8), Tissue.SKIN, "skin"),
        Layer(Band(1.8, under), Tissue.FAT, "skin"),
        Layer(Band(septum, septum + 0.6, 0.04), Tissue.FASCIA, "skin"),
        Layer(Band(under, under + muscle), Tissue.MUSCLE, "skin"),
        Layer(Band(under, under + 0.6), Tissue.FASCIA, "skin"),
        Layer(Band(under + muscle - 0.6, under + muscle), Tissue.FASCIA, "skin"),
    )


def kidney(outline: Ellipse, body: Generator) -> tuple[Layer, ...]:
    """A kidney: capsule, cortex, a ring of pyramids and the bright sinus, within `outline`."""
    layers = [Layer(outline.grown(0.9), Tissue.CAPSULE), Layer(outline, Tissue.CORTEX)]
    count = int(body.integers(7, 10))
    for at in np.linspace(0, 2 * np.pi, count, endpoint=False) + body.uniform(0, 1):
        along, across = 0.66 * float(np.cos(at)), 0.6 * float(np.sin(at))
        layers.append(Layer(outline.part(along, across, 0.12, 0.16, float(at)), Tissue.PYRAMID))
    layers.append(Layer(outline.part(0.0, 0.0, 0.52, 0.3), Tissue.SINUS))
    for _ in range(5):
        along, across = body.uniform(-0.45, 0.45), body.uniform(-0.22, 0.22)
        layers.append(Layer(outline.part(along, across, 0.2, 0.2, body.uniform(0, 3)), Tissue.SINUS))
    return tuple(layers)


def liver_vessels(body: Generator, pose: Generator, depth: float, count: int) -> tuple[Layer, ...]:
    """`count` vessels of a liver down to `depth` mm: portal branches with bright walls, and bare veins."""
    layers: list[Layer] = []
    for _ in range(count):
        x, z = body.uniform(-45, 45) + pose.normal(0, 6), body.uniform(0.3, 0.9) * depth + pose.normal(0, 5)
        long, thin = body.uniform(3, 16), body.uniform(1.6, 3.6)
        vessel = Ellipse(x, z, long, thin, body.uniform(-1.0, 1.0))
        if body.random() < 0.6:
            layers.append(Layer(vessel.grown(1.1), Tissue.PORTAL_WALL))
        layers.append(Layer(vessel, Tissue.LIVER_VEIN))
    return tuple(layers)


def needle(pose: Generator, target: tuple[float, float]) -> tuple[Layer, ...]:
    """A needle from the skin beside the probe to `target` (x, z in mm)."""
    x, z = target
    side = float(pose.choice((-1.0, 1.0)))
    start = x + side * z * pose.uniform(0.6, 1.3)
    return (Layer(Rod(start, 0.0, x, z, pose.uniform(0.5, 0.9)), Tissue.NEEDLE, "rigid"),)


def rib(x: float, depth: float, width: float) -> Layer:
    """A rib across the plane: bone that leaves a shadow."""
    return Layer(Ellipse(x, depth, width, 0.45 * width), Tissue.BONE)


def nodule(outline: Ellipse, kind: str, body: Generator) -> tuple[Layer, ...]:
    """A thyroid nodule: `solid`, `halo` (about the gland's own echo within a dark rim), `cystic` or `mixed`."""
    if kind == "halo":
        return (Layer(outline, Tissue.NODULE_HALO), Layer(outline.part(0, 0, 0.86, 0.82), Tissue.NODULE_CORE))
    if kind == "cystic":
        return (Layer(outline, Tissue.NODULE_CYST),)
    inner, count = (Tissue.NODULE_CYST, 3) if kind == "mixed" else (Tissue.NODULE_CALCIUM, int(body.integers(0, 5)))
    share = 0.3 if kind == "mixed" else 0.05
    layers = [Layer(outline, Tissue.NODULE)]
    for along, across in body.uniform(-0.55, 0.55, (count, 2)):
        layers.append(Layer(outline.part(float(along), float(across), share, share), inner))
    return tuple(layers)
