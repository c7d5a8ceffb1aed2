"""Views of the body that an examination shows: which scene a probe sees over the liver, the neck, the chest.

Belongs here: one function per view, from a patient's and an image's random draws to a scene. Not here: single organs
and shapes (anatomy.py), which study shows which view.
"""

from collections.abc import Callable
from dataclasses import replace

from numpy.random import Generator

from pipeline.phantom.anatomy import (
    Band,
    Both,
    Ellipse,
    Layer,
    Scene,
    Tissue,
    body_wall,
    drawn_warp,
    kidney,
    liver_vessels,
    needle,
    nodule,
    rib,
)

T = Tissue
NODULE_KINDS = ("solid", "solid", "halo", "cystic", "mixed")
ViewOf = Callable[[Generator, Generator], Scene]
"""A view of a patient: `body` draws what stays the same for the patient, `pose` what changes per image."""


def liver(body: Generator, pose: Generator) -> Scene:
    """Liver filling the sector, with vessels, diaphragm and lung's mirror image behind it, sometimes a gallbladder."""
    depth = body.uniform(105, 140) + pose.normal(0, 8)
    slope, bend = pose.normal(0.0, 0.15), -body.uniform(0.002, 0.004)
    layers = [
        *liver_vessels(body, pose, depth, int(body.integers(6, 11))),
        Layer(Band(depth, 999, slope, bend), T.MIRROR),
        Layer(Band(depth, depth + 2.5, slope, bend), T.DIAPHRAGM),
    ]
    if body.random() < 0.3:
        layers += _gallbladder(Ellipse(pose.normal(15, 12), pose.uniform(50, 75), 22, 10, pose.normal(0.6, 0.3)))
    if pose.random() < 0.3:
        layers.append(rib(pose.choice((-1, 1)) * pose.uniform(22, 30), 20, 6))
    return _abdominal(tuple(layers), T.LIVER, body, ((T.LIVER, body.normal(0, 2.5)),))


def liver_lesion(body: Generator, pose: Generator) -> Scene:
    """A liver with one to three focal lesions."""
    scene = liver(body, pose)
    spots = []
    for _ in range(int(body.integers(1, 4))):
        size = body.uniform(7, 17)
        x, z = body.uniform(-28, 28) + pose.normal(0, 5), body.uniform(35, 85) + pose.normal(0, 4)
        spots.append(Layer(Ellipse(x, z, size, size * body.uniform(0.7, 1.0)), T.LIVER_LESION))
    change = (T.LIVER_LESION, float(body.choice((0.0, 12.0))))
    return replace(scene, layers=(*spots, *scene.layers), echo_db=(*scene.echo_db, change))


def kidney_view(body: Generator, pose: Generator) -> Scene:
    """A kidney in its fat behind the muscles of the back."""
    outline = _kidney_outline(body, pose, pose.normal(0, 10), pose.normal(62, 7))
    layers = (
        Layer(Band(outline.z + 34, 999, pose.normal(0, 0.1)), T.BOWEL),
        Layer(outline.grown(7), T.PERIRENAL_FAT),
        *kidney(outline, body),
    )
    return _abdominal(layers, T.MUSCLE, body, (), muscle=body.uniform(10, 18))


def transplant(body: Generator, pose: Generator) -> Scene:
    """A transplanted kidney, shallow in the iliac fossa."""
    outline = _kidney_outline(body, pose, pose.normal(0, 8), pose.normal(44, 4))
    bladder = Ellipse(pose.normal(40, 8), 80, 26, 18)
    layers = (Layer(bladder.grown(2), T.BOWEL_WALL), Layer(bladder, T.FLUID), *kidney(outline, body))
    return _abdominal(layers, T.BOWEL, body, ())


def morison(body: Generator, pose: Generator) -> Scene:
    """Liver, right kidney and their interface: Morison's pouch."""
    side = float(pose.choice((-1.0, 1.0)))
    return morison_at(body, pose, x=side * pose.uniform(0, 34), z=pose.uniform(66, 96), side=side)


def morison_at(body: Generator, pose: Generator, *, x: float, z: float, side: float) -> Scene:
    """Morison's pouch with the kidney's centre at (x, z) mm, right (`side` 1) or left (-1) of the liver's bulk."""
    outline = replace(_kidney_outline(body, pose, x, z), angle=side * pose.uniform(0.05, 0.6))
    bulk = x - side * pose.uniform(32, 56), z - pose.uniform(28, 38)
    reach = Ellipse(*bulk, pose.uniform(68, 92), pose.uniform(36, 46), side * pose.uniform(0.1, 0.5))
    layers = (
        Layer(Band(z + 36, 999, pose.normal(0, 0.1)), T.MUSCLE),
        Layer(reach.grown(1.2), T.CAPSULE),
        Layer(reach, T.LIVER),
        *[replace(vessel, shape=Both(vessel.shape, reach)) for vessel in liver_vessels(body, pose, 0.7 * z, 6)],
        Layer(outline.grown(3.0), T.PERIRENAL_FAT),
        *kidney(outline, body),
    )
    changes = ((T.LIVER, body.normal(0, 2.0)), (T.CORTEX, body.normal(0, 1.5)))
    return _abdominal(layers, T.BOWEL, body, changes)


