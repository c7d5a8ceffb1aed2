"""Views of the body as scenes, a function for each, from random numbers of a patient and of an image."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from pipeline.phantom.anatomy import Band, Ellipse, Layer, Scene, Tissue, Tube, random_warp
from pipeline.phantom.organs import (
    Layers,
    blob,
    body_wall,
    bowel_loops,
    drain,
    gallbladder,
    kidney,
    liver_vessels,
    needle,
    nodule,
    rib,
    sheet,
)

T = Tissue
NODULE_KINDS = ("solid", "solid", "halo", "cystic", "mixed")
ViewFunction = Callable[[Generator, Generator], Scene]
"""Makes a view; takes the random generators of the patient (`body`) and of the image (`pose`)."""
Changes = tuple[tuple[Tissue, float], ...]


def liver(body: Generator, pose: Generator) -> Scene:
    """Liver filling the sector, with vessels, diaphragm and lung's mirror image behind it, sometimes a gallbladder."""
    depth = body.uniform(95, 150) + pose.normal(0, 8)
    slope, bend = pose.normal(0.0, 0.22), -body.uniform(0.001, 0.005)
    layers = [
        *liver_vessels(body, pose, depth, int(body.integers(6, 14))),
        Layer(Band(depth, 999, slope, bend), T.MIRROR),
        Layer(Band(depth, depth + body.uniform(1.2, 2.6), slope, bend), T.DIAPHRAGM),
    ]
    if body.random() < 0.3:
        layers += gallbladder(blob(body, *_centre(pose, (15, 12), (50, 75)), 22, 9, pose.normal(0.6, 0.3)))
    if pose.random() < 0.25:
        side = float(pose.choice((-1, 1)))
        outline = _kidney_outline(body, pose, side * pose.uniform(50, 75), pose.uniform(85, 115))
        layers += [Layer(outline.grow(4.0), T.PERIRENAL_FAT), *kidney(outline, body)]
    ribs = (rib(pose.choice((-1, 1)) * pose.uniform(16, 30), 19, 5),) if pose.random() < 0.4 else ()
    return _abdominal(layers, T.LIVER, body, pose, ((T.LIVER, body.normal(0, 2.5)),), over=ribs)


def liver_lesion(body: Generator, pose: Generator) -> Scene:
    """A liver with one to three focal lesions."""
    scene = liver(body, pose)
    spots = []
    for _ in range(int(body.integers(1, 4))):
        size = body.uniform(6, 18)
        x, z = body.uniform(-30, 30) + pose.normal(0, 5), body.uniform(35, 90) + pose.normal(0, 4)
        spot = blob(body, x, z, size, size * body.uniform(0.7, 1.0), body.uniform(0, 3), 0.2)
        spots += [Layer(spot, T.LIVER_LESION), Layer(spot.part(0.1, 0.1, 0.5, 0.45), T.LIVER_LESION)]
        if body.random() < 0.3:
            spots.append(Layer(spot.part(0, 0, 0.35, 0.3), T.DEBRIS))
    change = (T.LIVER_LESION, float(body.choice((0.0, 2.0, 11.0))))
    return replace(scene, layers=(*spots, *scene.layers), echo_db=(*scene.echo_db, change))


def kidney_view(body: Generator, pose: Generator) -> Scene:
    """A kidney in its fat behind the muscles of the back."""
    outline = _kidney_outline(body, pose, pose.normal(0, 14), pose.normal(62, 9))
    layers = [
        *[sheet(pose, 22, 110, reach=70) for _ in range(5)],
        Layer(Band(outline.z + 32, 999, pose.normal(0, 0.1)), T.BOWEL),
        *bowel_loops(pose, 3, (outline.z + 38, outline.z + 70), 0.6),
        Layer(outline.grow(body.uniform(3, 8)), T.PERIRENAL_FAT),
        *kidney(outline, body),
    ]
    if pose.random() < 0.35:
        edge = blob(body, pose.choice((-1, 1)) * pose.uniform(70, 95), 55, 50, 32, 0.3)
        layers = [Layer(edge.grow(1.0), T.CAPSULE), Layer(edge, T.LIVER), *layers]
    ribs = (rib(pose.choice((-1, 1)) * pose.uniform(12, 30), 20, 5),) if pose.random() < 0.4 else ()
    return _abdominal(layers, T.MUSCLE, body, pose, muscle=body.uniform(8, 18), over=ribs)


