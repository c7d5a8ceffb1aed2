import numpy as np
import pytest

from pipeline.phantom.textures import (
    BANK,
    SIDE,
    STEPS,
    cells,
    clouds,
    fibres,
    lobules,
    powers,
    read,
    scatterers,
    window,
)


def test_scatterers_and_noise_have_unit_power():
    field = scatterers().astype(float)
    assert (field[:, ::2] ** 2 + field[:, 1::2] ** 2).mean() == pytest.approx(1, rel=0.01)
    assert powers().mean() == pytest.approx(1, rel=0.01)


def test_a_window_slides_over_the_same_scatterers():
    still, moved = (window(scatterers(), (20, 30), np.random.default_rng(0), turn, wide=2) for turn in (0, 3))
    assert np.array_equal(still[:, 6:], moved[:, :-6])


def test_windows_of_every_draw_are_within_the_field():
    for seed in range(200):
        assert window(powers(), (288, 192), np.random.default_rng(seed), turn=12).shape == (288, 192)
    assert powers().shape == (BANK, BANK)


@pytest.mark.parametrize("field", [clouds, lobules, fibres])
def test_a_field_repeats_without_a_seam(field):
    rows = np.arange(2 * SIDE, dtype=np.float32)
    column = read(field(), cells(rows, np.full_like(rows, 7)), grain=0).astype(int)
    assert np.array_equal(column[:SIDE], column[SIDE:])
    steps = np.abs(np.diff(column))
    assert steps[SIDE - 1] <= steps.max()


def test_a_patients_grain_chooses_another_place():
    z, x = np.mgrid[:40, :40].astype(np.float32)
    one, again, other = (read(clouds(), cells(z, x), grain) for grain in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_every_point_of_a_field_can_be_read_for_any_grain():
    corner = cells(np.float32([SIDE - 1, -1]), np.float32([SIDE - 1, -1]))
    for grain in (0, 1, 12345, (1 << 20) + 2):
        assert read(fibres(), corner, grain).shape == (2,)


def test_fibres_are_longer_than_thick_and_lobules_have_bright_walls():
    strands = fibres()[:SIDE, :SIDE].astype(float)
    strands -= strands.mean()
    down, across = ((strands * np.roll(strands, 12, axis)).mean() / strands.var() for axis in (0, 1))
    assert across > 2 * abs(down)
    walls = lobules()[:SIDE, :SIDE] / STEPS
    assert np.median(walls) < 0.1
    assert walls.max() > 0.9
