"""Organs as layers of shapes, a function for each: body wall, kidney, vessels, bowel, nodules; needles and drains."""

import math

import numpy as np
from numpy.random import Generator

from pipeline.phantom.anatomy import Band, Ellipse, Layer, Shape, Tissue, Tube, bumps

Layers = tuple[Layer, ...]
T = Tissue
_NINTHS = tuple(n / 8 for n in range(9))


def blob(rng: Generator, x: float, z: float, rx: float, rz: float, angle: float = 0.0, dents: float = 0.12) -> Ellipse:
    """An ellipse with random dents."""
    return Ellipse(x, z, rx, rz, angle, bumps(rng, dents))


def body_wall(fat: float, muscle: float, body: Generator) -> Layers:
    """Skin, `fat` mm of fat with septa, fascia and `muscle` mm of muscle, from the probe's face downwards."""
    skin = body.uniform(1.3, 2.2)
    under = skin + fat
    layers = [
        Layer(Band(-99, skin), T.SKIN, "skin"),
        Layer(Band(skin, under), T.FAT, "skin"),
        *_sheets(body, skin + 0.5, under, 2 + int(fat / 4)),
        Layer(Band(under, under + muscle, body.normal(0, 0.03)), T.MUSCLE, "skin"),
        Layer(Band(under, under + body.uniform(0.4, 0.9)), T.FASCIA, "skin"),
        *_sheets(body, under + 1, under + muscle, 1 + int(muscle / 4)),
        Layer(Band(under + muscle - body.uniform(0.4, 0.9), under + muscle), T.FASCIA, "skin"),
    ]
    return tuple(layers)


def _sheets(rng: Generator, top: float, bottom: float, count: int) -> list[Layer]:
    """Thin sheets of connective tissue along the skin."""
    return [sheet(rng, top, bottom, "skin") for _ in range(count)]


def sheet(rng: Generator, top: float, bottom: float, frame: str = "body", reach: float = 40.0) -> Layer:
    """One thin wavy sheet of connective tissue between two depths."""
    start, length = rng.uniform(-reach, 0.6 * reach), rng.uniform(0.4, 1.6) * reach
    z, tilt = rng.uniform(top, bottom), rng.normal(0, 0.06)
    thick, wave = rng.uniform(0.2, 0.55), rng.uniform(0, 6)
    along = tilt * length
    sway = 0.06 * (bottom - top)
    path = [
        (start + length * t, z + along * t + sway * math.sin(5 * t + wave), thick * (0.3 + math.sin(math.pi * t)))
        for t in _NINTHS
    ]
    return Layer(Tube(tuple(path)), T.FASCIA, "skin" if frame == "skin" else "body")


def kidney(outline: Ellipse, body: Generator) -> Layers:
    """A kidney: capsule, cortex, a ring of pyramids, the bright sinus, sometimes a cyst, within `outline`."""
    layers = [Layer(outline.grow(0.8), T.CAPSULE), Layer(outline, T.CORTEX)]
    count = int(body.integers(6, 11))
    for at in np.linspace(0, 2 * np.pi, count, endpoint=False) + body.uniform(0, 1) + body.normal(0, 0.12, count):
        along, across = 0.66 * float(np.cos(at)), 0.6 * float(np.sin(at))
        size = body.uniform(0.09, 0.15), body.uniform(0.12, 0.2)
        layers.append(Layer(outline.part(along, across, *size, float(at)), T.PYRAMID))
    layers.append(Layer(blob(body, *_middle(outline, body, 0.5, 0.28), outline.angle, 0.3), T.SINUS))
    for _ in range(5):
        along, across = body.uniform(-0.45, 0.45), body.uniform(-0.22, 0.22)
        layers.append(Layer(outline.part(along, across, 0.2, 0.16, body.uniform(0, 3)), T.SINUS))
    if body.random() < 0.25:
        centre = body.uniform(-0.6, 0.6), body.uniform(-0.5, 0.5)
        layers.append(Layer(outline.part(*centre, body.uniform(0.08, 0.2), body.uniform(0.14, 0.3)), T.RENAL_CYST))
    return tuple(layers)


def _middle(outline: Ellipse, body: Generator, rx: float, rz: float) -> tuple[float, float, float, float]:
    """Centre and half axes of an ellipse in the middle of an outline."""
    part = outline.part(body.normal(0, 0.05), body.normal(0, 0.05), rx * body.uniform(0.8, 1.1), rz)
    return part.x, part.z, part.rx, part.rz


def liver_vessels(body: Generator, pose: Generator, depth: float, count: int, within: Shape | None = None) -> Layers:
    """Vessels of a liver down to `depth` mm: branches of a tree, and `count` cross sections."""
    layers: list[Layer] = []
    root = body.uniform(-25, 25) + pose.normal(0, 8), depth * body.uniform(0.72, 0.95)
    for at in body.uniform(-1.3, 1.3, int(body.integers(1, 4))):
        walled, width = body.random() < 0.4, body.uniform(3.5, 7)
        branches = _branch(body, root, -np.pi / 2 + float(at) + pose.normal(0, 0.15), depth * 0.5, width)
        layers += [Layer(tube.grow(1.0), T.PORTAL_WALL, within=within) for tube in branches if walled]
        layers += [Layer(tube, T.LIVER_VEIN, within=within) for tube in branches]
    for _ in range(count):
        x, z = body.uniform(-50, 50) + pose.normal(0, 8), body.uniform(0.25, 0.95) * depth + pose.normal(0, 6)
        vessel = Ellipse(x, z, body.uniform(1.2, 6), body.uniform(0.9, 2.4), body.uniform(-1.2, 1.2))
        if body.random() < 0.5:
            layers.append(Layer(vessel.grow(body.uniform(0.5, 1.2)), T.PORTAL_WALL, within=within))
        layers.append(Layer(vessel, T.LIVER_VEIN, within=within))
    return tuple(layers)