def transplant(body: Generator, pose: Generator) -> Scene:
    """A transplanted kidney, shallow in the iliac fossa."""
    outline = _kidney_outline(body, pose, pose.normal(0, 12), pose.normal(46, 5))
    layers = bowel_loops(pose, 6, (35, 120), 0.5)
    if pose.random() < 0.6:
        bladder = blob(body, pose.choice((-1, 1)) * pose.uniform(30, 60), 80, 26, 18)
        layers += [Layer(bladder.grow(2), T.BOWEL_WALL), Layer(bladder, T.FLUID)]
    layers += [Layer(outline.grow(2.5), T.PERIRENAL_FAT), *kidney(outline, body)]
    vessel = [(x, 78 + 0.3 * x + 4 * np.sin(x / 20), 6.0) for x in np.linspace(-70, 70, 9)]
    layers += [Layer(_tube(vessel).grow(0.9), T.ARTERY_WALL), Layer(_tube(vessel), T.BLOOD)]
    return _abdominal(layers, T.FAT, body, pose)


def morison(body: Generator, pose: Generator) -> Scene:
    """Liver, right kidney and their interface: Morison's pouch."""
    side = float(pose.choice((-1.0, 1.0)))
    scene = morison_at(body, pose, x=side * pose.uniform(0, 34), z=pose.uniform(66, 96), side=side)
    ribs = (rib(side * pose.uniform(2, 25), 21, 5),) if pose.random() < 0.3 else ()
    return replace(scene, wall=(*scene.wall, *ribs))


def morison_at(body: Generator, pose: Generator, *, x: float, z: float, side: float) -> Scene:
    """Morison's pouch with the kidney's centre at (x, z) mm, right (`side` 1) or left (-1) of the liver's bulk."""
    outline = replace(_kidney_outline(body, pose, x, z), angle=side * pose.uniform(0.05, 0.6))
    bulk = x - side * pose.uniform(32, 56), z - pose.uniform(28, 38)
    reach = blob(body, *bulk, pose.uniform(68, 92), pose.uniform(36, 46), side * pose.uniform(0.1, 0.5), 0.07)
    layers = [
        *bowel_loops(pose, 6, (40, 130), 0.5),
        Layer(Band(z + 36, 999, pose.normal(0, 0.1)), T.MUSCLE),
        Layer(reach.grow(1.2), T.CAPSULE),
        Layer(reach, T.LIVER),
        *liver_vessels(body, pose, 0.8 * z, 7, within=reach),
    ]
    fluid = _pouch_fluid(outline, reach) if body.random() < 0.2 else ()
    layers += [*fluid, Layer(outline.grow(3.0), T.PERIRENAL_FAT), *kidney(outline, body)]
    changes = ((T.LIVER, body.normal(0, 2.0)), (T.CORTEX, body.normal(0, 1.5)))
    return _abdominal(layers, T.FAT, body, pose, changes)


