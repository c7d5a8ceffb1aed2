from dataclasses import replace

import numpy as np
import pytest

from pipeline.phantom.anatomy import Ellipse, Layer, Scene, Tissue
from pipeline.phantom.scanner import AIXPLORER_LIKE, CURVILINEAR, LINEAR_HIGH, LOGIQ_LIKE, THIRD, Setup, picture


def taken(scene, probe=CURVILINEAR, depth=150.0, scanner=AIXPLORER_LIKE, seed=0, turn=0):
    rng = np.random.default_rng(seed)
    return picture(scene, Setup(scanner, scanner.tuned(rng), probe, depth), rng, turn)


LIVER = Scene(Tissue.LIVER, ())


def test_a_linear_probe_shows_a_rectangle_and_a_curvilinear_one_a_sector():
    rectangle = taken(LIVER, LINEAR_HIGH, 40.0).inside
    rows, columns = np.flatnonzero(rectangle.any(1)), np.flatnonzero(rectangle.any(0))
    assert rectangle[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    sector = taken(LIVER).inside.sum(1)
    top, middle = (sector[np.flatnonzero(sector)[int(at * np.count_nonzero(sector))]] for at in (0.1, 0.7))
    assert middle > 1.5 * top


@pytest.mark.parametrize("scanner", [AIXPLORER_LIKE, LOGIQ_LIKE, THIRD])
def test_marks_stand_beside_the_tissue_never_on_it(scanner):
    view = taken(Scene(Tissue.FLUID, ()), scanner=scanner)
    assert view.grey[~view.inside].max() == 255
    assert view.grey[view.inside].mean() < 40
    assert view.inside.shape == view.grey.shape == view.labels.shape == (scanner.screen.height, scanner.screen.width)


def test_an_organs_mask_lies_where_the_organ_is_and_has_its_size():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(0, 70, 30, 20), Tissue.FLUID),))
    view = taken(scene)
    mask = view.mask({Tissue.FLUID: 2})
    assert set(np.unique(mask)) == {0, 2}
    assert np.count_nonzero(mask) * view.pixel_mm**2 == pytest.approx(np.pi * 30 * 20, rel=0.02)
    row, column = (np.flatnonzero(mask.any(axis)).mean() for axis in (1, 0))
    sagitta = 60 * (1 - np.cos(62 / 2 / 60))
    assert (row - view.origin[0]) * view.pixel_mm == pytest.approx(70 + sagitta, abs=1)
    assert (column - view.origin[1]) * view.pixel_mm == pytest.approx(0, abs=1)


def test_what_a_mask_marks_is_what_the_image_shows():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(10, 70, 30, 20), Tissue.FLUID),))
    view = taken(scene)
    fluid = view.mask({Tissue.FLUID: 1}).astype(bool)
    assert view.grey[fluid].mean() < 0.5 * view.grey[view.inside & ~fluid].mean()


def test_a_mask_ends_where_the_beams_end():
    view = taken(LIVER)
    assert np.array_equal(view.mask({Tissue.LIVER: 1}).astype(bool), view.inside)


def test_sliding_a_linear_probe_by_half_its_beams_moves_the_picture_by_half_its_face():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(0, 20, 3, 3), Tissue.FLUID),))
    still, moved = (taken(scene, LINEAR_HIGH, 40.0, turn=turn).mask({Tissue.FLUID: 1}) for turn in (0, 48))
    centres = [np.flatnonzero(mask.any(0)).mean() for mask in (still, moved)]
    pixel = taken(scene, LINEAR_HIGH, 40.0).pixel_mm
    assert (centres[0] - centres[1]) * pixel == pytest.approx(50 / 4, abs=0.3)


def test_rocking_a_curvilinear_probe_turns_the_picture_about_the_curves_centre():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(0, 90, 6, 6), Tissue.FLUID),))
    view = taken(scene, turn=24)
    mask = view.mask({Tissue.FLUID: 1})
    angle = 62 / 60 * 24 / 192
    column = (np.flatnonzero(mask.any(0)).mean() - view.origin[1]) * view.pixel_mm
    assert column == pytest.approx(-(60 + 90) * np.sin(angle), abs=1)


def test_scanners_tune_within_their_ranges():
    for seed in range(20):
        tuning = replace(LOGIQ_LIKE, looks=2).tuned(np.random.default_rng(seed))
        assert LOGIQ_LIKE.gain_db[0] <= tuning.gain_db <= LOGIQ_LIKE.gain_db[1]
        assert 0 <= tuning.focus <= 1