def ascites(body: Generator, pose: Generator) -> Scene:
    """Free fluid with floating bowel."""
    floor = pose.uniform(85, 115)
    layers = [Layer(Band(floor, 999, pose.normal(0, 0.2)), T.BOWEL)]
    for _ in range(int(pose.integers(3, 7))):
        x, z = pose.uniform(-50, 50), floor - pose.uniform(-8, 35)
        loop = Ellipse(x, z, pose.uniform(9, 17), pose.uniform(8, 13), pose.uniform(-0.5, 0.5))
        layers += [Layer(loop, T.BOWEL_WALL), Layer(loop.grown(-2.2), T.BOWEL)]
        if pose.random() < 0.5:
            layers.append(Layer(loop.part(0, -0.35, 0.5, 0.16), T.GAS))
    if body.random() < 0.35:
        edge = Ellipse(pose.choice((-1, 1)) * 62, 52, 44, 30, 0.3)
        layers += [Layer(edge.grown(1.2), T.CAPSULE), Layer(edge, T.LIVER)]
    return _abdominal(tuple(layers), T.FLUID, body, ())


def collection(body: Generator, pose: Generator) -> Scene:
    """An abdominal or pelvic collection with debris between loops of bowel with gas."""
    pocket = Ellipse(
        pose.normal(0, 12), pose.uniform(48, 80), body.uniform(22, 36), body.uniform(14, 24), pose.normal()
    )
    level = Band(pocket.z + 4, 999)
    layers = [Layer(pocket.grown(3), T.BOWEL_WALL), Layer(pocket, T.FLUID)]
    layers += [Layer(_within(pocket, pose, 0.5, (0.35, 0.3)), T.DEBRIS) for _ in range(4)]
    layers += [Layer(Both(pocket, level), T.DEBRIS)] if body.random() < 0.6 else []
    for _ in range(4):
        x = pose.choice((-1, 1)) * pose.uniform(30, 62)
        layers.append(Layer(Ellipse(x, pose.uniform(35, 90), pose.uniform(6, 13), 3), T.GAS))
    return _abdominal(tuple(layers), T.BOWEL, body, ())


def cholecystostomy(body: Generator, pose: Generator) -> Scene:
    """A distended gallbladder with stones in front of the liver."""
    scene = liver(body, pose)
    bladder = Ellipse(
        pose.normal(0, 9), pose.uniform(48, 66), body.uniform(32, 42), body.uniform(14, 19), pose.normal()
    )
    stones = [Layer(bladder.part(pose.uniform(-0.5, 0.5), 0.7, 0.14, 0.2), T.STONE) for _ in range(2)]
    return replace(scene, layers=(*scene.layers, *_gallbladder(bladder), *stones))


def effusion(body: Generator, pose: Generator) -> Scene:
    """Fluid in the chest above the diaphragm, with collapsed lung and ribs' shadows."""
    side = float(pose.choice((-1.0, 1.0)))
    dome = Ellipse(side * pose.uniform(60, 85), pose.uniform(85, 120), 62, 56)
    lung = Ellipse(-side * pose.uniform(15, 45), pose.uniform(75, 105), 34, 16, side * pose.uniform(0.3, 1.0))
    layers = [
        Layer(Band(pose.uniform(125, 145), 999, 0, -0.002), T.MIRROR),
        Layer(lung, T.CONSOLIDATED_LUNG),
        Layer(lung.part(-0.2, 0.5, 0.7, 0.12), T.GAS),
        Layer(dome.grown(2.2), T.DIAPHRAGM),
        Layer(dome, T.LIVER),
    ]
    middle = pose.uniform(-14, 14)
    ribs = tuple(rib(middle + step, 20, pose.uniform(5, 7)) for step in (-30.0, 30.0))
    return _chest(tuple(layers), T.FLUID, body, ribs)


def aerated_lung(body: Generator, pose: Generator) -> Scene:
    """Aerated lung: a bright pleura, its reverberations below, ribs' shadows."""
    pleura = body.uniform(22, 30)
    layers = [Layer(Band(n * pleura, n * pleura + 1.4), T.REVERBERATION, "skin") for n in range(2, 6)]
    layers.append(Layer(Band(pleura, pleura + 1.5), T.PLEURA, "skin"))
    middle = pose.uniform(-16, 16)
    ribs = tuple(rib(middle + step, pleura - 6, pose.uniform(5, 8)) for step in (-32.0, 0.0, 32.0))
    return _chest(tuple(layers), T.AIR_FILLED_LUNG, body, ribs[: int(pose.integers(2, 4))])