def ascites(body: Generator, pose: Generator) -> Scene:
    """Free fluid with floating bowel."""
    floor = pose.uniform(75, 120)
    layers = [Layer(Band(floor, 999, pose.normal(0, 0.2), pose.normal(0, 0.001)), T.BOWEL)]
    layers += bowel_loops(pose, int(pose.integers(2, 9)), (floor - 30, floor + 25), 0.5)
    strands = int(pose.integers(0, 4))
    layers += [sheet(pose, 35, floor, reach=60) for _ in range(strands)]
    if body.random() < 0.4:
        edge = blob(body, pose.choice((-1, 1)) * pose.uniform(50, 70), 52, 44, 30, 0.3, 0.08)
        layers += [Layer(edge.grow(1.2), T.CAPSULE), Layer(edge, T.LIVER)]
        layers += liver_vessels(body, pose, 80, 5, within=edge)
    if pose.random() < 0.25:
        layers += drain(pose, (pose.normal(0, 15), pose.uniform(45, 75)), 3.2)
    return _abdominal(layers, T.FLUID, body, pose, ((T.FLUID, max(0.0, body.normal(2, 5))),))


def collection(body: Generator, pose: Generator) -> Scene:
    """An abdominal or pelvic collection with debris between loops of bowel with gas, sometimes drained."""
    size = body.uniform(20, 36), body.uniform(12, 24)
    pocket = blob(body, *_centre(pose, (0, 12), (42, 80)), *size, pose.normal(), 0.25)
    layers = bowel_loops(pose, 9, (30, 130), 0.55)
    layers += [Layer(pocket.grow(body.uniform(1.5, 4)), T.BOWEL_WALL), Layer(pocket, T.FLUID)]
    layers += [Layer(_spot(pocket, pose, 0.5, (0.35, 0.3)), T.DEBRIS) for _ in range(int(pose.integers(2, 7)))]
    if body.random() < 0.5:
        layers.append(Layer(Band(pocket.z + pose.uniform(-4, 8), 999), T.DEBRIS, within=pocket))
    if pose.random() < 0.3:
        layers += drain(pose, (pocket.x, pocket.z), 3.2)
    return _abdominal(layers, T.FAT, body, pose)


def cholecystostomy(body: Generator, pose: Generator) -> Scene:
    """A distended gallbladder with stones or sludge in front of the liver, sometimes drained."""
    scene = liver(body, pose)
    size = body.uniform(28, 42), body.uniform(12, 19)
    bladder = blob(body, *_centre(pose, (0, 9), (45, 68)), *size, pose.normal(), 0.08)
    inside = [Layer(bladder.part(pose.uniform(-0.5, 0.5), 0.7, 0.14, 0.2), T.STONE) for _ in range(2)]
    if body.random() < 0.5:
        inside = [Layer(Band(bladder.z + 3, 999), T.DEBRIS, within=bladder)]
    if pose.random() < 0.3:
        inside += drain(pose, (bladder.x, bladder.z), 2.8)
    return replace(scene, layers=(*scene.layers, *gallbladder(bladder), *inside))


def effusion(body: Generator, pose: Generator) -> Scene:
    """Fluid in the chest above the diaphragm, with collapsed lung and ribs' shadows, sometimes a tube."""
    side = float(pose.choice((-1.0, 1.0)))
    dome = blob(body, side * pose.uniform(55, 85), pose.uniform(85, 120), 62, 56, 0, 0.05)
    lung = blob(body, -side * pose.uniform(5, 45), pose.uniform(70, 105), 36, 17, side * pose.uniform(0.3, 1.0), 0.2)
    layers = [
        Layer(Band(pose.uniform(105, 145), 999, pose.normal(0, 0.1), -0.002), T.MIRROR),
        Layer(lung.grow(0.7), T.PLEURA if pose.random() < 0.5 else T.CAPSULE),
        Layer(lung, T.CONSOLIDATED_LUNG),
        *[Layer(_spot(lung, pose, 0.7, (0.16, 0.07)), T.GAS) for _ in range(int(pose.integers(1, 6)))],
        Layer(dome.grow(body.uniform(1.2, 2.4)), T.DIAPHRAGM),
        Layer(dome, T.LIVER),
        *liver_vessels(body, pose, 120, 6, within=dome),
    ]
    layers += [sheet(pose, 40, 100, reach=50) for _ in range(int(body.integers(0, 4)))]
    if pose.random() < 0.25:
        layers += drain(pose, (pose.normal(0, 12), pose.uniform(45, 75)), 3.6)
    middle, gap = pose.uniform(-14, 14), pose.uniform(25, 36)
    ribs = tuple(rib(middle + step, 20, pose.uniform(5, 7)) for step in (-gap, gap))
    return _chest(layers, T.FLUID, body, pose, ribs, ((T.FLUID, max(0.0, body.normal(2, 5))),))


