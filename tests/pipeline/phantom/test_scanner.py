from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.phantom.anatomy import Ellipse, Layer, Scene, Tissue
from pipeline.phantom.scanner import (
    AIXPLORER_LIKE,
    BEAMS,
    CURVILINEAR,
    LINEAR_HIGH,
    LOGIQ_LIKE,
    STEERED,
    THIRD,
    Format,
    Setup,
    picture,
)
from pipeline.phantom.views import VIEWS


def taken(scene, probe=CURVILINEAR, depth=150.0, scanner=AIXPLORER_LIKE, seed=0, turn=0, shape=Format.FAN):
    rng = np.random.default_rng(seed)
    return picture(scene, Setup(scanner, scanner.random_tuning(rng), probe, depth, shape), rng, turn)


LIVER = Scene(Tissue.LIVER, ())
PROBES = ((CURVILINEAR, 150.0), (LINEAR_HIGH, 40.0))


def lit_corners(view):
    """Which corners of the box the beams reach: upper left, upper right, lower left, lower right."""
    top, left, height, width = view.box
    inside = view.inside[top : top + height, left : left + width]
    return [bool(inside[row, column]) for row in (2, -3) for column in (2, -3)]


@pytest.mark.parametrize(("probe", "depth"), PROBES)
def test_the_corners_of_the_picture_show_its_format_and_not_the_probe(probe, depth):
    assert lit_corners(taken(LIVER, probe, depth, shape=Format.BOX)) == [True] * 4
    assert lit_corners(taken(LIVER, probe, depth, shape=Format.WIDENING)) == [False, False, True, True]
    assert lit_corners(taken(LIVER, probe, depth, shape=Format.FAN)) == [False] * 4


@pytest.mark.parametrize(("probe", "depth"), PROBES)
def test_without_a_format_each_is_as_frequent_for_any_probe(probe, depth):
    lit = [sum(lit_corners(taken(LIVER, probe, depth, seed=seed, shape=None))) for seed in range(60)]
    assert min(lit.count(n) for n in (0, 2, 4)) > 10


def test_a_linear_probe_shows_a_rectangle_and_a_curvilinear_one_a_sector():
    rectangle = taken(LIVER, LINEAR_HIGH, 40.0, shape=Format.BOX).inside
    rows, columns = np.flatnonzero(rectangle.any(1)), np.flatnonzero(rectangle.any(0))
    assert rectangle[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    sector = taken(LIVER).inside.sum(1)
    top, middle = (sector[np.flatnonzero(sector)[int(at * np.count_nonzero(sector))]] for at in (0.1, 0.7))
    assert middle > 1.5 * top


def test_a_linear_probes_beams_fan_out_by_as_much_as_they_are_steered():
    inside = taken(LIVER, LINEAR_HIGH, 40.0, shape=Format.FAN).inside
    rows = np.flatnonzero(inside.any(1))[5:-80]
    left = np.array([np.flatnonzero(inside[row])[0] for row in rows])
    slope = np.polyfit(rows, left, 1)[0]
    assert slope == pytest.approx(-np.tan(STEERED), rel=0.05)


@pytest.mark.parametrize("scanner", [AIXPLORER_LIKE, LOGIQ_LIKE, THIRD])
@pytest.mark.parametrize("shape", list(Format))
def test_marks_stand_beside_the_tissue_never_on_it(scanner, shape):
    view = taken(LIVER, scanner=scanner, shape=shape)
    other = taken(LIVER, scanner=scanner, shape=shape, seed=1)
    beside = ~view.inside
    assert np.array_equal(view.grey[beside], other.grey[beside])
    assert view.grey[beside].max() == 255
    top, left, height, width = view.box
    box = np.zeros_like(view.inside)
    box[top : top + height, left : left + width] = True
    assert not view.grey[box & beside].any()
    assert view.inside.shape == view.grey.shape == view.labels.shape == (scanner.screen.height, scanner.screen.width)


def grey_levels(view):
    return np.quantile(view.grey[view.inside], np.linspace(0.05, 0.95, 10))


def test_grey_levels_follow_the_drawn_curve_for_any_content():
    # The same draws, other contents: a view of fluid and one of liver differ in structure, not in their histogram.
    fluid, liver = (VIEWS[name](np.random.default_rng(1), np.random.default_rng(2)) for name in ("ascites", "liver"))
    views = [taken(scene, seed=5) for scene in (fluid, liver)]
    assert np.allclose(*(grey_levels(view) for view in views), atol=2)
    assert np.corrcoef(*(view.grey[view.inside] for view in views))[0, 1] < 0.6
    other = grey_levels(taken(liver, seed=6))
    assert np.abs(other - grey_levels(views[1])).max() > 5


def test_the_scanners_look_different():
    means = {s.model: np.mean([taken(LIVER, scanner=s, seed=n).grey.std() for n in range(4)]) for s in SCANNERS}
    speckle = {s.model: np.mean([roughness(taken(LIVER, scanner=s, seed=n)) for n in range(4)]) for s in SCANNERS}
    assert len({round(value) for value in means.values()}) > 1
    assert max(speckle.values()) > 1.15 * min(speckle.values())


SCANNERS = (AIXPLORER_LIKE, LOGIQ_LIKE, THIRD)


def roughness(view):
    """Mean step between neighbouring pixels over mean level."""
    both = view.inside[:, 1:] & view.inside[:, :-1]
    return np.abs(np.diff(view.grey.astype(float), axis=1))[both].mean() / view.grey[view.inside].mean()


def test_an_organs_mask_has_the_position_and_size_of_the_organ():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(0, 70, 30, 20), Tissue.FLUID),))
    view = taken(scene)
    mask = view.mask({Tissue.FLUID: 2})
    assert set(np.unique(mask)) == {0, 2}
    assert np.count_nonzero(mask) * view.pixel_mm**2 == pytest.approx(np.pi * 30 * 20, rel=0.02)
    row, column = (np.flatnonzero(mask.any(axis)).mean() for axis in (1, 0))
    assert (row - view.origin[0]) * view.pixel_mm == pytest.approx(70, abs=1)
    assert (column - view.origin[1]) * view.pixel_mm == pytest.approx(0, abs=1)


