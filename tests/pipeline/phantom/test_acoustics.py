from dataclasses import replace

import numpy as np
import pytest

from pipeline.phantom.acoustics import MIDDLE_GREY, SOUNDS, Tuning, b_mode
from pipeline.phantom.anatomy import Scene, Tissue

PLAIN = Tuning(
    axial=0.9,
    lateral=1.0,
    spread=1.8,
    focus=0.5,
    looks=1,
    range_db=60,
    gain_db=0,
    fading_db=0,
    noise_db=-80,
)


def block(tissue, below=None, rows=288, beams=192):
    labels = np.full((rows, beams), tissue, np.uint8)
    if below is not None:
        labels[100:140, 60:130] = below
    return labels


def scan(labels, tuning=PLAIN, seed=0, **kwargs):
    scene = Scene(Tissue.LIVER, ())
    return b_mode(labels, scene, tuning, np.random.default_rng(seed), sample_mm=0.4, **kwargs).astype(float)


def db(grey):
    return (grey / 255 - MIDDLE_GREY) * PLAIN.range_db


def test_every_tissue_has_a_sound():
    assert set(SOUNDS) == set(Tissue)


def test_homogeneous_liver_has_the_contrast_of_log_compressed_rayleigh_speckle():
    # The standard deviation of 20 log10 of a Rayleigh amplitude is 5.57 dB, whatever its mean.
    grey = scan(block(Tissue.LIVER))[40:250, 70:120]
    assert db(grey).std() == pytest.approx(5.57, rel=0.15)


def test_compounding_two_looks_smooths_speckle():
    one, two = (scan(block(Tissue.LIVER), replace(PLAIN, looks=looks))[40:250, 70:120].std() for looks in (1, 2))
    assert two == pytest.approx(one * 0.68, rel=0.15)  # mean of two Rayleigh amplitudes: about 3.8 dB


def test_speckle_is_correlated_over_the_pulse_and_not_beyond():
    grey = scan(block(Tissue.LIVER))[100:180, 30:160]
    grey = grey - grey.mean()
    near, far = ((grey[:, :-lag] * grey[:, lag:]).mean() / grey.var() for lag in (1, 12))
    assert near > 0.4
    assert abs(far) < 0.2


def test_a_stone_leaves_a_shadow_and_a_cyst_brightens_what_lies_behind():
    plain, stone, cyst = (
        scan(block(Tissue.LIVER, below))[160:250, 75:115].mean() for below in (None, Tissue.STONE, Tissue.FLUID)
    )
    assert stone < plain - 60
    assert cyst > plain + 4


def test_a_boundary_across_the_beam_answers_and_one_along_it_does_not():
    across, along = block(Tissue.LIVER), block(Tissue.LIVER)
    across[144:], along[:, 96:] = Tissue.DIAPHRAGM, Tissue.DIAPHRAGM
    same = {tissue: SOUNDS[tissue].echo_db for tissue in (Tissue.LIVER, Tissue.DIAPHRAGM)}
    change = ((Tissue.DIAPHRAGM, same[Tissue.LIVER] - same[Tissue.DIAPHRAGM]),)
    scene = Scene(Tissue.LIVER, (), echo_db=change)
    flat = b_mode(across, scene, PLAIN, np.random.default_rng(0), sample_mm=0.4).astype(float)
    upright = b_mode(along, scene, PLAIN, np.random.default_rng(0), sample_mm=0.4).astype(float)
    assert flat[142:147].mean() > flat[100:130].mean() + 25
    assert abs(upright[40:250, 94:99].mean() - upright[40:250, 60:80].mean()) < 12


def test_fading_darkens_depth_by_as_many_decibels_as_it_says():
    lost = scan(block(Tissue.LIVER)) - scan(block(Tissue.LIVER), replace(PLAIN, fading_db=20))
    assert lost[276:286, 60:130].mean() / 255 * 60 == pytest.approx(20 * 281 / 288, abs=1)


def test_the_same_draws_give_the_same_image_and_others_another():
    assert np.array_equal(scan(block(Tissue.LIVER)), scan(block(Tissue.LIVER)))
    assert not np.array_equal(scan(block(Tissue.LIVER)), scan(block(Tissue.LIVER), seed=1))


def test_a_sweeps_speckle_moves_with_the_tissue():
    first, later = scan(block(Tissue.LIVER)), scan(block(Tissue.LIVER), turn=4)
    moved = np.corrcoef(first[100:180, 44:120].ravel(), later[100:180, 40:116].ravel())[0, 1]
    still = np.corrcoef(first[100:180, 44:120].ravel(), later[100:180, 44:120].ravel())[0, 1]
    assert moved > 0.9
    assert abs(still) < 0.3