def aerated_lung(body: Generator, pose: Generator) -> Scene:
    """Aerated lung: a bright pleura with its echoes at multiples of its depth (A-lines), or bright rays (B-lines)."""
    pleura, thick = body.uniform(18, 32), body.uniform(0.8, 1.8)
    layers = []
    if pose.random() < 0.6:
        layers = [Layer(Band(n * pleura, n * pleura + thick), T.REVERBERATION, "skin") for n in range(2, 7)]
    for _ in range(int(pose.integers(0, 5))):
        x, wide = pose.uniform(-26, 26), pose.uniform(1.0, 4.5)
        ray = Tube(((x, pleura, wide), (x + pose.normal(0, 1), pose.uniform(90, 190), 1.2 * wide)))
        layers.append(Layer(ray, T.COMET, "skin"))
    layers.append(Layer(Band(pleura, pleura + thick, pose.normal(0, 0.04)), T.PLEURA, "skin"))
    for _ in range(int(pose.integers(0, 3))):
        dent = blob(pose, pose.uniform(-22, 22), pleura + 3, pose.uniform(3, 9), pose.uniform(2, 5), 0, 0.2)
        layers.append(Layer(dent, T.CONSOLIDATED_LUNG, "skin"))
    middle, gap = pose.uniform(-16, 16), pose.uniform(26, 36)
    ribs = tuple(rib(middle + step * gap, pleura - 6, pose.uniform(4, 8)) for step in (-1, 0, 1))
    return _chest(layers, T.AIR_FILLED_LUNG, body, pose, ribs[: int(pose.integers(0, 4))])


def thyroid(body: Generator, pose: Generator) -> Scene:
    """A thyroid lobe between trachea and carotid artery."""
    return neck(body, pose, _lobe(body, pose), ())


def thyroid_nodule(body: Generator, pose: Generator) -> Scene:
    """A thyroid lobe with a nodule."""
    lobe = _lobe(body, pose)
    spot = lobe.part(
        body.uniform(-0.4, 0.4) + pose.normal(0, 0.08),
        body.uniform(-0.2, 0.2),
        body.uniform(0.3, 0.55),
        body.uniform(0.4, 0.65),
    )
    outline = blob(body, spot.x, spot.z, spot.rx, spot.rz, spot.angle, 0.1)
    return neck(body, pose, lobe, nodule(outline, str(body.choice(NODULE_KINDS)), body))


