"""Speed of drawing the phantom's pictures compared with the same steps written plainly with SciPy."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from scipy import ndimage, signal

from benchmarks.measure import Row, compare
from pipeline.phantom.acoustics import ACOUSTICS
from pipeline.phantom.anatomy import Points, Scene, Tissue, label_map
from pipeline.phantom.scanner import (
    AIXPLORER_LIKE,
    BEAMS,
    CURVILINEAR,
    SAMPLES,
    Format,
    Setup,
    picture,
)
from pipeline.phantom.views import VIEWS

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]

PICTURES, PLAIN = 240, 24
TEXTURES = {"clouds": (12, 12), "lobules": (6, 14), "fibres": (2, 22)}  # deviations in samples and beams
ZONES = 4  # of depth, each with its own pulse, in the plain loop


def measure() -> list[Row]:
    """One row: pictures per second on all cores, cycling through the views."""
    for number in range(len(VIEWS)):
        _drawn(number)  # the first pictures make fields and grids, once

    def ours() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_drawn, range(PICTURES)))

    row = compare(
        "draw a picture of the phantom, 288 × 384, all views in turn",
        "images",
        PICTURES,
        ours,
        lambda: [_plain(*_taken(number)) for number in range(PLAIN)],
        "SciPy, one picture after the other: scatterers drawn anew, convolve2d, map_coordinates, a sort for grey",
    )
    return [Row(row.what, row.unit, row.ours, row.peer * PLAIN / PICTURES, row.peer_is)]


def _taken(number: int) -> tuple[Scene, Setup, Generator]:
    """The scene of a picture, its setup, and the remaining random state."""
    name = list(VIEWS)[number % len(VIEWS)]
    rng = np.random.default_rng([1, number])
    scene = VIEWS[name](rng, rng)
    depth = float(rng.choice(CURVILINEAR.depths_mm))
    return scene, Setup(AIXPLORER_LIKE, AIXPLORER_LIKE.random_tuning(rng), CURVILINEAR, depth, Format.FAN), rng


def _drawn(number: int) -> object:
    scene, setup, rng = _taken(number)
    return picture(scene, setup, rng)


def _plain(scene: Scene, setup: Setup, rng: Generator) -> npt.NDArray[np.uint8]:
    """The same steps, without boundary echoes, haze and the screen."""
    points, on_screen = _grid(setup)
    labels = label_map(scene, points)
    echo = _of_tissue("echo_db")[labels]
    for name, size in TEXTURES.items():
        echo += _of_tissue(name)[labels] * ndimage.gaussian_filter(rng.standard_normal(labels.shape), size)
    lost = np.cumsum(_of_tissue("loss_db")[labels], axis=0) * setup.depth_mm / SAMPLES / 10
    grain: Complexes = rng.standard_normal((SAMPLES, BEAMS)) + 1j * rng.standard_normal((SAMPLES, BEAMS))
    envelope = np.abs(_convolved(np.asarray(grain * 10 ** ((echo - lost) / 20), np.complex128), setup))
    decibels = 20 * np.log10(ndimage.uniform_filter(envelope, 3) + 1e-6)
    around = ndimage.uniform_filter(decibels, 9)
    shown = ndimage.map_coordinates(around + 0.4 * (decibels - around), on_screen, order=1)
    share = np.argsort(np.argsort(shown)) / shown.size
    return np.asarray(np.clip(50 * -np.log1p(-share), 0, 255), np.uint8)


def _of_tissue(name: str) -> Floats:
    """One property of every tissue."""
    return np.array([getattr(ACOUSTICS[tissue], name) for tissue in Tissue], np.float64)


def _grid(setup: Setup) -> tuple[Points, Floats]:
    """Every sample of every beam, and the fractional sample and beam behind each pixel of the screen."""
    radius, depth_mm = setup.probe.radius_mm, setup.depth_mm
    half = setup.probe.face_mm / (2 * radius)
    depth, angle = np.meshgrid(np.linspace(0, depth_mm, SAMPLES), np.linspace(-half, half, BEAMS), indexing="ij")
    x, z = (radius + depth) * np.sin(angle), (radius + depth) * np.cos(angle) - radius
    height, width = setup.scanner.screen.box[2:]
    across, down = np.meshgrid(np.linspace(x.min(), x.max(), width), np.linspace(z.min(), z.max(), height))
    sample = (np.hypot(across, down + radius) - radius) / depth_mm * (SAMPLES - 1)
    line = (np.arctan2(across, down + radius) / (2 * half) + 0.5) * (BEAMS - 1)
    points = Points(x.astype(np.float32), z.astype(np.float32), radius, depth_mm / SAMPLES)
    return points, np.stack((sample, line))


def _convolved(sound: Complexes, setup: Setup) -> Complexes:
    """The field in zones of depth, each convolved with its own two-dimensional pulse."""
    parts, rows = [], SAMPLES // ZONES
    for zone in range(ZONES):
        away = abs((zone + 0.5) / ZONES - setup.tuning.focus)
        width = setup.tuning.lateral * (1 + setup.tuning.spread * away)
        down, across = np.mgrid[-2:3, -4:5]
        pulse = np.exp(-0.5 * ((down / setup.tuning.axial) ** 2 + (across / width) ** 2))
        parts.append(signal.convolve2d(sound[zone * rows : (zone + 1) * rows], pulse, mode="same"))
    return np.concatenate(parts)
