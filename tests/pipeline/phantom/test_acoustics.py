from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pipeline.phantom.acoustics import ACOUSTICS, Beams, Tuning, echoes
from pipeline.phantom.anatomy import Points, Scene, Tissue

PLAIN = Tuning(
    axial=0.7, lateral=0.8, spread=1.5, focus=0.5, smooth=0.0, fading_db=0, noise_db=-80, haze_db=80
)  # as near to bare sound as can be
ROWS, BEAMS = 288, 192


def block(tissue, below=None):
    labels = np.full((ROWS, BEAMS), tissue, np.uint8)
    if below is not None:
        labels[100:140, 60:130] = below
    return labels


def beams(sample_mm=0.4):
    z, x = np.meshgrid(np.arange(ROWS) * sample_mm, np.arange(BEAMS) * 0.3, indexing="ij")
    z, x = z.astype(np.float32), x.astype(np.float32)
    return Beams(Points(x, z), z, sample_mm)


def scan(labels, tuning=PLAIN, seed=0, scene=None, turn=0):
    """Echoes in dB, without what coupling to the skin does in every image another way."""
    rng = Still(seed)
    return echoes(labels, scene or Scene(Tissue.LIVER, ()), tuning, rng, beams(), turn=turn).astype(float)


class Still:
    """Draws places of grain as a generator does, and the middle of every range for all else."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def integers(self, *args):
        return self.generator.integers(*args)

    def uniform(self, low, high):
        return 0.0 if low == 0 else (low + high) / 2

    def choice(self, values):
        return values[0]


def within_liver(decibels):
    """A block of liver, its slow texture taken away."""
    patch = decibels[60:230, 60:130]
    return patch - ndimage.uniform_filter(patch, 41)


def test_every_tissue_has_a_sound():
    assert set(ACOUSTICS) == set(Tissue)


def test_homogeneous_liver_has_the_spread_of_log_compressed_rayleigh_speckle():
    # The standard deviation of 20 log10 of a Rayleigh amplitude is 5.57 dB, regardless of its mean; its skewness is
    # -1.14.
    speckle = within_liver(scan(block(Tissue.LIVER)))
    assert speckle.std() == pytest.approx(5.57, rel=0.1)
    assert (speckle**3).mean() / speckle.std() ** 3 == pytest.approx(-1.14, abs=0.25)


def test_compounding_smooths_speckle():
    one, smooth = (within_liver(scan(block(Tissue.LIVER), replace(PLAIN, smooth=s))).std() for s in (0, 1))
    assert smooth < 0.75 * one


def lag_of_half(decibels, axis):
    patch = within_liver(decibels)
    patch = patch - patch.mean()
    for lag in range(1, 20):
        a, b = np.take(patch, range(lag, patch.shape[axis]), axis), np.take(patch, range(patch.shape[axis] - lag), axis)
        if (a * b).mean() < 0.5 * patch.var():
            return lag
    return 20


def test_a_wider_pulse_makes_coarser_speckle_across_and_a_longer_one_along():
    fine, wide, long = (
        scan(block(Tissue.LIVER), replace(PLAIN, **change)) for change in ({}, {"lateral": 2.4}, {"axial": 2.0})
    )
    assert lag_of_half(wide, 1) > lag_of_half(fine, 1)
    assert lag_of_half(long, 0) > lag_of_half(fine, 0)


def test_speckle_is_coarser_away_from_the_focus():
    shallow = scan(block(Tissue.LIVER), replace(PLAIN, focus=0.2, spread=3.0))
    near, far = (shallow[rows] - ndimage.uniform_filter(shallow[rows], 25) for rows in (np.s_[30:90], np.s_[200:260]))

    def together(patch):
        return np.corrcoef(patch[:, 20:150].ravel(), patch[:, 22:152].ravel())[0, 1]

    assert together(far) > together(near) + 0.2


def test_a_stone_leaves_a_shadow_and_a_cyst_brightens_deeper_tissue():
    plain, stone, cyst = (
        scan(block(Tissue.LIVER, below))[160:250, 75:115].mean() for below in (None, Tissue.STONE, Tissue.FLUID)
    )
    assert stone < plain - 15
    assert cyst > plain + 1


def test_a_cysts_flank_bends_sound_away():
    plain, cyst = (scan(block(Tissue.LIVER, below)) for below in (None, Tissue.FLUID))
    beside = (cyst - plain)[145:250]
    assert beside[:, 58:62].mean() < beside[:, 80:110].mean() - 0.5


def test_a_boundary_across_the_beam_answers_and_one_along_it_does_not():
    across, along = block(Tissue.LIVER), block(Tissue.LIVER)
    across[144:], along[:, 96:] = Tissue.DIAPHRAGM, Tissue.DIAPHRAGM
    change = ((Tissue.DIAPHRAGM, ACOUSTICS[Tissue.LIVER].echo_db - ACOUSTICS[Tissue.DIAPHRAGM].echo_db),)
    scene = Scene(Tissue.LIVER, (), echo_db=change)
    flat, upright = scan(across, scene=scene), scan(along, scene=scene)
    assert flat[142:147].mean() > flat[100:130].mean() + 6
    assert upright[40:250, 94:99].mean() < upright[40:250, 60:80].mean() + 1


def test_fading_loses_the_stated_decibels():
    lost = scan(block(Tissue.LIVER)) - scan(block(Tissue.LIVER), replace(PLAIN, fading_db=20))
    assert lost[276:286, 60:130].mean() == pytest.approx(20 * 281 / 288, abs=0.5)


def test_haze_fills_fluid_below_the_tissue_around_it():
    labels = block(Tissue.LIVER, Tissue.FLUID)
    clear, hazy = (scan(labels, replace(PLAIN, haze_db=haze))[110:130, 70:120].mean() for haze in (80, 15))
    tissue = scan(labels)[110:130, 10:50].mean()
    assert clear + 8 < hazy < tissue - 8


def test_the_same_draws_give_the_same_image_and_others_another():
    assert np.array_equal(scan(block(Tissue.LIVER)), scan(block(Tissue.LIVER)))
    assert not np.array_equal(scan(block(Tissue.LIVER)), scan(block(Tissue.LIVER), seed=1))


def test_a_sweeps_speckle_moves_with_the_tissue():
    first, later = (within_liver(scan(block(Tissue.LIVER), turn=turn)) for turn in (0, 4))
    moved = np.corrcoef(first[:, 4:].ravel(), later[:, :-4].ravel())[0, 1]
    still = np.corrcoef(first.ravel(), later.ravel())[0, 1]
    assert moved > 0.9
    assert abs(still) < 0.3