def neck(body: Generator, pose: Generator, lobe: Ellipse, nodules: Layers) -> Scene:
    """The neck across: skin to long muscle, a thyroid `lobe` with its nodules, trachea and carotid beside it."""
    side = float(body.choice((-1.0, 1.0)))
    trachea = Ellipse(lobe.x - side * (lobe.rx + 7), lobe.z + 2, 8.5, 8)
    artery = Ellipse(lobe.x + side * (lobe.rx + 3.5), lobe.z + 3, 3.4, 3.2)
    vein = blob(pose, artery.x + side * 5, artery.z - 5, 4.2, pose.uniform(1.2, 3))
    isthmus = Ellipse(lobe.x - side * lobe.rx, lobe.z - 0.6 * lobe.rz, 12, 2)
    straps = blob(body, lobe.x - side * 2, lobe.z - lobe.rz - 1.6, lobe.rx + 5, 2.2, side * 0.05, 0.1)
    turning = blob(body, lobe.x + side * (lobe.rx + 3), lobe.z - lobe.rz - 1.5, 15, 4.5, side * 0.25, 0.1)
    long = blob(body, lobe.x + side * 2, lobe.z + lobe.rz + 6, 13, 4.5, 0, 0.1)
    gullet = blob(body, trachea.x + side * 8.5, trachea.z + 8, 3.6, 3)
    spine = lobe.z + lobe.rz + pose.uniform(10, 14)
    layers = (
        *_layered(pose, lobe.z - lobe.rz, spine + 8, 7),
        *[Layer(muscle, T.MUSCLE) for muscle in (long, turning, straps)],
        Layer(Band(spine, spine + 2, side * 0.08, 0.006), T.BONE),
        Layer(lobe.grow(0.45), T.FASCIA),
        Layer(isthmus, T.THYROID),
        Layer(lobe, T.THYROID),
        *[Layer(_spot(lobe, body, 0.7, (0.06, 0.09)), T.BLOOD) for _ in range(int(body.integers(0, 4)))],
        *nodules,
        Layer(gullet, T.MUSCLE),
        Layer(gullet.part(0, 0, 0.4, 0.3), T.HILUM),
        Layer(trachea.grow(1.5), T.CARTILAGE),
        Layer(trachea, T.GAS),
        Layer(artery.grow(0.6), T.ARTERY_WALL),
        Layer(artery, T.BLOOD),
        Layer(vein.grow(0.3), T.FASCIA),
        Layer(vein, T.BLOOD),
    )
    return _shallow(layers, T.FAT, body, pose, fat=body.uniform(1.5, 4.0), changes=((T.THYROID, body.normal(0, 1.5)),))


def lymph_node(body: Generator, pose: Generator) -> Scene:
    """Lymph nodes in fat, with a bright hilum, over a vessel."""
    fat = body.uniform(4, 9)
    layers: list[Layer] = [Layer(Band(body.uniform(24, 33), 999, pose.normal(0, 0.1)), T.MUSCLE)]
    layers += [*_layered(pose, fat, 45, 6), *_belly(pose, fat)]
    for _ in range(int(body.integers(1, 4))):
        long, thin = body.uniform(4.0, 9.5), body.uniform(2.4, 5)
        z = fat + 5 + thin + pose.uniform(0, 11)
        node = blob(body, pose.uniform(-14, 14), z, long, thin, pose.normal(0, 0.4), 0.12)
        layers += [Layer(node.grow(0.3), T.FASCIA), Layer(node, T.LYMPH_NODE)]
        if body.random() < 0.65:
            layers.append(Layer(node.part(0, body.uniform(-0.3, 0.3), 0.5, 0.25), T.HILUM))
    for _ in range(int(pose.integers(1, 4))):
        vessel = Ellipse(pose.uniform(-16, 16), pose.uniform(20, 34), pose.uniform(1.5, 4), pose.uniform(1.5, 3))
        layers += [Layer(vessel.grow(0.6), T.ARTERY_WALL), Layer(vessel, T.BLOOD)]
    return _shallow(layers, T.FAT, body, pose, fat=fat)


def soft_tissue_mass(body: Generator, pose: Generator) -> Scene:
    """A solid mass in muscle."""
    fat, half = body.uniform(3, 10), body.uniform(3.5, 7.5)
    deep = fat + 5.5 + half + pose.uniform(0, 6)
    mass = blob(body, pose.normal(0, 5), deep, half * body.uniform(1.1, 1.9), half, pose.normal(0, 0.3), 0.22)
    spots = [Layer(_spot(mass, body, 0.5, (0.22, 0.2)), T.DEBRIS) for _ in range(int(body.integers(0, 4)))]
    layers = (*_layered(pose, fat, 50, 9), *_bone_below(pose), Layer(mass.grow(0.3), T.FASCIA))
    changes = ((T.LYMPH_NODE, body.normal(2, 3)),)
    return _shallow((*layers, Layer(mass, T.LYMPH_NODE), *spots), T.MUSCLE, body, pose, fat=fat, changes=changes)


