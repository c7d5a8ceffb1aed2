"""The phantom's grey levels and speckle compared with real pictures, which are not part of the repository.

Pictures are cropped to their tissue and scaled to 384 pixels on the longer side. Speckle is measured in a picture's six
blocks of 32 x 32 pixels with the smallest change of smoothed grey, after subtracting a polynomial of second degree.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from scipy import ndimage, optimize, special

from benchmarks.measure import Figure
from pipeline.dicom.crop import crop_frame, crop_region_of_frame
from pipeline.phantom.scanner import (
    AIXPLORER_LIKE,
    CURVILINEAR,
    LINEAR_HIGH,
    LOGIQ_LIKE,
    THIRD,
    Scanner,
    Setup,
    picture,
)
from pipeline.phantom.views import VIEWS

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

WIDTH, BLOCK, BLOCKS, PICTURES = 384, 32, 6, 30
SHARES = np.linspace(0.01, 0.99, 99)
ASSUMED_DB = 60.0  # range of 256 grey levels, to convert speckle back into an envelope
DEEP, SHALLOW = (
    ("liver", "liver_lesion", "morison", "kidney_view"),
    ("thyroid", "thyroid_nodule", "lymph_node", "abscess"),
)


@dataclass(frozen=True)
class Look:
    """Statistics of a set of pictures: mean quantiles of grey (SHARES), and medians over blocks of speckle.

    `along`, `across`: lag in pixels at which speckle's autocorrelation falls to a half. `deviation`, `skewness`: of
    grey.
    """

    quantiles: Floats
    along: float
    across: float
    deviation: float
    skewness: float

    @property
    def nakagami(self) -> float:
        """Shape m of a Nakagami envelope whose logarithm deviates as much, 256 levels being ASSUMED_DB; 1: Rayleigh."""
        decibels = self.deviation * ASSUMED_DB / 255
        return float(optimize.brentq(lambda m: 10 / np.log(10) * special.polygamma(1, m) ** 0.5 - decibels, 0.05, 1e4))


def figures(archive: Path) -> list[Figure]:
    """Figures for every source of a folder of real pictures, and for the phantom's scanners, deep and shallow views."""
    looks = {source.name: look(_real(source)) for source in sorted(archive.iterdir()) if source.is_dir()}
    real = np.mean([one.quantiles for one in looks.values()], axis=0)
    for scanner in (AIXPLORER_LIKE, LOGIQ_LIKE, THIRD):
        for name, views in (("deep", DEEP), ("shallow", SHALLOW)):
            looks[f"phantom, {scanner.model}, {name}"] = look(_drawn(scanner, views))
    return [Figure(name, _told(one, real)) for name, one in looks.items()]


def look(pictures: Iterable[tuple[Grey, npt.NDArray[np.bool_]]]) -> Look:
    """The statistics of a set of pictures (grey, insonated)."""
    quantiles, blocks = [], []
    for grey, inside in pictures:
        large, lit = _enlarged(grey, inside)
        quantiles.append(np.quantile(large[lit], SHARES))
        blocks += [_speckle(block) for block in _quiet(large, lit)]
    return Look(np.mean(quantiles, axis=0), *np.median(blocks, axis=0))


def _told(one: Look, real: Floats) -> str:
    """The statistics as text; the distance is Wasserstein's between mean quantiles, in grey levels."""
    levels = "/".join(f"{one.quantiles[at]:.0f}" for at in (4, 24, 49, 74, 94))
    return (
        f"grey at 5/25/50/75/95 %: {levels}; distance {np.abs(one.quantiles - real).mean():.1f}; "
        f"speckle {one.along:.1f} × {one.across:.1f} px, ± {one.deviation:.1f}, "
        f"skewness {one.skewness:+.2f}, m {one.nakagami:.0f}"
    )


def _real(source: Path) -> Iterator[tuple[Grey, npt.NDArray[np.bool_]]]:
    """PICTURES of a source, from different patients as far as possible."""
    rng, patients = random.Random(0), sorted(source.iterdir())
    for number in range(PICTURES):
        files = sorted(patients[number * max(1, len(patients) // PICTURES) % len(patients)].glob("*.dcm"))
        grey = pydicom.dcmread(rng.choice(files)).pixel_array
        area = crop_region_of_frame(grey, (), None)
        cut = crop_frame(grey, area)
        yield cut, np.ones(cut.shape, np.bool_) if area.inside is None else area.inside


def _drawn(scanner: Scanner, views: tuple[str, ...]) -> Iterator[tuple[Grey, npt.NDArray[np.bool_]]]:
    for number in range(PICTURES):
        rng = np.random.default_rng([2, number])
        scene = VIEWS[views[number % len(views)]](rng, rng)
        probe = CURVILINEAR if views is DEEP else LINEAR_HIGH
        view = picture(
            scene, Setup(scanner, scanner.random_tuning(rng), probe, float(rng.choice(probe.depths_mm))), rng
        )
        top, left, height, width = view.box
        inside = view.inside[top : top + height, left : left + width]
        yield view.grey[top : top + height, left : left + width] * inside, inside


def _enlarged(grey: Grey, inside: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    scale = WIDTH / max(grey.shape)
    size = round(grey.shape[1] * scale), round(grey.shape[0] * scale)
    large = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
    lit = Image.fromarray(inside.astype(np.uint8) * np.uint8(255)).resize(size)
    return np.asarray(large, np.float64), np.asarray(lit) == 255


def _quiet(grey: Floats, lit: npt.NDArray[np.bool_]) -> Iterator[Floats]:
    """The blocks of a picture with the smallest change of smoothed grey, neither black nor bright."""
    smooth, half = ndimage.gaussian_filter(grey, 6), BLOCK // 2
    unrest = ndimage.uniform_filter(ndimage.gaussian_gradient_magnitude(grey, 6), BLOCK)
    usable = ndimage.minimum_filter(lit, BLOCK, mode="constant") & (smooth > 25) & (smooth < 150)
    unrest[~usable] = np.inf
    for _ in range(BLOCKS):
        row, column = np.unravel_index(np.argmin(unrest), unrest.shape)
        if np.isinf(unrest[row, column]):
            return
        yield grey[row - half : row + half, column - half : column + half]
        unrest[max(0, row - BLOCK) : row + BLOCK, max(0, column - BLOCK) : column + BLOCK] = np.inf


def _speckle(block: Floats) -> tuple[float, float, float, float]:
    """Correlation along and across the beams, deviation and skewness of a block without its trend."""
    row, column = (grid.ravel() / BLOCK for grid in np.mgrid[: block.shape[0], : block.shape[1]])
    terms = np.stack((np.ones_like(row), row, column, row * row, row * column, column * column), -1)
    rest = (block.ravel() - terms @ np.linalg.lstsq(terms, block.ravel(), rcond=None)[0]).reshape(block.shape)
    spread = float(rest.std()) + 1e-9
    return _half_lag(rest, 0), _half_lag(rest, 1), spread, float((rest**3).mean()) / spread**3


def _half_lag(rest: Floats, axis: int) -> float:
    """The lag, in fractions of a pixel, at which the autocorrelation falls to a half."""
    size, before = rest.shape[axis], 1.0
    for lag in range(1, size // 2):
        later, sooner = np.take(rest, range(lag, size), axis), np.take(rest, range(size - lag), axis)
        now = float((later * sooner).mean()) / (float((rest * rest).mean()) + 1e-9)
        if now < 0.5:
            return float(lag - 1 + (before - 0.5) / (before - now))
        before = now
    return float(size) / 2