def thyroid(body: Generator, pose: Generator) -> Scene:
    """A thyroid lobe between trachea and carotid artery."""
    return neck(body, pose, _lobe(body, pose), ())


def thyroid_nodule(body: Generator, pose: Generator) -> Scene:
    """A thyroid lobe with a nodule."""
    lobe = _lobe(body, pose)
    place = body.uniform(-0.4, 0.4) + pose.normal(0, 0.08), body.uniform(-0.2, 0.2)
    outline = lobe.part(*place, body.uniform(0.3, 0.55), body.uniform(0.4, 0.65))
    return neck(body, pose, lobe, nodule(outline, str(body.choice(NODULE_KINDS)), body))


def neck(body: Generator, pose: Generator, lobe: Ellipse, nodules: tuple[Layer, ...]) -> Scene:
    """The neck across: skin to long muscle, a thyroid `lobe` with its nodules, trachea and carotid beside it."""
    side = float(body.choice((-1.0, 1.0)))
    trachea = Ellipse(lobe.x - side * (lobe.rx + 7), lobe.z + 2, 8.5, 8)
    artery = Ellipse(lobe.x + side * (lobe.rx + 3.5), lobe.z + 3, 3.4, 3.2)
    vein = Ellipse(artery.x + side * 5, artery.z - 5, 4.2, pose.uniform(1.5, 3))
    isthmus = Ellipse(lobe.x - side * lobe.rx, lobe.z - 0.6 * lobe.rz, 12, 2)
    layers = (
        Layer(Band(lobe.z + lobe.rz + 1, 999, side * 0.1), T.MUSCLE),
        Layer(lobe.grown(0.5), T.FASCIA),
        Layer(isthmus, T.THYROID),
        Layer(lobe, T.THYROID),
        *nodules,
        Layer(trachea.grown(1.5), T.CARTILAGE),
        Layer(trachea, T.GAS),
        Layer(artery.grown(0.6), T.ARTERY_WALL),
        Layer(artery, T.BLOOD),
        Layer(vein, T.BLOOD),
    )
    return _shallow(layers, T.FAT, body, fat=body.uniform(2.0, 4.5))


def lymph_node(body: Generator, pose: Generator) -> Scene:
    """Lymph nodes in fat, with a bright hilum, over a vessel."""
    fat = body.uniform(4, 8)
    layers: list[Layer] = [Layer(Band(body.uniform(28, 33), 999, pose.normal(0, 0.1)), T.MUSCLE)]
    for _ in range(int(body.integers(1, 4))):
        long, thin = body.uniform(4.5, 8.5), body.uniform(2.6, 4.5)
        node = Ellipse(pose.uniform(-13, 13), fat + 6 + thin + pose.uniform(0, 9), long, thin, pose.normal(0, 0.4))
        hilum = Layer(node.part(0, 0, 0.5, 0.25), T.HILUM)
        layers += [Layer(node.grown(0.4), T.FASCIA), Layer(node, T.LYMPH_NODE), hilum]
    vessel = Ellipse(pose.uniform(-14, 14), 27, 3, 2.6)
    layers += [Layer(vessel.grown(0.6), T.ARTERY_WALL), Layer(vessel, T.BLOOD)]
    return _shallow(tuple(layers), T.FAT, body, fat=fat)


def soft_tissue_mass(body: Generator, pose: Generator) -> Scene:
    """A solid mass in muscle."""
    fat, half = body.uniform(4, 9), body.uniform(3.5, 7)
    deep = fat + 5.5 + half + pose.uniform(0, 5)
    mass = Ellipse(pose.normal(0, 4), deep, half * body.uniform(1.1, 1.9), half, pose.normal(0, 0.3))
    layers = (Layer(mass.grown(0.4), T.FASCIA), Layer(mass, T.LYMPH_NODE), *_bone_below(pose))
    return _shallow(layers, T.MUSCLE, body, fat=fat, changes=((T.LYMPH_NODE, body.normal(2, 3)),))


def abscess(body: Generator, pose: Generator) -> Scene:
    """A superficial collection with debris in fat."""
    fat, half = body.uniform(3, 7), body.uniform(3.5, 7)
    pocket = Ellipse(pose.normal(0, 4), fat + 6 + half, body.uniform(9, 15), half, pose.normal(0, 0.2))
    layers = [Layer(Band(29, 999), T.MUSCLE), Layer(pocket.grown(0.8), T.FASCIA), Layer(pocket, T.FLUID)]
    layers += [Layer(_within(pocket, pose, 0.6, (0.3, 0.35)), T.DEBRIS) for _ in range(5)]
    return _shallow(tuple(layers), T.FAT, body, fat=fat)


