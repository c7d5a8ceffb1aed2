import numpy as np
import pytest

from pipeline.phantom.anatomy import (
    Band,
    Ellipse,
    Layer,
    Points,
    Scene,
    Tissue,
    Tube,
    Warp,
    bumps,
    class_map,
    label_map,
    random_warp,
)
from pipeline.phantom.organs import drain
from pipeline.phantom.views import VIEWS


def grid(width, depth, step=0.5, radius=0.0):
    x, z = np.meshgrid(np.arange(-width / 2, width / 2, step), np.arange(0, depth, step))
    return Points(x.astype(np.float32), z.astype(np.float32), radius, step)


def painted(shape, width=60, depth=60, step=0.25, **layer):
    """The region of a shape, and the points for which it was painted."""
    points = grid(width, depth, step)
    return label_map(Scene(Tissue.LIVER, (Layer(shape, Tissue.FLUID, **layer),)), points) == Tissue.FLUID, points


def nearest(mask, points, x, z):
    return bool(mask.ravel()[np.argmin((points.x - x) ** 2 + (points.z - z) ** 2)])


def test_a_turned_ellipse_holds_its_long_axis_end_and_not_beside_it():
    mask, points = painted(Ellipse(10, 20, 8, 2, np.pi / 2))
    held = [nearest(mask, points, *at) for at in ((10, 27.4), (10, 28.6), (12.6, 20), (11.4, 20))]
    assert held == [True, False, False, True]


def test_the_area_of_an_ellipse_is_pi_times_its_half_axes():
    mask, _ = painted(Ellipse(0, 30, 12, 7, 0.4), step=0.1)
    assert mask.sum() * 0.01 == pytest.approx(np.pi * 12 * 7, rel=0.03)


def test_bumps_change_an_outline_but_hardly_its_size():
    smooth, _ = painted(Ellipse(0, 30, 12, 7))
    dented, _ = painted(Ellipse(0, 30, 12, 7, bumps=bumps(np.random.default_rng(0), 0.2)))
    assert np.mean(smooth != dented) > 0.01
    assert dented.sum() == pytest.approx(smooth.sum(), rel=0.2)


def test_a_part_of_an_ellipse_is_placed_along_the_ellipses_axes():
    part = Ellipse(5, 5, 10, 4, np.pi / 2).part(1.0, 0.0, 0.1, 0.1)
    assert np.allclose((part.x, part.z), (5, 15))


def test_a_sloping_band_is_lower_on_the_right():
    mask, points = painted(Band(10, 12, slope=0.2))
    assert [nearest(mask, points, *at) for at in ((0, 11), (20, 11), (20, 15))] == [True, False, True]


def test_a_tube_has_its_stated_ends_and_thickness():
    mask, points = painted(Tube(((0, 10, 4), (20, 10, 4))))
    held = [nearest(mask, points, *at) for at in ((10, 11.5), (10, 12.6), (19, 10), (21, 10), (-1, 10))]
    assert held == [True, False, True, False, False]


def test_a_layer_within_a_shape_is_the_intersection():
    mask, points = painted(Band(20, 99), within=Ellipse(0, 20, 8, 8))
    assert [nearest(mask, points, *at) for at in ((0, 17), (0, 24), (12, 24))] == [False, True, False]


def test_a_later_layer_covers_an_earlier_one_and_the_wall_covers_both():
    everywhere = Band(-99, 99)
    scene = Scene(
        Tissue.FLUID,
        (Layer(everywhere, Tissue.LIVER), Layer(Ellipse(0, 5, 2, 1), Tissue.STONE)),
        wall=(Layer(Band(-99, 2), Tissue.SKIN, "skin"),),
    )
    points = grid(20, 20)
    labels = label_map(scene, points)
    at = [labels[np.argmin(np.abs(points.z[:, 0] - z)), 20] for z in (1, 5, 9)]
    assert at == [Tissue.SKIN, Tissue.STONE, Tissue.LIVER]


def test_skin_follows_the_curved_face_of_the_probe():
    scene = Scene(Tissue.LIVER, (), (Layer(Band(0, 4), Tissue.SKIN, "skin"),))
    points = grid(60, 30, radius=60.0)
    depth = np.hypot(points.x, points.z + 60) - 60
    skin = label_map(scene, points) == Tissue.SKIN
    assert skin[(depth > 0.7) & (depth < 3.3)].all()
    assert not skin[(depth < -0.7) | (depth > 4.7)].any()


