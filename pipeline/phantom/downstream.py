"""The three labelled sets beside the archive: view quality, liver and kidney, thyroid nodules."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from pipeline.phantom.anatomy import Scene, Tissue
from pipeline.phantom.dicom import Encoding, Header, Person, Study, fixed_uid, instance, write
from pipeline.phantom.organs import blob, nodule, rib
from pipeline.phantom.scanner import CURVILINEAR, LINEAR_HIGH, LOGIQ_LIKE, THIRD, Format, Setup, View, picture
from pipeline.phantom.settings import Phantom
from pipeline.phantom.views import NODULE_KINDS, VIEWS, morison_at, neck

T = Tissue
LIVER_KIDNEY = {T.LIVER: 1, T.LIVER_VEIN: 1, T.PORTAL_WALL: 1, T.CORTEX: 2, T.PYRAMID: 2, T.SINUS: 2, T.RENAL_CYST: 2}
NODULE = {T.NODULE: 1, T.NODULE_HALO: 1, T.NODULE_CORE: 1, T.NODULE_CYST: 1, T.NODULE_CALCIUM: 1}
OTHER_VIEWS = ("ascites", "collection", "collection", "aerated_lung", "morison", "morison")
LIVER_AND_KIDNEY = {*LIVER_KIDNEY, T.CAPSULE, T.PERIRENAL_FAT}
QUALITY_SHARES = (0.2, 0.18, 0.2, 0.24, 0.18)
GOLDEN_SECTION = (5**0.5 - 1) / 2
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelledSet:
    """A labelled set: its name, the label's column, (images, patients) of train, val and test."""

    name: str
    label: str
    splits: tuple[tuple[int, int], ...]

    @property
    def images_per_patient(self) -> int:
        """The largest number of images of a patient."""
        return max(-(-images // patients) for images, patients in self.splits)


def labelled_sets(settings: Phantom) -> tuple[LabelledSet, ...]:
    """The three sets at the size that a recipe states."""
    return tuple(
        LabelledSet(
            name, label, tuple((part.images, part.patients) for part in (amount.train, amount.val, amount.test))
        )
        for name, label, amount in (
            ("quality", "quality", settings.quality),
            ("liver_kidney", "mask", settings.liver_kidney),
            ("thyroid", "mask", settings.thyroid),
        )
    )


@dataclass(frozen=True)
class Case:
    """One labelled image: its set, its split, its patient's number in the set and its own number there."""

    of: LabelledSet
    split: str
    patient: int
    image: int

    @property
    def patient_name(self) -> str:
        """The patient's name in the manifest; no patient is in two sets or in the archive."""
        return f"{self.of.name[0].upper()}{self.patient:03d}"

    @property
    def image_path(self) -> str:
        """The image's path, relative to the manifest."""
        ending = "dcm" if self.of.name == "liver_kidney" else "png"
        return f"{self.of.name}/images/{self.patient_name}_{self.image}.{ending}"

    @property
    def mask_path(self) -> str:
        """The mask's path, relative to the manifest."""
        return f"{self.of.name}/masks/{self.patient_name}_{self.image}.png"


def cases(sets: tuple[LabelledSet, ...]) -> list[Case]:
    """Every image of the labelled sets."""
    return [case for labelled in sets for case in _cases_of(labelled)]


def write_case(folder: Path, case: Case, seed: int) -> None:
    """Write one labelled image, and its mask if it has one, below `folder`."""
    view = _view(case, seed)
    image = folder / case.image_path
    image.parent.mkdir(parents=True, exist_ok=True)
    if case.of.label == "mask":
        classes = NODULE if case.of.name == "thyroid" else LIVER_KIDNEY
        mask = folder / case.mask_path
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.mask(classes)).save(mask)
    if image.suffix == ".dcm":
        write(instance(_header(case, seed), [view], LOGIQ_LIKE, Encoding.EXPLICIT), image)
    else:
        Image.fromarray(view.grey).save(image)


def graded_view(case: Case, seed: int) -> tuple[int, View]:
    """Grade and picture of an image of the quality set."""
    return _grade(case, seed), _view(case, seed)


def write_manifests(folder: Path, sets: tuple[LabelledSet, ...], seed: int) -> None:
    """Write each set's CSV: image, its label (`quality` or `mask`), patient, split; paths relative to the CSV."""
    for labelled in sets:
        with open(folder / f"{labelled.name}.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("image", labelled.label, "patient", "split"))
            for case in _cases_of(labelled):
                label = case.mask_path if labelled.label == "mask" else _grade(case, seed)
                rows.writerow((case.image_path, label, case.patient_name, case.split))


def _view(case: Case, seed: int) -> View:
    """The picture of a case."""
    body, pose = _draws(case, seed, 1), _draws(case, seed, 2)
    if case.of.name == "thyroid":
        return _thyroid(body, pose, _draws(case, seed, 3))
    if case.of.name == "liver_kidney":
        return _liver_kidney(body, pose)
    return _quality(_grade(case, seed), body, pose)


def _cases_of(labelled: LabelledSet) -> Iterator[Case]:
    """The set's images, patient by patient; each split's images are distributed as evenly as possible."""
    patient = 0
    for split, (images, patients) in zip(SPLITS, labelled.splits, strict=True):
        for index in range(patients):
            for image in range(images // patients + (index < images % patients)):
                yield Case(labelled, split, patient, image)
            patient += 1


def _draws(case: Case, seed: int, stream: int) -> Generator:
    """Random draws of a case; stream 1 belongs to its patient, the others to the image."""
    own = () if stream == 1 else (case.image,)
    return np.random.default_rng([seed, 20 + len(case.of.name), stream, case.patient, *own])


def _grade(case: Case, seed: int) -> int:
    """Quality of a case's view, 0 to 4: along the set a sequence of low discrepancy, so that splits are alike."""
    number = case.patient * case.of.images_per_patient + case.image
    mark = (number * GOLDEN_SECTION + np.random.default_rng([seed, 19]).uniform()) % 1
    return int(np.searchsorted(np.cumsum(QUALITY_SHARES), mark))


def _quality(grade: int, body: Generator, pose: Generator) -> View:
    """A view of Morison's pouch as clear as its grade; grade 0 shows neither liver nor kidney.

    The difference to grade 4 is divided at random among four causes: the kidney is near the sector's edge, sound fades
    before it, a rib shadows it, organs have less contrast. No single cause reveals the grade, and a rib may also hide
    nothing.
    """
    if grade == 0:
        return _logiq(
            _without_organs(VIEWS[str(pose.choice(OTHER_VIEWS))](body, pose)), pose, fading_db=pose.uniform(2, 26)
        )
    aside, faded, shadowed, blended = pose.dirichlet((1.0, 1.0, 1.0, 1.0)) * (4 - grade + pose.uniform(-0.25, 0.25))
    side = float(pose.choice((-1.0, 1.0)))
    x = side * (30 * aside + pose.uniform(0, 8))
    scene = morison_at(body, pose, x=x, z=pose.uniform(66, 92), side=side)
    ribs = [rib(x * pose.uniform(0.3, 0.5), 22, 1.5 + 5 * shadowed)] if shadowed > 0.2 else []
    if pose.random() < 0.5:
        ribs.append(rib(-side * pose.uniform(22, 34), 21, pose.uniform(2, 7)))
    clutter = -4.5 * blended
    changes = ((T.CORTEX, 0.7 * clutter - 1), (T.SINUS, clutter), (T.PERIRENAL_FAT, clutter), (T.LIVER, 0.5 * clutter))
    scene = replace(scene, wall=(*scene.wall, *ribs), echo_db=(*scene.echo_db, *changes))
    return _logiq(scene, pose, fading_db=3 + 18 * faded)


def _without_organs(scene: Scene) -> Scene:
    """The scene without liver and kidney."""
    return replace(scene, layers=tuple(layer for layer in scene.layers if layer.tissue not in LIVER_AND_KIDNEY))


def _liver_kidney(body: Generator, pose: Generator) -> View:
    """A clear view of Morison's pouch, from either side, the kidney anywhere in reach, bowel darker than liver."""
    side = float(pose.choice((-1.0, 1.0)))
    scene = morison_at(body, pose, x=side * pose.uniform(-10, 64), z=pose.uniform(50, 112), side=side)
    changes = ((T.BOWEL, -4.0), (T.MUSCLE, -2.0), (T.LIVER, 1.0))
    return _logiq(replace(scene, echo_db=(*scene.echo_db, *changes)), pose, fading_db=pose.uniform(0, 10))


def _logiq(scene: Scene, pose: Generator, fading_db: float) -> View:
    """The scene through the second scanner's curvilinear probe, the whole width of the sector in view."""
    tuning = replace(LOGIQ_LIKE.random_tuning(pose), fading_db=fading_db)
    shape = (Format.FAN, Format.WIDENING)[int(pose.integers(2))]
    return picture(scene, Setup(LOGIQ_LIKE, tuning, CURVILINEAR, float(pose.choice((130, 150))), shape), pose)


def _thyroid(body: Generator, pose: Generator, layout: Generator) -> View:
    """A nodule in a lobe anywhere in the picture, through the third scanner's linear probe."""
    rx = layout.uniform(6.3, 10.5)
    rz = rx * layout.uniform(0.55, 0.8)
    lobe = blob(
        layout, layout.uniform(-17, 17), layout.uniform(14.5, 26), rx + layout.uniform(4, 8), rz + layout.uniform(2, 4)
    )
    x = lobe.x + layout.uniform(-1, 1) * (lobe.rx - rx)
    z = lobe.z + layout.uniform(-1, 1) * (lobe.rz - rz)
    outline = blob(layout, x, z, rx, rz, layout.normal(0, 0.2), 0.1)
    scene = neck(body, pose, lobe, nodule(outline, str(layout.choice(NODULE_KINDS)), layout))
    return picture(scene, Setup(THIRD, THIRD.random_tuning(pose), LINEAR_HIGH, float(layout.choice((35, 40)))), pose)


def _header(case: Case, seed: int) -> Header:
    """Tags of a labelled DICOM image: one study per patient."""
    study, series = (fixed_uid(seed, case.of.name, kind, case.patient) for kind in ("study", "series"))
    return Header(
        Person(case.patient_name, "O", 1970),
        Study(study, series, "20190601", "120000", "US ABDOMEN"),
        instance_uid=fixed_uid(seed, case.of.name, case.patient, case.image),
        number=case.image + 1,
        transducer_type=CURVILINEAR.kind,
        transducer_data=(CURVILINEAR.model,),
        regions=True,
    )
