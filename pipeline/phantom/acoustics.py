"""From a label map on the beams' grid to an ultrasound image on it: speckle, reflections, attenuation, compression.

Belongs here: what sound does, per tissue and along a beam. Not here: organs' shapes, probes' geometry, the screen.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from pipeline.phantom.anatomy import Bytes, Floats, Scene, Tissue

Complexes = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Sound:
    """How a tissue sounds.

    `echo_db`: strength of its speckle, liver = 0. `loss_db`: attenuation in dB per cm (both ways) beyond what the
    scanner's time-gain compensation takes back; negative makes what lies behind brighter. `impedance`: relative;
    differences reflect. `clumps`: slow variation of its echo, dB. `strands`: layered variation of its echo, dB.
    """

    echo_db: float
    loss_db: float
    impedance: float
    clumps: float = 1.0
    strands: float = 0.0


T = Tissue
SOUNDS: dict[Tissue, Sound] = {
    T.SKIN: Sound(3, 0.5, 1.02, 2.0),
    T.FAT: Sound(-9, 0.3, 0.93, 3.0, 4.0),
    T.MUSCLE: Sound(-8, 0.3, 1.02, 2.0, 6.5),
    T.FASCIA: Sound(4, 0.5, 1.06, 3.0),
    T.LIVER: Sound(0, 0.1, 1.00, 1.2),
    T.LIVER_VEIN: Sound(-34, -1.0, 0.99),
    T.PORTAL_WALL: Sound(7, 0.1, 1.03, 3.0),
    T.LIVER_LESION: Sound(-8, 0.2, 1.01, 2.0),
    T.CORTEX: Sound(-5, 0.0, 1.00, 1.2),
    T.PYRAMID: Sound(-13, 0.0, 0.99),
    T.SINUS: Sound(10, 0.4, 1.04, 4.0),
    T.CAPSULE: Sound(3, 0.2, 1.06),
    T.PERIRENAL_FAT: Sound(3, 0.4, 0.97, 3.0, 2.0),
    T.DIAPHRAGM: Sound(10, 0.3, 1.2, 3.0),
    T.MIRROR: Sound(-9, 1.2, 1.00, 3.0),
    T.BONE: Sound(8, 260.0, 1.5),
    T.GAS: Sound(10, 60.0, 0.5, 6.0),
    T.PLEURA: Sound(16, 2.0, 0.80),
    T.AIR_FILLED_LUNG: Sound(-13, 1.0, 0.82, 4.0),
    T.REVERBERATION: Sound(1, 0.0, 0.83, 3.0),
    T.CONSOLIDATED_LUNG: Sound(-1, 0.3, 0.99, 4.0),
    T.FLUID: Sound(-42, -1.1, 0.98),
    T.DEBRIS: Sound(-19, -0.4, 0.985, 5.0),
    T.BOWEL: Sound(-3, 0.9, 0.98, 6.0, 2.0),
    T.BOWEL_WALL: Sound(1, 0.4, 1.02),
    T.STONE: Sound(14, 200.0, 1.5),
    T.THYROID: Sound(4, 0.2, 1.01, 1.0),
    T.BLOOD: Sound(-36, -0.5, 0.99),
    T.ARTERY_WALL: Sound(2, 0.3, 1.05),
    T.CARTILAGE: Sound(-10, 1.5, 1.12),
    T.NODULE: Sound(-9, 0.3, 1.00, 2.5),
    T.NODULE_HALO: Sound(-15, 0.2, 0.99),
    T.NODULE_CORE: Sound(2, 0.2, 1.00, 3.0),
    T.NODULE_CYST: Sound(-40, -1.2, 0.98),
    T.NODULE_CALCIUM: Sound(16, 12.0, 1.20),
    T.LYMPH_NODE: Sound(-13, 0.1, 0.99, 1.5),
    T.HILUM: Sound(3, 0.3, 1.02, 2.0),
    T.NEEDLE: Sound(24, 2.0, 1.40),
}

REFLECTION = 26.0  # amplitude of an echo, speckle of liver = 1, per unit of impedance difference
MIDDLE_GREY = 0.42  # grey of liver at 0 dB gain, white = 1
DEEPEST_LOSS_DB = 40.0  # beyond it, scattered sound fills a shadow


@dataclass(frozen=True)
class Tuning:
    """How a scanner turns echoes into grey.

    `axial`, `lateral`: standard deviation of the pulse at its sharpest, in samples and in beams. `spread`: by how much
    the pulse is wider away from the focus. `focus`: depth of the focus as a share of the image's depth. `looks`: images
    averaged (compounding). `range_db`: dynamic range shown. `fading_db`: what the deepest sample lacks after time-gain
    compensation. `noise_db`: electronic noise at the deepest sample.
    """

    axial: float
    lateral: float
    spread: float
    focus: float
    looks: int
    range_db: float
    gain_db: float
    fading_db: float
    noise_db: float


def b_mode(labels: Bytes, scene: Scene, tuning: Tuning, rng: Generator, *, sample_mm: float, turn: int = 0) -> Bytes:
    """The grey image (samples × beams, uint8) that a scanner makes of a label map of the same shape.

    Samples are `sample_mm` apart. `turn` slides the tissue's grain by so many beams, so that frames of a sweep share
    their speckle.
    Speckle is fully developed (complex Gaussian scatterers); the pulse is taken at baseband, so no carrier shows.
    """
    grain = _grain(labels.shape, tuning.looks, rng, turn)
    spectrum = np.asarray(np.fft.fft2(grain[0]), np.complex64)
    echo_db = _echo_db(labels, scene, sample_mm, spectrum) + _coupling_db(labels.shape, tuning, rng)
    reflected = _reflections(labels, spectrum)
    amplitude = 10 ** (echo_db / 20)
    lost = 10 ** (_lost_db(labels, sample_mm) / -20)
    sound = (grain * amplitude + reflected) * lost
    envelope = np.abs(_focused(np.asarray(sound, np.complex64), tuning)).mean(0)
    return _compressed(envelope, tuning, rng)


def _of_tissue(name: str) -> Floats:
    """One property of every tissue, in the order of `Tissue`."""
    return np.array([getattr(SOUNDS[tissue], name) for tissue in Tissue], np.float32)


def _grain(shape: tuple[int, ...], looks: int, rng: Generator, turn: int) -> Complexes:
    """Unit complex scatterers, looks × samples × beams."""
    parts = rng.standard_normal((looks, *shape, 2), np.float32).view(np.complex64)[..., 0] * np.float32(0.7071)
    return np.asarray(np.roll(parts, -turn, axis=-1), np.complex64)


def _echo_db(labels: Bytes, scene: Scene, sample_mm: float, spectrum: Complexes) -> Floats:
    """Strength of each sample's scatterers, dB: its tissue's, with clumps and strands a few millimetres apart."""
    echo = _of_tissue("echo_db")
    for tissue, change in scene.echo_db:
        echo[tissue] += change
    slow = _texture(spectrum, 2.4 / sample_mm**0.5, 5)
    layered = _texture(spectrum, 0.55 / sample_mm**0.5, 26)
    return np.asarray(
        echo[labels] + _of_tissue("clumps")[labels] * slow + _of_tissue("strands")[labels] * layered, np.float32
    )


def _lost_db(labels: Bytes, sample_mm: float) -> Floats:
    """What each beam has lost on its way to each sample, dB, beyond the time-gain compensation."""
    loss = _of_tissue("loss_db") * np.float32(sample_mm / 10)
    return np.asarray(np.clip(np.cumsum(loss[labels], axis=0, dtype=np.float32), -12, DEEPEST_LOSS_DB), np.float32)


def _coupling_db(shape: tuple[int, ...], tuning: Tuning, rng: Generator) -> Floats:
    """Sound lost to depth, and to poor contact of some beams with the skin, dB; samples × beams."""
    depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    beam = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
    edge = np.clip(beam * rng.choice((-1.0, 1.0)) - rng.uniform(0.3, 1.3), 0, 1) * rng.uniform(0, 40)
    ripple = 1.2 * np.sin(beam * rng.uniform(2, 6) + rng.uniform(0, 6))
    return np.asarray(ripple - edge - tuning.fading_db * depth, np.float32)


def _texture(spectrum: Complexes, down: float, across: float) -> Floats:
    """A smooth random field of unit variance, correlated over `down` samples and `across` beams."""
    field = np.fft.ifft2(spectrum * _gaussian(spectrum.shape, down, across)).real
    return np.asarray(field / field.std(), np.float32)


def _reflections(labels: Bytes, spectrum: Complexes) -> Floats:
    """Mirror-like echoes where impedance changes along the beam; oblique and rough boundaries answer less."""
    impedance = _of_tissue("impedance")[labels]
    down = np.zeros(labels.shape, np.float32)
    across = np.zeros(labels.shape, np.float32)
    down[1:-1] = impedance[2:] - impedance[:-2]
    across[:, 2:-2] = impedance[:, 4:] - impedance[:, :-4]
    facing = down * down / (down * down + 1.5 * across * across + 1e-6)
    rough = np.clip(0.5 + 0.5 * _texture(spectrum, 2, 4), 0.05, 2)
    return np.asarray(REFLECTION * np.abs(down) * facing * rough, np.float32)


def _focused(sound: Complexes, tuning: Tuning) -> Complexes:
    """The scatterers seen through a pulse that is sharp at the focus and wider above and below it."""
    spectrum = np.fft.fft2(sound)
    shape = sound.shape[-2:]
    sharp = np.fft.ifft2(spectrum * _pulse(shape, tuning.axial, tuning.lateral))
    wide = np.fft.ifft2(spectrum * _pulse(shape, 1.25 * tuning.axial, tuning.spread * tuning.lateral))
    depth = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    blur = np.clip(np.abs(depth - tuning.focus) / max(tuning.focus, 1 - tuning.focus), 0, 1)
    return np.asarray(sharp * np.sqrt(1 - blur) + wide * np.sqrt(blur), np.complex64)


@lru_cache(maxsize=64)
def _gaussian(shape: tuple[int, ...], down: float, across: float) -> Floats:
    """Transfer function of a Gaussian with the given standard deviations in samples and beams."""
    rows, columns = (np.fft.fftfreq(size).astype(np.float32) for size in shape)
    return np.asarray(np.exp(-2 * np.pi**2 * ((down * rows[:, None]) ** 2 + (across * columns[None]) ** 2)), np.float32)


@lru_cache(maxsize=64)
def _pulse(shape: tuple[int, ...], down: float, across: float) -> Floats:
    """A Gaussian pulse of unit energy, so that liver's speckle keeps its strength whatever the pulse's size."""
    transfer = _gaussian(shape, down, across)
    return np.asarray(transfer / np.sqrt(np.mean(transfer**2)), np.float32)


def _compressed(envelope: Floats, tuning: Tuning, rng: Generator) -> Bytes:
    """Log compression to 8 bits, with electronic noise that grows with depth as the gain does."""
    depth = np.linspace(-1, 0, envelope.shape[0], dtype=np.float32)[:, None]
    noise = 10 ** ((tuning.noise_db + 30 * depth) / 20)
    power = envelope**2 + noise**2 * rng.standard_exponential(envelope.shape, np.float32)
    grey = MIDDLE_GREY + (10 * np.log10(power + 1e-12) + tuning.gain_db) / tuning.range_db
    return np.asarray(np.clip(grey, 0, 1) * 255 + 0.5, np.uint8)