def test_the_body_bends_while_a_needle_stays_straight():
    warp = Warp(((3.0, 0.0, 0.0, np.pi / 2, np.pi / 2),))  # everything shifted by 3 mm to the right and down
    organ, stiff = Layer(Ellipse(0, 20, 4, 4), Tissue.FLUID), Layer(Ellipse(0, 40, 4, 4), Tissue.NEEDLE, "rigid")
    points = grid(60, 60)
    labels = label_map(Scene(Tissue.LIVER, (organ, stiff), warp=warp), points)
    centres = [(points.x[labels == t].mean(), points.z[labels == t].mean()) for t in (Tissue.FLUID, Tissue.NEEDLE)]
    assert np.allclose(centres, ((3, 23), (0, 40)), atol=0.5)


def test_classes_outside_the_mapping_are_background():
    labels = np.array([[Tissue.LIVER, Tissue.CORTEX, Tissue.BONE]], np.uint8)
    assert class_map(labels, {Tissue.LIVER: 1, Tissue.CORTEX: 2}).tolist() == [[1, 2, 0]]


def test_a_patients_bending_is_a_few_percent_of_its_size():
    corners = np.random.default_rng(0).uniform(0, 100, (500, 2)).astype(np.float32)
    moved = random_warp(np.random.default_rng(3), 100).apply(corners, np.ones(500, np.float32))
    assert (np.abs(moved - corners).max(0) > 0.5).all()
    assert (np.abs(moved - corners).max(0) < 15).all()


def test_every_view_shows_the_organ_it_is_named_for():
    signs = {
        "liver": Tissue.LIVER,
        "liver_lesion": Tissue.LIVER_LESION,
        "kidney_view": Tissue.SINUS,
        "transplant": Tissue.CORTEX,
        "morison": Tissue.PYRAMID,
        "ascites": Tissue.FLUID,
        "collection": Tissue.DEBRIS,
        "cholecystostomy": Tissue.STONE,
        "effusion": Tissue.CONSOLIDATED_LUNG,
        "aerated_lung": Tissue.PLEURA,
        "thyroid": Tissue.THYROID,
        "thyroid_nodule": Tissue.THYROID,
        "lymph_node": Tissue.LYMPH_NODE,
        "soft_tissue_mass": Tissue.LYMPH_NODE,
        "abscess": Tissue.DEBRIS,
        "pseudoaneurysm": Tissue.BLOOD,
        "shoulder": Tissue.BONE,
    }
    assert set(signs) == set(VIEWS)
    for name, tissue in signs.items():
        shown = [
            tissue
            in label_map(VIEWS[name](np.random.default_rng(n), np.random.default_rng([n, 2])), grid(110, 130, 1.0))
            for n in range(20)
        ]
        assert np.mean(shown) > 0.4, name


def test_a_patient_keeps_its_organ_from_image_to_image_and_patients_differ():
    def labels(body, pose):
        scene = VIEWS["thyroid_nodule"](np.random.default_rng(body), np.random.default_rng(pose))
        return label_map(scene, grid(40, 35))

    area = [np.sum(labels(body, pose) == Tissue.THYROID) for body, pose in ((1, 1), (1, 2), (2, 1))]
    assert abs(area[0] - area[1]) < abs(area[0] - area[2])


@pytest.mark.parametrize(
    ("name", "tissues"),
    [
        ("aerated_lung", (Tissue.COMET, Tissue.REVERBERATION, Tissue.BONE)),
        ("collection", (Tissue.DRAIN,)),
        ("kidney_view", (Tissue.RENAL_CYST, Tissue.LIVER)),
        ("abscess", (Tissue.DRAIN,)),
        ("liver", (Tissue.BONE, Tissue.CORTEX)),
        ("ascites", (Tissue.GAS, Tissue.LIVER)),
        ("lymph_node", (Tissue.HILUM,)),
    ],
)
def test_a_view_shows_some_things_in_some_images_alone(name, tissues):
    def shown(number):
        scene = VIEWS[name](np.random.default_rng(number), np.random.default_rng([number, 1]))
        return set(np.unique(label_map(scene, GRID)).tolist())

    seen = [shown(number) for number in range(30)]
    for tissue in tissues:
        assert 1 <= sum(tissue in one for one in seen) < 30, tissue


GRID = grid(110, 150, 1.0)


def test_a_drain_is_a_tube_with_fluid_in_it():
    wall, lumen = drain(np.random.default_rng(0), (0.0, 40.0), 3.0)
    points = grid(80, 60, 0.25)
    labels = label_map(Scene(Tissue.FAT, (wall, lumen)), points)
    outer, inner = (np.isin(labels, tissues).sum() for tissues in ((Tissue.DRAIN, Tissue.FLUID), (Tissue.FLUID,)))
    assert 0.3 < inner / outer < 0.6