def abscess(body: Generator, pose: Generator) -> Scene:
    """A superficial collection with debris in fat, sometimes drained."""
    fat, half = body.uniform(3, 8), body.uniform(3, 7)
    pocket = blob(body, pose.normal(0, 5), fat + 6 + half, body.uniform(8, 15), half, pose.normal(0, 0.2), 0.25)
    layers = [Layer(Band(pose.uniform(24, 32), 999, pose.normal(0, 0.1)), T.MUSCLE), *_layered(pose, fat, 45, 8)]
    layers += [Layer(pocket.grow(body.uniform(0.4, 1.5)), T.HILUM), Layer(pocket, T.FLUID)]
    layers += [Layer(_spot(pocket, pose, 0.6, (0.3, 0.35)), T.DEBRIS) for _ in range(int(pose.integers(2, 8)))]
    if pose.random() < 0.35:
        layers += drain(pose, (pocket.x, pocket.z), 2.0)
    return _shallow(layers, T.FAT, body, pose, fat=fat)


def pseudoaneurysm(body: Generator, pose: Generator) -> Scene:
    """A sac of blood fed by a neck from the artery below it."""
    fat, half = body.uniform(3, 6), body.uniform(4, 6.5)
    sac = blob(body, pose.normal(0, 4), fat + 6 + half, half * body.uniform(1.1, 1.6), half, 0, 0.12)
    top, slope = sac.z + half + pose.uniform(2, 5), pose.normal(0, 0.08)
    layers = (
        *_layered(pose, fat, 50, 7),
        Layer(Band(top - 0.8, top + 7.8, slope), T.ARTERY_WALL),
        Layer(Band(top, top + 7, slope), T.BLOOD),
        Layer(sac.grow(0.5), T.ARTERY_WALL),
        Layer(Ellipse(sac.x, sac.z + half, 1.3, 6), T.BLOOD),
        Layer(sac, T.BLOOD),
        Layer(sac.part(-0.4, 0.4, 0.5, 0.5), T.DEBRIS),
    )
    return _shallow(layers, T.MUSCLE, body, pose, fat=fat)


def shoulder(body: Generator, pose: Generator) -> Scene:
    """Tendon and muscle over a curved bone."""
    top, bend = body.uniform(17, 23), body.uniform(0.006, 0.014)
    layers = (
        *_layered(pose, 5, top, 5),
        Layer(Band(top - 5, top, 0.1, bend), T.HILUM),
        Layer(Band(top, top + 3, 0, bend), T.BONE),
        Layer(Band(top - 5, top - 4.6, 0.1, bend), T.FASCIA),
    )
    return _shallow(layers, T.MUSCLE, body, pose, fat=body.uniform(3, 6))


def with_needle(scene: Scene, pose: Generator, deep: bool) -> Scene:
    """The scene with a needle towards the middle of a deep or a shallow field of view."""
    target = (pose.normal(0, 10), pose.uniform(40, 75)) if deep else (pose.normal(0, 4), pose.uniform(12, 21))
    return replace(scene, wall=(*scene.wall, *needle(pose, target)))


def _abdominal(
    layers: Sequence[Layer],
    background: Tissue,
    body: Generator,
    pose: Generator,
    changes: Changes = (),
    *,
    muscle: float | None = None,
    over: Layers = (),
) -> Scene:
    """A scene behind an abdominal wall, with ribs `over` it."""
    wall = body_wall(body.uniform(4, 20), body.uniform(4, 9) if muscle is None else muscle, body)
    return _scene(layers, background, (*wall, *over), body, pose, 110, changes)


def _chest(
    layers: Sequence[Layer], background: Tissue, body: Generator, pose: Generator, ribs: Layers, changes: Changes = ()
) -> Scene:
    """A scene behind the chest wall and its ribs."""
    wall = body_wall(body.uniform(3, 9), body.uniform(7, 14), body)
    return _scene(layers, background, (*wall, *ribs), body, pose, 110, changes)


