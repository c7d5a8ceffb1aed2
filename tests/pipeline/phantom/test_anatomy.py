import numpy as np

from pipeline.phantom.anatomy import (
    Band,
    Both,
    Ellipse,
    Layer,
    Points,
    Rod,
    Scene,
    Tissue,
    Warp,
    class_map,
    drawn_warp,
    label_map,
)
from pipeline.phantom.views import VIEWS


def points_of(pairs, depth=None):
    x, z = (np.array(values, np.float32) for values in zip(*pairs, strict=True))
    return Points(x, z, z if depth is None else np.array(depth, np.float32))


def grid(width, depth, step=0.5):
    x, z = np.meshgrid(np.arange(-width / 2, width / 2, step), np.arange(0, depth, step))
    return Points(x.astype(np.float32), z.astype(np.float32), z.astype(np.float32))


def test_a_turned_ellipse_holds_its_long_axis_end_and_not_beside_it():
    upright = Ellipse(10, 20, 8, 2, np.pi / 2)
    at = points_of([(10, 27.9), (10, 28.1), (12.1, 20), (11.9, 20)])
    assert upright.holds(at.x, at.z).tolist() == [True, False, False, True]


def test_the_area_of_an_ellipse_is_pi_times_its_half_axes():
    at = grid(60, 60, 0.1)
    area = Ellipse(0, 30, 12, 7, 0.4).holds(at.x, at.z).sum() * 0.01
    assert abs(area - np.pi * 12 * 7) < 0.5


def test_a_part_of_an_ellipse_lies_in_the_ellipses_own_axes():
    part = Ellipse(5, 5, 10, 4, np.pi / 2).part(1.0, 0.0, 0.1, 0.1)
    assert np.allclose((part.x, part.z), (5, 15))


def test_a_sloping_band_is_lower_on_the_right():
    at = points_of([(0, 10.5), (10, 10.5), (10, 12.5)])
    assert Band(10, 11, slope=0.2).holds(at.x, at.z).tolist() == [True, False, True]


def test_a_rod_ends_where_it_ends_and_is_as_thick_as_it_says():
    at = points_of([(5, 5), (11, 11), (5, 5.6), (5, 5.8)])
    assert Rod(0, 0, 10, 10, 1.0).holds(at.x, at.z).tolist() == [True, False, True, False]


def test_both_is_what_lies_in_two_shapes():
    at = points_of([(0, 1), (0, 3), (9, 3)])
    assert Both(Ellipse(0, 2, 5, 5), Band(2, 99)).holds(at.x, at.z).tolist() == [False, True, False]


def test_a_later_layer_covers_an_earlier_one_and_the_wall_covers_both():
    everywhere = Band(-99, 99)
    scene = Scene(
        Tissue.FLUID,
        (Layer(everywhere, Tissue.LIVER), Layer(Ellipse(0, 5, 1, 1), Tissue.STONE)),
        wall=(Layer(Band(-99, 2), Tissue.SKIN, "skin"),),
    )
    assert label_map(scene, points_of([(0, 1), (0, 5), (0, 9)])).tolist() == [Tissue.SKIN, Tissue.STONE, Tissue.LIVER]


def test_skin_follows_the_face_of_the_probe_and_a_needle_stays_straight():
    warp = Warp(((3.0, 0.0, 0.0, np.pi / 2, np.pi / 2),))  # everything shifted by 3 mm
    wall = (Layer(Band(0, 2), Tissue.SKIN, "skin"), Layer(Rod(0, 10, 10, 10, 1), Tissue.NEEDLE, "rigid"))
    labels = label_map(Scene(Tissue.LIVER, (), wall, warp), points_of([(0, 50), (5, 10)], depth=[0.5, 10]))
    assert labels.tolist() == [Tissue.SKIN, Tissue.NEEDLE]


def test_classes_outside_the_mapping_are_background():
    labels = np.array([[Tissue.LIVER, Tissue.CORTEX, Tissue.BONE]], np.uint8)
    assert class_map(labels, {Tissue.LIVER: 1, Tissue.CORTEX: 2}).tolist() == [[1, 2, 0]]


def test_a_patients_bending_is_a_few_percent_of_its_size():
    at = grid(100, 100, 2)
    x, z = drawn_warp(np.random.default_rng(3), 100).bent(at)
    assert 0.5 < np.abs(x - at.x).max() < 15
    assert 0.5 < np.abs(z - at.z).max() < 15


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
        scene = VIEWS[name](np.random.default_rng(1), np.random.default_rng(2))
        assert tissue in label_map(scene, grid(110, 130, 1.0)), name


def test_a_patient_keeps_its_organ_from_image_to_image_and_patients_differ():
    def labels(body, pose):
        scene = VIEWS["thyroid_nodule"](np.random.default_rng(body), np.random.default_rng(pose))
        return label_map(scene, grid(40, 35))

    area = [np.sum(labels(body, pose) == Tissue.THYROID) for body, pose in ((1, 1), (1, 2), (2, 1))]
    assert abs(area[0] - area[1]) < abs(area[0] - area[2])
