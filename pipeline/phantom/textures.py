"""Periodic random fields for the grain of all images: scatterers, clouds, lobules, fibres.

They are made once, from a seed of their own, and each image takes a window: a field per image would cost more than all
the rest.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

Floats = npt.NDArray[np.float32]
Steps = npt.NDArray[np.int8]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int32]
Transfer = Callable[[Doubles, Doubles], Doubles]

SIDE = 512  # of the fields of texture, which repeat
STEPS = 31  # of a field, per unit
BANK = 1024  # side of the field of scatterers
_STRIDE = 2 * SIDE + 16  # of a field that is tiled; a power of two would crowd the processor's cache
_SEED = 20200807


@lru_cache(maxsize=1)
def scatterers() -> Floats:
    """Complex Gaussian scatterers of unit power, real and imaginary parts alternating: (BANK, 2 · BANK)."""
    parts = np.random.default_rng(_SEED).standard_normal((BANK, 2 * BANK), np.float32)
    return np.asarray(parts * np.float32(0.5**0.5), np.float32)


@lru_cache(maxsize=1)
def powers() -> Floats:
    """The power of electronic noise, mean 1: (BANK, BANK)."""
    return np.random.default_rng(_SEED + 1).standard_exponential((BANK, BANK), np.float32)


def window(field: Floats, shape: tuple[int, ...], rng: Generator, turn: int = 0, wide: int = 1) -> Floats:
    """A window of `field`, samples × beams of `wide` numbers, at a random position, shifted by `turn` beams."""
    rows, beams = shape
    row, column = int(rng.integers(BANK - rows)), int(rng.integers(128, BANK - beams - 128)) + turn % 128
    return field[row : row + rows, wide * column : wide * (column + beams)]


@lru_cache(maxsize=1)
def clouds() -> Steps:
    """Slow variation of echo in all directions, mean 0, deviation 1."""
    return _tile(_field(0, lambda down, across: (down**2 + across**2 + (1 / 90) ** 2) ** -0.8))


@lru_cache(maxsize=1)
def lobules() -> Steps:
    """A net of thin bright walls around dark lobules, wider than high; 0 to 1."""
    return _tile(np.maximum(_walls(1, 15, 34, 0.16), np.float32(0.7) * _walls(2, 9, 22, 0.13)))


@lru_cache(maxsize=1)
def fibres() -> Steps:
    """Long thin bright strands of varied strength; 0 to 1, mostly near 0."""
    fine = np.exp(1.1 * _band(3, 2.0, 22)).clip(0, 9) / 9
    return _tile(np.maximum(fine, _walls(4, 8, 90, 0.16) * np.clip(0.5 + 0.5 * _band(5, 30, 30), 0, 1)))


def read(field: Steps, cells: Indices, grain: int) -> Steps:
    """The field at `cells`, shifted by an offset that depends on `grain`; in steps of 1 / STEPS."""
    return field.ravel()[grain * 7919 % SIDE * _STRIDE + grain * 104729 % SIDE :][cells]


def cells(down: Floats, across: Floats) -> Indices:
    """Indices into a field of points given in its cells."""
    row, column = (np.floor(values).astype(np.int32) & (SIDE - 1) for values in (down, across))
    return row * np.int32(_STRIDE) + column


def _tile(field: Floats) -> Steps:
    """The field tiled twice in both directions as bytes, so that a window of SIDE x SIDE may begin anywhere."""
    steps = np.clip(np.round(field * STEPS), -127, 127).astype(np.int8)
    return np.ascontiguousarray(np.tile(steps, (2, 3))[:, :_STRIDE])


def _band(number: int, down: float, across: float) -> Floats:
    """A Gaussian field, correlated over `down` and `across` cells."""
    return _field(number, lambda v, u: np.exp(-2 * np.pi**2 * ((down * v) ** 2 + (across * u) ** 2)))


def _walls(number: int, down: float, across: float, thickness: float) -> Floats:
    """Closed curves along the zeros of a Gaussian field."""
    return np.asarray(np.exp(-((_band(number, down, across) / thickness) ** 2)), np.float32)


def _field(number: int, transfer: Transfer) -> Floats:
    """A periodic Gaussian field of unit deviation with the given transfer function of frequencies per cell."""
    noise = np.random.default_rng([_SEED, number]).standard_normal((SIDE, SIDE))
    frequency = np.asarray(np.fft.fftfreq(SIDE), np.float64)
    down, across = frequency[:, None], frequency[None]
    gain = transfer(down, across)
    gain[0, 0] = 0
    field = np.fft.ifft2(np.fft.fft2(noise) * gain).real
    return np.asarray(field / field.std(), np.float32)