def _branch(body: Generator, start: tuple[float, float], way: float, length: float, width: float) -> list[Tube]:
    """A tapering vessel from `start` in the direction `way` (radians), with a branch."""
    bend, at = body.normal(0, 0.5), np.linspace(0, 1, 7)
    x = start[0] + np.cumsum(np.cos(way + bend * at)) * length / 7
    z = start[1] + np.cumsum(np.sin(way + bend * at)) * length / 7
    path = tuple((float(a), float(b), float(width * (1 - 0.65 * t))) for a, b, t in zip(x, z, at, strict=True))
    if width < 3.5:
        return [Tube(path)]
    fork = float(x[3]), float(z[3])
    turn = float(body.choice((-1, 1))) * body.uniform(0.4, 1.0)
    return [Tube(path), *_branch(body, fork, way + turn, 0.6 * length, 0.55 * width)]


def bowel_loops(pose: Generator, count: int, depths: tuple[float, float], gas: float) -> list[Layer]:
    """Loops of bowel at `depths` (mm), the share `gas` of them with gas in front that casts a dirty shadow."""
    layers: list[Layer] = []
    for _ in range(count):
        x, z = pose.uniform(-75, 75), pose.uniform(*depths)
        loop = blob(pose, x, z, pose.uniform(9, 24), pose.uniform(6, 13), pose.uniform(-0.7, 0.7), 0.2)
        layers += [Layer(loop, T.BOWEL_WALL), Layer(loop.grow(-pose.uniform(1.2, 2.4)), _content(pose))]
        layers += [Layer(loop.part(pose.uniform(-0.3, 0.3), 0, 0.5, 0.3, pose.normal(0, 1)), T.BOWEL)]
        if pose.random() < gas:
            centre = pose.uniform(-0.2, 0.2), pose.uniform(-0.5, -0.1)
            layers.append(Layer(loop.part(*centre, pose.uniform(0.25, 0.7), pose.uniform(0.08, 0.2)), T.GAS))
    return layers


def _content(pose: Generator) -> Tissue:
    """The content of a bowel loop."""
    return (T.BOWEL, T.BOWEL, T.DEBRIS, T.FLUID)[int(pose.integers(4))]


def gallbladder(outline: Ellipse) -> list[Layer]:
    """A gallbladder: bile within a bright wall."""
    return [Layer(outline.grow(1.5), T.PORTAL_WALL), Layer(outline, T.FLUID)]


def needle(pose: Generator, target: tuple[float, float]) -> Layers:
    """A needle from the skin beside the probe to `target` (x, z in mm)."""
    x, z = target
    start, thick = x + float(pose.choice((-1.0, 1.0))) * z * pose.uniform(0.6, 1.3), pose.uniform(0.5, 0.9)
    return (Layer(Tube(((start, 0.0, thick), (x, z, thick))), T.NEEDLE, "rigid"),)


def drain(pose: Generator, target: tuple[float, float], size: float) -> Layers:
    """A drain from the skin to `target` (x, z in mm), `size` mm thick, that curls up at its end."""
    x, z = target
    side, curl = float(pose.choice((-1.0, 1.0))), 2.6 * size
    start = x + side * z * pose.uniform(0.5, 1.0)
    path = [(start + (x - start) * t, z * t, size) for t in np.linspace(0, 1, 6)]
    for at in np.linspace(0, 1.6 * np.pi, 12):
        path.append((x - side * curl * float(np.sin(at)), z + curl * (1 - float(np.cos(at))), size))
    tube = Tube(tuple((float(a), float(b), float(c)) for a, b, c in path))
    return (Layer(tube, T.DRAIN), Layer(tube.grow(-0.28 * size), T.FLUID))


def rib(x: float, depth: float, width: float) -> Layer:
    """A rib across the plane: bone that leaves a shadow."""
    return Layer(Ellipse(x, depth, width, 0.45 * width), T.BONE)


def nodule(outline: Ellipse, kind: str, body: Generator) -> Layers:
    """A thyroid nodule: `solid`, `halo` (about the gland's own echo within a dark rim), `cystic` or `mixed`."""
    if kind == "halo":
        return (Layer(outline, T.NODULE_HALO), Layer(outline.part(0, 0, 0.88, 0.84), T.NODULE_CORE))
    if kind == "cystic":
        return (Layer(outline, T.NODULE_CYST), *_spots_within(outline, T.NODULE, 1, 0.2, body))
    if kind == "mixed":
        return (Layer(outline, T.NODULE), *_spots_within(outline, T.NODULE_CYST, 4, 0.3, body))
    return (Layer(outline, T.NODULE), *_spots_within(outline, T.NODULE_CALCIUM, int(body.integers(0, 5)), 0.05, body))


def _spots_within(outline: Ellipse, tissue: Tissue, count: int, share: float, body: Generator) -> Layers:
    """`count` small spots of a tissue within an outline."""
    centres = body.uniform(-0.55, 0.55, (count, 2)).tolist()
    sizes = (share * body.uniform(0.6, 1.3, (count, 2))).tolist()
    spots = zip(centres, sizes, strict=True)
    return tuple(Layer(outline.part(x, z, *size), tissue) for (x, z), size in spots)
