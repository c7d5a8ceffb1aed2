"""The three labelled sets beside the archive: view quality, liver and kidney, thyroid nodules.

Belongs here: their patients, splits, labels, manifests. Not here: the archive, single views of the body.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from pipeline.phantom.anatomy import Ellipse, Scene, Tissue, nodule, rib
from pipeline.phantom.dicom import Encoding, Header, Person, Study, fixed_uid, instance, write
from pipeline.phantom.scanner import CURVILINEAR, LINEAR_HIGH, LOGIQ_LIKE, THIRD, Setup, View, picture
from pipeline.phantom.views import NODULE_KINDS, VIEWS, morison_at, neck
from pipeline.recipe import Phantom

T = Tissue
LIVER_KIDNEY = {T.LIVER: 1, T.LIVER_VEIN: 1, T.PORTAL_WALL: 1, T.CORTEX: 2, T.PYRAMID: 2, T.SINUS: 2}
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
        """How many images a patient has at most."""
        return max(-(-images // patients) for images, patients in self.splits)


def labelled_sets(settings: Phantom) -> tuple[LabelledSet, ...]:
    """The three sets at the size that a recipe asks for."""
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
        """The patient as the manifest names it; no patient is in two sets or in the archive."""
        return f"{self.of.name[0].upper()}{self.patient:03d}"

    @property
    def image_path(self) -> str:
        """Where the image lies, relative to the manifest."""
        ending = "dcm" if self.of.name == "liver_kidney" else "png"
        return f"{self.of.name}/images/{self.patient_name}_{self.image}.{ending}"

    @property
    def mask_path(self) -> str:
        """Where the mask lies, relative to the manifest."""
        return f"{self.of.name}/masks/{self.patient_name}_{self.image}.png"


def cases(sets: tuple[LabelledSet, ...]) -> list[Case]:
    """Every image of the labelled sets."""
    return [case for labelled in sets for case in _cases_of(labelled)]


def write_case(folder: Path, case: Case, seed: int) -> None:
    """Make one labelled image and write it, with its mask where it has one, under `folder`."""
    body, pose = _draws(case, seed, 1), _draws(case, seed, 2)
    if case.of.name == "thyroid":
        view = _thyroid(body, pose, _draws(case, seed, 3))
    elif case.of.name == "liver_kidney":
        view = _liver_kidney(body, pose)
    else:
        view = _quality(_grade(case, seed), body, pose)
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


def write_manifests(folder: Path, sets: tuple[LabelledSet, ...], seed: int) -> None:
    """Write each set's CSV: image, its label (`quality` or `mask`), patient, split; paths relative to the CSV."""
    for labelled in sets:
        with open(folder / f"{labelled.name}.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("image", labelled.label, "patient", "split"))
            for case in _cases_of(labelled):
                label = case.mask_path if labelled.label == "mask" else _grade(case, seed)
                rows.writerow((case.image_path, label, case.patient_name, case.split))


def _cases_of(labelled: LabelledSet) -> Iterator[Case]:
    """The set's images, patient by patient; a split's are shared out as evenly as they can be."""
    patient = 0
    for split, (images, patients) in zip(SPLITS, labelled.splits, strict=True):
        for place in range(patients):
            for image in range(images // patients + (place < images % patients)):
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
    """A view of Morison's pouch as clear as its grade says; grade 0 shows neither liver nor kidney.

    Clarity is a sum of causes: the kidney's outline lies more or less within the sector, sound reaches less or more
    deep, a rib shadows more or less of it, organs stand out from what surrounds them less or more. The operator sends
    more power where sound fades, so that mean brightness says little.
    """
    if grade == 0:
        return _logiq(_emptied(VIEWS[str(pose.choice(OTHER_VIEWS))](body, pose)), pose, fading_db=pose.uniform(2, 26))
    clarity = grade + pose.uniform(-0.25, 0.25)
    side = float(pose.choice((-1.0, 1.0)))
    offset = max(0.0, 62 - 15 * clarity) + pose.normal(0, 4)
    scene = morison_at(body, pose, x=side * offset, z=pose.uniform(68, 92), side=side)
    width = 3.2 * (3.4 - clarity)
    ribs = (rib(side * pose.uniform(2, 20), 22, width),) if width > 1.5 else ()
    clutter = -2.5 * (clarity - 1)
    changes = ((T.CORTEX, 1.0 + 0.7 * clutter), (T.CAPSULE, -clutter - 3), (T.BOWEL, clutter), (T.MUSCLE, clutter / 2))
    scene = replace(scene, wall=(*scene.wall, *ribs), echo_db=(*scene.echo_db, *changes))
    return _logiq(scene, pose, fading_db=36 - 8.5 * clarity)


def _emptied(scene: Scene) -> Scene:
    """The scene without liver and kidney."""
    return replace(scene, layers=tuple(layer for layer in scene.layers if layer.tissue not in LIVER_AND_KIDNEY))


def _liver_kidney(body: Generator, pose: Generator) -> View:
    """A clear view of Morison's pouch, from either side, the kidney anywhere in reach, bowel darker than liver."""
    side = float(pose.choice((-1.0, 1.0)))
    scene = morison_at(body, pose, x=side * pose.uniform(-10, 64), z=pose.uniform(50, 112), side=side)
    changes = ((T.BOWEL, -4.0), (T.MUSCLE, -2.0), (T.LIVER, 1.0))
    return _logiq(replace(scene, echo_db=(*scene.echo_db, *changes)), pose, fading_db=pose.uniform(0, 10))


def _logiq(scene: Scene, pose: Generator, fading_db: float) -> View:
    """The scene through the second scanner's curvilinear probe, with more power sent where sound fades."""
    tuning, more = LOGIQ_LIKE.tuned(pose), 0.45 * fading_db
    # More power lifts echoes alone; in `Tuning`, gain lifts the noise with them.
    tuning = replace(tuning, fading_db=fading_db, gain_db=tuning.gain_db + more, noise_db=tuning.noise_db - more)
    return picture(scene, Setup(LOGIQ_LIKE, tuning, CURVILINEAR, float(pose.choice((130, 150)))), pose)


def _thyroid(body: Generator, pose: Generator, place: Generator) -> View:
    """A nodule in a lobe anywhere in the picture, through the third scanner's linear probe."""
    rx = place.uniform(6.3, 10.5)
    rz = rx * place.uniform(0.55, 0.8)
    lobe = Ellipse(place.uniform(-17, 17), place.uniform(14.5, 26), rx + place.uniform(4, 8), rz + place.uniform(2, 4))
    x = lobe.x + place.uniform(-1, 1) * (lobe.rx - rx)
    z = lobe.z + place.uniform(-1, 1) * (lobe.rz - rz)
    outline = Ellipse(x, z, rx, rz, place.normal(0, 0.2))
    scene = neck(body, pose, lobe, nodule(outline, str(place.choice(NODULE_KINDS)), place))
    return picture(scene, Setup(THIRD, THIRD.tuned(pose), LINEAR_HIGH, float(place.choice((35, 40)))), pose)


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