def pseudoaneurysm(body: Generator, pose: Generator) -> Scene:
    """A sac of blood fed by a neck from the artery below it."""
    fat, half = body.uniform(3, 6), body.uniform(4, 6.5)
    sac = Ellipse(pose.normal(0, 4), fat + 6 + half, half * body.uniform(1.1, 1.6), half)
    top, slope = sac.z + half + pose.uniform(2, 5), pose.normal(0, 0.08)
    layers = (
        Layer(Band(top - 0.8, top + 7.8, slope), T.ARTERY_WALL),
        Layer(Band(top, top + 7, slope), T.BLOOD),
        Layer(Ellipse(sac.x, sac.z + half, 1.3, 6), T.BLOOD),
        Layer(sac, T.BLOOD),
        Layer(sac.part(-0.4, 0.4, 0.5, 0.5), T.DEBRIS),
    )
    return _shallow(layers, T.MUSCLE, body, fat=fat)


def shoulder(body: Generator, pose: Generator) -> Scene:
    """Tendon and muscle over a curved bone."""
    top = body.uniform(17, 23)
    layers = (Layer(Band(top, top + 3, 0, 0.012), T.BONE), Layer(Band(top - 5, top - 4.5, 0.1, 0.01), T.FASCIA))
    return _shallow(layers, T.MUSCLE, body, fat=body.uniform(3, 6))


def with_needle(scene: Scene, pose: Generator, deep: bool) -> Scene:
    """The scene with a needle on its way to the middle of a deep or a shallow field of view."""
    target = (pose.normal(0, 10), pose.uniform(40, 75)) if deep else (pose.normal(0, 4), pose.uniform(12, 21))
    return replace(scene, wall=(*scene.wall, *needle(pose, target)))


def _abdominal(
    layers: tuple[Layer, ...],
    background: Tissue,
    body: Generator,
    changes: tuple[tuple[Tissue, float], ...],
    muscle: float = 5.0,
) -> Scene:
    """A scene behind an abdominal wall."""
    wall = body_wall(body.uniform(5, 18), muscle)
    return Scene(background, layers, wall, drawn_warp(body, 110), changes)


def _chest(layers: tuple[Layer, ...], background: Tissue, body: Generator, ribs: tuple[Layer, ...]) -> Scene:
    """A scene behind the chest wall and its ribs."""
    return Scene(background, layers, (*body_wall(body.uniform(4, 9), 14), *ribs), drawn_warp(body, 110))


def _shallow(
    layers: tuple[Layer, ...],
    background: Tissue,
    body: Generator,
    *,
    fat: float,
    changes: tuple[tuple[Tissue, float], ...] = (),
) -> Scene:
    """A scene close under the skin."""
    return Scene(background, layers, body_wall(fat, 3.5), drawn_warp(body, 28), changes)


def _lobe(body: Generator, pose: Generator) -> Ellipse:
    """A patient's thyroid lobe."""
    size = body.uniform(0.9, 1.25)
    return Ellipse(pose.normal(0, 3), 17 + pose.normal(0, 1), 12.5 * size, 7.5 * size, body.normal(0, 0.12))


def _kidney_outline(body: Generator, pose: Generator, x: float, z: float) -> Ellipse:
    """A patient's kidney, cut lengthwise or more across from image to image."""
    length, thickness = body.uniform(46, 58) * pose.uniform(0.62, 1.0), body.uniform(21, 27)
    return Ellipse(x, z, length, thickness, pose.normal(0, 0.2))


def _within(outline: Ellipse, pose: Generator, reach: float, size: tuple[float, float]) -> Ellipse:
    """A small ellipse somewhere in `outline`; all in shares of its half axes."""
    return outline.part(pose.uniform(-reach, reach), pose.uniform(-reach, reach), *size)


def _gallbladder(outline: Ellipse) -> list[Layer]:
    return [Layer(outline.grown(1.5), T.PORTAL_WALL), Layer(outline, T.FLUID)]


def _bone_below(pose: Generator) -> tuple[Layer, ...]:
    """A bone's surface at depth, in every other image."""
    top = pose.uniform(30, 36)
    return (Layer(Band(top, top + 3, 0, 0.01), T.BONE),) if pose.random() < 0.5 else ()


VIEWS: dict[str, ViewOf] = {
    view.__name__: view
    for view in (
        liver,
        liver_lesion,
        kidney_view,
        transplant,
        morison,
        ascites,
        collection,
        cholecystostomy,
        effusion,
        aerated_lung,
        thyroid,
        thyroid_nodule,
        lymph_node,
        soft_tissue_mass,
        abscess,
        pseudoaneurysm,
        shoulder,
    )
}
