"""Echo strength in dB of a label map on the beams' grid: speckle, reflections, attenuation."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.random import Generator

from pipeline.phantom import textures
from pipeline.phantom.anatomy import Bytes, Floats, Indices, Points, Scene, Tissue


@dataclass(frozen=True)
class Acoustics:
    """Acoustic properties of a tissue.

    `echo_db`: strength of its speckle, liver = 0. `loss_db`: attenuation in dB per cm (both ways) beyond the scanner's
    time-gain compensation; a negative value brightens deeper tissue. `impedance`: relative; differences reflect.
    `clouds`, `lobules`, `fibres`: amplitude of each texture in its echo, dB.
    """

    echo_db: float
    loss_db: float
    impedance: float
    clouds: float = 1.5
    lobules: float = 0.0
    fibres: float = 0.0


T = Tissue
ACOUSTICS: dict[Tissue, Acoustics] = {
    T.SKIN: Acoustics(6, 0.8, 1.02, 2.0),
    T.FAT: Acoustics(-12, 0.4, 0.96, 2.5, 15.0, 7.0),
    T.MUSCLE: Acoustics(-14, 0.4, 1.01, 2.0, 2.0, 20.0),
    T.FASCIA: Acoustics(-6, 0.4, 1.05, 6.0, 0.0, 9.0),
    T.LIVER: Acoustics(0, 0.2, 1.00, 1.4, 1.5),
    T.LIVER_VEIN: Acoustics(-26, -0.6, 0.99, 3.0),
    T.PORTAL_WALL: Acoustics(7, 0.1, 1.03, 3.0),
    T.LIVER_LESION: Acoustics(-7, 0.2, 1.005, 3.0, 3.0),
    T.CORTEX: Acoustics(-5, 0.1, 1.00, 1.5),
    T.PYRAMID: Acoustics(-11, 0.0, 0.995, 2.0),
    T.SINUS: Acoustics(7, 0.4, 1.03, 4.0, 4.0),
    T.RENAL_CYST: Acoustics(-34, -0.7, 0.98, 4.0),
    T.CAPSULE: Acoustics(-4, 0.2, 1.06, 5.0),
    T.PERIRENAL_FAT: Acoustics(0, 0.5, 0.98, 3.0, 6.0, 3.0),
    T.DIAPHRAGM: Acoustics(3, 0.3, 1.18, 5.0),
    T.MIRROR: Acoustics(-9, 1.6, 1.00, 3.5),
    T.BONE: Acoustics(8, 200.0, 1.4, 4.0),
    T.GAS: Acoustics(11, 45.0, 0.6, 6.0),
    T.PLEURA: Acoustics(15, 2.0, 0.80, 4.0),
    T.AIR_FILLED_LUNG: Acoustics(-10, 1.4, 0.82, 3.5, 0.0, 3.0),
    T.REVERBERATION: Acoustics(-1, 0.0, 0.83, 4.0),
    T.COMET: Acoustics(1, 0.6, 0.82, 3.0),
    T.CONSOLIDATED_LUNG: Acoustics(-1, 0.4, 0.99, 4.0, 4.0),
    T.FLUID: Acoustics(-38, -0.7, 0.98, 4.0),
    T.DEBRIS: Acoustics(-17, -0.2, 0.99, 6.0),
    T.BOWEL: Acoustics(-6, 0.8, 0.99, 6.0, 6.0),
    T.BOWEL_WALL: Acoustics(-3, 0.5, 1.03, 4.0),
    T.STONE: Acoustics(14, 160.0, 1.4),
    T.THYROID: Acoustics(0, 0.3, 1.01, 1.6, 1.5),
    T.BLOOD: Acoustics(-32, -0.4, 0.99, 4.0),
    T.ARTERY_WALL: Acoustics(-2, 0.3, 1.05, 4.0),
    T.CARTILAGE: Acoustics(-12, 2.0, 1.10, 3.0),
    T.NODULE: Acoustics(-8, 0.3, 1.005, 3.0, 3.0),
    T.NODULE_HALO: Acoustics(-13, 0.2, 0.995, 3.0),
    T.NODULE_CORE: Acoustics(1, 0.2, 1.00, 3.5, 2.5),
    T.NODULE_CYST: Acoustics(-32, -0.8, 0.98, 4.0),
    T.NODULE_CALCIUM: Acoustics(14, 12.0, 1.15),
    T.LYMPH_NODE: Acoustics(-12, 0.1, 0.995, 2.5),
    T.HILUM: Acoustics(1, 0.3, 1.01, 3.0, 4.0),
    T.NEEDLE: Acoustics(20, 1.0, 1.30, 3.0),
    T.DRAIN: Acoustics(6, 1.0, 1.15, 3.0),
}

REFLECTION = 27.0  # amplitude of an echo, speckle of liver = 1, per unit of impedance difference
DEEPEST_LOSS_DB = 34.0  # scattered sound fills darker shadows
EDGE_LOSS_DB = 2.0  # lost per sample at a boundary along the beam, which refracts it, per unit of impedance difference
LATERAL_TAPS = 4
REACH = 40  # samples above and below that contribute haze


@dataclass(frozen=True)
class Tuning:
    """A scanner's resolution and its settings in one examination.

    `axial`, `lateral`: standard deviation of the pulse at its sharpest, in samples and in beams. `spread`: widening of
    the pulse away from the focus. `focus`: depth of the focus as a share of the image's depth. `smooth`: smoothing of
    speckle by compounding and persistence, 0 to 1. `fading_db`: loss at the deepest sample after time-gain
    compensation. `noise_db`: electronic noise at the deepest sample. `haze_db`: clutter from the near field's
    reverberations and from side lobes, below the mean of its depth.
    """

    axial: float
    lateral: float
    spread: float
    focus: float
    smooth: float
    fading_db: float
    noise_db: float
    haze_db: float


@dataclass(frozen=True, eq=False)
class Beams:
    """The grid of echoes: every sample of every beam as points, samples `sample_mm` apart."""

    points: Points
    depth: Floats
    sample_mm: float

    @cached_property
    def body_cells(self) -> Indices:
        """Cells of textures that are fixed to the body."""
        scale = np.float32(1 / (1.1 * self.sample_mm))
        return textures.cells(self.points.z * scale, self.points.x * scale)


@lru_cache(maxsize=64)
def _fibre_cells(beams: Beams, slope: float) -> Indices:
    """Cells of textures along the skin, or at a slope to it."""
    scale = np.float32(1 / (1.1 * beams.sample_mm))
    across = beams.points.x * scale
    return textures.cells(beams.depth * scale + np.float32(slope) * across, across)


def echoes(labels: Bytes, scene: Scene, tuning: Tuning, rng: Generator, beams: Beams, *, turn: int = 0) -> Floats:
    """Echoes in dB (samples × beams) of a label map of the same shape, with liver's mean near 0.

    `turn` shifts the tissue's grain by that number of beams, so that frames of a sweep share their speckle.
    Speckle is fully developed (complex Gaussian scatterers); the pulse is taken at baseband, so no carrier shows.
    """
    grain = textures.window(textures.scatterers(), labels.shape, rng, turn, wide=2)
    reflected, bent_away = _boundaries(labels)
    lost = _lost_db(labels, bent_away, beams.sample_mm) + _coupling_db(labels.shape, tuning, rng)
    sound = np.repeat(_decibels(_echo_db(labels, scene, beams) - lost), 2, axis=1)
    sound *= grain
    # Echoes along a boundary are in phase: they add to one part of the complex numbers.
    sound[:, ::2] += reflected * _decibels(-lost)
    parts = _apply_pulse(sound, tuning)
    parts *= parts
    power = parts[:, ::2] + parts[:, 1::2]
    power += _clutter(power, tuning) * textures.window(textures.powers(), labels.shape, rng)
    return np.asarray(10 * np.log10(_smooth_speckle(power, tuning.smooth) + np.float32(1e-9)), np.float32)


@lru_cache(maxsize=16)
def _property_of_tissues(name: str) -> Floats:
    """One property of every tissue, in the order of `Tissue`."""
    return np.array([getattr(ACOUSTICS[tissue], name) for tissue in Tissue], np.float32)


def _decibels(values: Floats) -> Floats:
    """Amplitudes of values in dB."""
    return np.asarray(np.exp2(values * np.float32(np.log2(10) / 20)), np.float32)


def _echo_db(labels: Bytes, scene: Scene, beams: Beams) -> Floats:
    """Strength of each sample's scatterers in dB, with its tissue's textures."""
    table = _property_of_tissues("echo_db").copy()
    for tissue, change in scene.echo_db:
        table[tissue] += change
    echo = table[labels]
    in_body, along_skin = beams.body_cells, _fibre_cells(beams, round(scene.fibres, 1))
    fields = (
        ("clouds", textures.clouds, in_body),
        ("lobules", textures.lobules, in_body),
        ("fibres", textures.fibres, along_skin),
    )
    for number, (name, field, cells) in enumerate(fields):
        strength = _property_of_tissues(name) / np.float32(textures.STEPS)
        echo += strength[labels] * textures.read(field(), cells, scene.grain + number)
    return echo


def _boundaries(labels: Bytes) -> tuple[Floats, Floats]:
    """Specular echoes of impedance changes along the beam, and the changes across the beam, which refract it.

    Oblique boundaries reflect less.
    """
    impedance = _property_of_tissues("impedance")[labels]
    down, across = np.zeros(labels.shape, np.float32), np.zeros(labels.shape, np.float32)
    np.subtract(impedance[2:], impedance[:-2], out=down[1:-1])
    np.subtract(impedance[:, 4:], impedance[:, :-4], out=across[:, 2:-2])
    squared, aside = down * down, across * across
    facing = squared / (squared + 1.5 * aside + np.float32(1e-6))
    return np.asarray(np.float32(REFLECTION) * np.abs(down) * facing, np.float32), np.abs(across)


def _lost_db(labels: Bytes, bent_away: Floats, sample_mm: float) -> Floats:
    """Loss of each beam on its way to each sample, dB, beyond the time-gain compensation."""
    loss = (_property_of_tissues("loss_db") * np.float32(sample_mm / 10))[labels]
    loss += np.float32(EDGE_LOSS_DB) * bent_away
    return np.clip(np.cumsum(loss, axis=0, dtype=np.float32), -10, DEEPEST_LOSS_DB)


def _coupling_db(shape: tuple[int, ...], tuning: Tuning, rng: Generator) -> Floats:
    """Loss by depth, and by poor contact of some beams with the skin, dB; samples × beams."""
    depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    beam = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
    edge = np.clip(beam * rng.choice((-1.0, 1.0)) - rng.uniform(0.4, 1.4), 0, 1) * rng.uniform(0, 40)
    ripple = 1.5 * np.sin(beam * rng.uniform(2, 9) + rng.uniform(0, 6))
    uneven = rng.uniform(0, 2.5) * np.sin(depth * rng.uniform(3, 12) + rng.uniform(0, 6))
    return np.asarray(np.float32(tuning.fading_db) * depth + uneven + (edge - ripple), np.float32)


def _apply_pulse(sound: Floats, tuning: Tuning) -> Floats:
    """The scatterers (samples × 2 · beams) convolved with the pulse: sharp at the focus, wider above and below it."""
    taps = np.exp(-0.5 * (np.arange(3) / tuning.axial) ** 2)
    taps = (taps / np.sqrt(taps[0] ** 2 + 2 * (taps[1:] ** 2).sum())).astype(np.float32)
    axial = sound * taps[0]
    for reach in (1, 2):
        part = sound * taps[reach]
        axial[reach:] += part[:-reach]
        axial[:-reach] += part[reach:]
    weights = _lateral(sound.shape[0], tuning.lateral, tuning.spread, tuning.focus)
    out = np.asarray(axial * weights[0], np.float32)
    for reach in range(1, LATERAL_TAPS + 1):
        part = axial * weights[reach]
        out[:, 2 * reach :] += part[:, : -2 * reach]
        out[:, : -2 * reach] += part[:, 2 * reach :]
    return out


@lru_cache(maxsize=256)
def _lateral(rows: int, sharpest: float, spread: float, focus: float) -> Floats:
    """Weights of a beam and its neighbours, per sample, of unit energy: (1 + LATERAL_TAPS, rows, 1)."""
    depth = np.linspace(0, 1, rows)
    away = np.abs(depth - focus) / max(focus, 1 - focus)
    width = sharpest * (1 + (spread - 1) * away)
    weights = np.exp(-0.5 * (np.arange(LATERAL_TAPS + 1)[:, None] / width) ** 2)
    energy = weights[0] ** 2 + 2 * (weights[1:] ** 2).sum(0)
    return np.asarray((weights / np.sqrt(energy))[..., None], np.float32)


def _clutter(power: Floats, tuning: Tuning) -> Floats:
    """Mean power of haze and electronic noise per depth, samples × 1."""
    depth = np.linspace(-1, 0, len(power), dtype=np.float32)[:, None]
    noise = 10 ** ((tuning.noise_db + 25 * depth) / 10)
    nearer = 8 * np.exp(-10 * (depth + 1))
    level = np.minimum(power[:, ::4], 4).mean(1)
    around = np.convolve(np.pad(level, REACH, mode="edge"), np.hanning(2 * REACH + 1) / REACH, mode="valid")
    haze = around[:, None] * 10 ** ((nearer - tuning.haze_db) / 10)
    return np.asarray(noise + haze, np.float32)


def _smooth_speckle(power: Floats, smooth: float) -> Floats:
    """Speckle smoothed over neighbouring samples and beams, as by compounding and persistence."""
    beside = np.float32(0.33 * smooth)
    for rows, beams in ((1, 0), (0, 1)):
        later, sooner = power[rows:, beams:], power[: -rows or None, : -beams or None]
        out = power * (1 - 2 * beside)
        out[rows:, beams:] += sooner * beside
        out[: -rows or None, : -beams or None] += later * beside
        power = out
    return power