def _shallow(
    layers: Sequence[Layer],
    background: Tissue,
    body: Generator,
    pose: Generator,
    *,
    fat: float,
    changes: Changes = (),
) -> Scene:
    """A scene close under the skin."""
    return _scene(layers, background, body_wall(fat, body.uniform(1.5, 4.5), body), body, pose, 28, changes)


def _scene(
    layers: Sequence[Layer],
    background: Tissue,
    wall: Layers,
    body: Generator,
    pose: Generator,
    size: float,
    changes: Changes,
) -> Scene:
    """A scene of a patient about `size` mm large, with its own bending, texture and echoes."""
    varied = ((T.FAT, body.normal(0, 3)), (T.MUSCLE, body.normal(0, 3)), *changes)
    grain, fibres = int(body.integers(1 << 20)), body.normal(0, 0.12) + pose.normal(0, 0.1)
    return Scene(background, tuple(layers), wall, random_warp(body, size), varied, float(fibres), grain)


def _layered(pose: Generator, top: float, bottom: float, count: int) -> Layers:
    """Sheets of connective tissue, more or less along the skin."""
    return tuple(sheet(pose, top, bottom, reach=25) for _ in range(count))


def _belly(pose: Generator, top: float) -> Layers:
    """Two bellies of muscle in their fascia."""
    bellies = [
        blob(pose, pose.uniform(-22, 22), top + pose.uniform(3, 16), 14, 3.5, pose.normal(0, 0.15)) for _ in "12"
    ]
    return tuple(layer for belly in bellies for layer in (Layer(belly.grow(0.4), T.FASCIA), Layer(belly, T.MUSCLE)))


def _pouch_fluid(outline: Ellipse, reach: Ellipse) -> Layers:
    """A rim of free fluid between kidney and liver."""
    return (Layer(outline.grow(7.0), T.FLUID, within=reach.grow(6.0)),)


def _centre(pose: Generator, x: tuple[float, float], z: tuple[float, float]) -> tuple[float, float]:
    """A centre: x normal with mean and deviation, z uniform; mm."""
    return pose.normal(*x), pose.uniform(*z)


def _tube(path: Sequence[tuple[float, float, float]]) -> Tube:
    return Tube(tuple((float(x), float(z), float(wide)) for x, z, wide in path))


def _lobe(body: Generator, pose: Generator) -> Ellipse:
    """A patient's thyroid lobe."""
    size = body.uniform(0.8, 1.3)
    return blob(body, pose.normal(0, 4), 17 + pose.normal(0, 1.5), 12.5 * size, 7.5 * size, body.normal(0, 0.15), 0.1)


def _kidney_outline(body: Generator, pose: Generator, x: float, z: float) -> Ellipse:
    """A patient's kidney, cut lengthwise or more across from image to image."""
    length, thickness = body.uniform(44, 60) * pose.uniform(0.6, 1.0), body.uniform(19, 28)
    return blob(body, x, z, length, thickness, pose.normal(0, 0.25), 0.06)


def _spot(outline: Ellipse, pose: Generator, reach: float, size: tuple[float, float]) -> Ellipse:
    """A small dented ellipse somewhere in `outline`; all in shares of its half axes."""
    part = outline.part(pose.uniform(-reach, reach), pose.uniform(-reach, reach), *size)
    return blob(pose, part.x, part.z, part.rx, part.rz, part.angle, 0.3)


def _bone_below(pose: Generator) -> Layers:
    """A bone's surface at depth, in half of the images."""
    top = pose.uniform(28, 36)
    return (Layer(Band(top, top + 3, 0, 0.01), T.BONE),) if pose.random() < 0.5 else ()


VIEWS: dict[str, ViewFunction] = {
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