def test_a_mask_marks_the_structures_in_the_image():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(10, 70, 30, 20), Tissue.FLUID),))
    view = taken(scene)
    fluid = view.mask({Tissue.FLUID: 1}).astype(bool)
    assert view.grey[fluid].mean() < 0.5 * view.grey[view.inside & ~fluid].mean()


def test_a_mask_ends_at_the_end_of_the_beams():
    view = taken(LIVER)
    assert np.array_equal(view.mask({Tissue.LIVER: 1}).astype(bool), view.inside)


def test_sliding_a_linear_probe_by_half_its_beams_moves_the_picture_by_half_its_face():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(0, 20, 3, 3), Tissue.FLUID),))
    still, moved = (
        taken(scene, LINEAR_HIGH, 40.0, turn=turn, shape=Format.BOX).mask({Tissue.FLUID: 1}) for turn in (0, BEAMS // 4)
    )
    centres = [np.flatnonzero(mask.any(0)).mean() for mask in (still, moved)]
    pixel = taken(scene, LINEAR_HIGH, 40.0, shape=Format.BOX).pixel_mm
    assert (centres[0] - centres[1]) * pixel == pytest.approx(50 / 4, abs=0.3)


def test_rocking_a_curvilinear_probe_turns_the_picture_about_the_curves_centre():
    scene = Scene(Tissue.LIVER, (Layer(Ellipse(0, 90, 6, 6), Tissue.FLUID),))
    view = taken(scene, turn=24)
    mask = view.mask({Tissue.FLUID: 1})
    angle = 62 / 60 * 24 / BEAMS
    column = (np.flatnonzero(mask.any(0)).mean() - view.origin[1]) * view.pixel_mm
    assert column == pytest.approx(-(60 + 90) * np.sin(angle), abs=1)


def test_scanners_tune_within_their_ranges():
    for seed in range(20):
        tuning = LOGIQ_LIKE.random_tuning(np.random.default_rng(seed))
        assert LOGIQ_LIKE.smooth[0] <= tuning.smooth <= LOGIQ_LIKE.smooth[1]
        assert 0 <= tuning.focus <= 1


def test_two_threads_make_the_same_bytes_as_one():
    def one(number):
        name = list(VIEWS)[number % len(VIEWS)]
        scene = VIEWS[name](np.random.default_rng(number), np.random.default_rng([number, 1]))
        return taken(scene, seed=number, shape=None).grey.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(24))) == [one(number) for number in range(24)]
